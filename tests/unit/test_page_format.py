"""Pages as bytes: what is written is read back, and anything else is refused."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.page_format import DIGEST_BYTES, MAGIC, MAX_BODY_BYTES, decode_page, encode_page
from app.pages import Page, PageFormatError
from devstack.families import Family
from tests.graph_fixtures import page_of, pair_of, segmentation_of, unhurried
from tests.strategies import families

PAGE = Page(
    "m",
    1_700_000_000_000_000,
    True,
    (pair_of("t", [(0, 10, 5, 9), (2, 4, 2**40, 2**41), (8, 20, 1, 1)]),),
    segmentation_of([("a", 0, 50), ("b", 10, 20), ("é", 20, 60)]),
)


@unhurried
@given(families(damaged=True), st.integers(0, 2**60))
def test_every_page_is_read_back_equal(family: Family, read_at_us: int) -> None:
    for name in (*family.manifestations, "nowhere"):
        page = page_of(family, name, read_at_us)
        assert decode_page(encode_page(page), name) == page


def test_a_problem_and_absence_are_read_back() -> None:
    for page in (Page("m", 1, True, problem="bad span"), Page("m", 1, False)):
        assert decode_page(encode_page(page), "m") == page


def test_a_flipped_bit_anywhere_is_noticed() -> None:
    encoded = encode_page(PAGE)
    for at in range(len(encoded)):
        for bit in range(8):
            damaged = bytearray(encoded)
            damaged[at] ^= 1 << bit
            with pytest.raises(PageFormatError):
                decode_page(bytes(damaged), "m")


def test_a_page_cut_anywhere_or_prolonged_is_noticed() -> None:
    encoded = encode_page(PAGE)
    for at in range(len(encoded)):
        with pytest.raises(PageFormatError):
            decode_page(encoded[:at], "m")
    with pytest.raises(PageFormatError):
        decode_page(encoded + b"\0", "m")


@unhurried
@given(st.binary(max_size=200))
def test_rubbish_is_no_page(rubbish: bytes) -> None:
    for data in (rubbish, MAGIC + rubbish, sealed(rubbish), sealed(packed(rubbish))):
        with pytest.raises(PageFormatError):
            decode_page(data, "m")


def test_the_page_of_another_manifestation_is_refused() -> None:
    with pytest.raises(PageFormatError, match="another manifestation"):
        decode_page(encode_page(replace(PAGE, manifestation_id="n")), "m")


def test_a_forged_length_does_not_fill_the_memory() -> None:
    bomb = zlib.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        for size in (100, MAX_BODY_BYTES + 1, 2**32 - 1):
            with pytest.raises(PageFormatError):
                decode_page(sealed(struct.pack("<I", size) + bomb), "m")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5_000_000


def sealed(rest: bytes) -> bytes:
    """`rest` under a header that is right for it."""
    return MAGIC + blake2b(rest, digest_size=DIGEST_BYTES).digest() + rest


def packed(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + zlib.compress(body)


def unpacked(encoded: bytes) -> bytes:
    return zlib.decompress(encoded[len(MAGIC) + DIGEST_BYTES + 4 :])


def outline_changed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """A body whose outline says `new` instead of `old`, with the outline's length set right."""

    def change(body: bytes) -> bytes:
        assert old in body
        (size,) = struct.unpack_from("<I", body)
        outline = body[4 : 4 + size].replace(old, new)
        return struct.pack("<I", len(outline)) + outline + body[4 + size :]

    return change


def integers_changed(old: tuple[int, ...], new: tuple[int, ...]) -> Callable[[bytes], bytes]:
    """A body in which neighbours in its arrays are others."""

    def change(body: bytes) -> bytes:
        assert body.count(struct.pack(f"<{len(old)}i", *old)) == 1
        return body.replace(struct.pack(f"<{len(old)}i", *old), struct.pack(f"<{len(new)}i", *new))

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda body: body[:-1], id="text cut"),
        pytest.param(lambda body: body + b"x", id="text prolonged"),
        pytest.param(lambda body: body[:-1] + b"\xff", id="text not ascii"),
        pytest.param(integers_changed((0, 8), (8, 0)), id="starts out of order"),
        pytest.param(integers_changed((0, 2, 1), (0, 1, 1)), id="a rank twice"),
        pytest.param(integers_changed((0, 2, 1), (2, 0, 1)), id="ranks out of order"),
        pytest.param(integers_changed((50, 20, 60), (50, 60, 20)), id="ends of a chain out of order"),
        pytest.param(outline_changed(b"[4,", b"[1,"), id="fewer offsets than segments"),
        pytest.param(lambda body: struct.pack("<I", 2**31) + body[4:], id="outline too long"),
        pytest.param(outline_changed(b'"exists": true', b'"exists": 1'), id="exists no bool"),
        pytest.param(outline_changed(b'"read_at_us": 1700000000000000', b'"read_at_us": "1"'), id="time no int"),
        pytest.param(outline_changed(b'"read_at_us"', b'"read"'), id="field missing"),
        pytest.param(outline_changed(b'"a1"', b"17"), id="annotation no text"),
        pytest.param(outline_changed(b'"t", true', b'"t", 1'), id="wholeness no truth"),
        pytest.param(outline_changed(b'"problem": ""', b'"problem": []'), id="problem no text"),
        pytest.param(outline_changed(b'"iiqq"', b'"iiq"'), id="array missing"),
        pytest.param(outline_changed(b'"iiqq"', b'"iiQq"'), id="unknown type code"),
        pytest.param(outline_changed(b"[2,", b"[-2,"), id="negative length"),
        pytest.param(outline_changed(b"[2,", b"[2.0,"), id="length no integer"),
        pytest.param(outline_changed(b"[2,", b"[100000000,"), id="length beyond the body"),
        pytest.param(outline_changed(b'"pairs": [', b'"pairs": ' + 5000 * b"["), id="deep nesting"),
    ],
)
def test_a_sealed_body_of_another_shape_is_refused(change: Callable[[bytes], bytes]) -> None:
    body = unpacked(encode_page(PAGE))
    assert decode_page(sealed(packed(body)), "m") == PAGE
    with pytest.raises(PageFormatError):
        decode_page(sealed(packed(change(body))), "m")
