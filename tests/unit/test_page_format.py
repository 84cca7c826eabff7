"""Pages as bytes: what is written is read back, and anything else is refused."""

import contextlib
import json
import random
import struct
import tracemalloc
import zlib
from array import array
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pages.format import (
    DIGEST_BYTES,
    MAGIC,
    MAX_BODY_BYTES,
    MAX_OUTLINE_BYTES,
    MAX_RATIO,
    MAX_VALUE_BYTES,
    PageTooLargeError,
    decode_page,
    encode_page,
)
from app.pages.page import Page, PageFormatError, Segmentation
from app.pages.spans import Given, Pair, SpanChain
from devstack.families import Family
from tests.support.graphs import page_of, pair_of, segmentation_of, unhurried
from tests.support.strategies import families

KEY = b"the key"
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
        assert decode_page(encode_page(page, KEY), name, KEY) == page


def test_a_problem_and_absence_are_read_back() -> None:
    for page in (Page("m", 1, True, problem="bad span"), Page("m", 1, False)):
        assert decode_page(encode_page(page, KEY), "m", KEY) == page


def test_a_flipped_bit_anywhere_is_noticed() -> None:
    encoded = encode_page(PAGE, KEY)
    for at in range(len(encoded)):
        for bit in range(8):
            damaged = bytearray(encoded)
            damaged[at] ^= 1 << bit
            with pytest.raises(PageFormatError):
                decode_page(bytes(damaged), "m", KEY)


def test_a_page_cut_anywhere_or_prolonged_is_noticed() -> None:
    encoded = encode_page(PAGE, KEY)
    for at in range(len(encoded)):
        with pytest.raises(PageFormatError):
            decode_page(encoded[:at], "m", KEY)
    with pytest.raises(PageFormatError):
        decode_page(encoded + b"\0", "m", KEY)


@unhurried
@given(st.binary(max_size=200))
def test_rubbish_is_no_page(rubbish: bytes) -> None:
    for data in (rubbish, MAGIC + rubbish, sealed(rubbish), sealed(packed(rubbish))):
        with pytest.raises(PageFormatError):
            decode_page(data, "m", KEY)


def test_the_page_of_another_manifestation_is_refused() -> None:
    with pytest.raises(PageFormatError, match="another manifestation"):
        decode_page(encode_page(replace(PAGE, manifestation_id="n"), KEY), "m", KEY)


def test_a_page_under_another_key_is_refused() -> None:
    for other in (b"another key", b"the kex", b""):
        with pytest.raises(PageFormatError, match="the checksum differs"):
            decode_page(encode_page(PAGE, other), "m", KEY)


def test_a_forged_length_does_not_fill_the_memory() -> None:
    bomb = zlib.compress(bytes(50_000_000))
    lengths = [100, 50_000_000, MAX_BODY_BYTES + 1, 2**32 - 1]
    values = [sealed(struct.pack("<I", length) + bomb) for length in lengths]
    for value in values:
        with pytest.raises(PageFormatError):
            decode_page(value, "m", KEY)
    assert peak_bytes(*values) < 5_000_000


def test_a_value_too_large_to_be_a_page_is_refused_unseen() -> None:
    with pytest.raises(PageFormatError, match="too large"):
        decode_page(MAGIC + bytes(MAX_VALUE_BYTES), "m", KEY)


def test_a_text_of_half_a_million_segments_with_ten_alignments_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of it into a tenth of the room. Its names are random, and shrink to half at best."""
    monkeypatch.setattr("app.pages.format.MAX_BODY_BYTES", MAX_BODY_BYTES // 10)
    monkeypatch.setattr("app.pages.format.MAX_VALUE_BYTES", MAX_VALUE_BYTES // 10)
    numbers = array("i", range(0, 500_000, 10))
    chain = SpanChain(numbers, numbers, numbers, numbers)
    names = random.Random(7).randbytes(17 * len(numbers)).hex()
    offsets = array("i", range(0, len(names) + 1, 34))
    page = Page(
        "m", 1, True, (Pair("a", "b", "t", Given((chain,))),) * 10, Segmentation(numbers, numbers, offsets, names)
    )
    assert decode_page(encode_page(page, KEY), "m", KEY) == page


@pytest.mark.parametrize("page_bytes", [1_000_000, 4_000_000])
def test_pages_as_regular_as_can_be_are_far_from_the_ratio_that_is_refused(page_bytes: int) -> None:
    """All segments of a text and all that is aligned with them have the same span."""
    size = page_bytes // 36
    names = [f"s{at}" for at in range(size)]
    rows = [(0, at, 0, 5) for at in range(size)]
    page = Page("m", 1, True, (pair_of("t", rows),), Segmentation.from_columns(names, [0] * size, [5] * size))
    encoded = encode_page(page, KEY)
    assert decode_page(encoded, "m", KEY) == page
    assert len(unpacked(encoded)) < MAX_RATIO / 3 * len(encoded)


@pytest.mark.parametrize(
    ("bound", "value"),
    [("MAX_BODY_BYTES", 3_000), ("MAX_VALUE_BYTES", 500), ("MAX_OUTLINE_BYTES", 100), ("ANY_RATIO_BYTES", 0)],
)
def test_what_would_not_be_read_is_not_written(bound: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page("m", 1, True, (), segmentation_of([(f"{at:09}", 0, 5) for at in range(200)]))
    encoded = encode_page(page, KEY)
    monkeypatch.setattr("app.pages.format.MAX_RATIO", 2)
    monkeypatch.setattr(f"app.pages.format.{bound}", value)
    with pytest.raises(PageFormatError):
        decode_page(encoded, "m", KEY)
    with pytest.raises(PageTooLargeError):
        encode_page(page, KEY)


SMALL_BODY_BYTES = 4_000_000
SMALL_OUTLINE_BYTES = SMALL_BODY_BYTES * MAX_OUTLINE_BYTES // MAX_BODY_BYTES
EMPTY = {"id": "m", "read_at_us": 1, "exists": True, "problem": "", "pairs": [], "chains": []}
MANY = SMALL_BODY_BYTES // 16 - 1_000
NUMBERS = array("i", range(MANY)).tobytes()


@pytest.mark.parametrize(
    ("outline", "filling"),
    [
        pytest.param({"pairs": [{}] * 900_000}, b"", id="an outline larger than any"),
        pytest.param({"pairs": [{}] * (SMALL_OUTLINE_BYTES // 5)}, b"", id="an outline full of objects"),
        pytest.param({"pairs": [[]] * (SMALL_OUTLINE_BYTES // 5)}, b"", id="an outline full of lists"),
        pytest.param({"problem": "x" * (SMALL_OUTLINE_BYTES // 2)}, b"", id="an outline full of text"),
        pytest.param(
            {"pairs": [["a", "b", "c", True, [[1, "iiii"]] * (SMALL_OUTLINE_BYTES // 13)]], "offsets": [1, "i"]},
            bytes(16 * (SMALL_OUTLINE_BYTES // 13) + 4),
            id="chains of one",
        ),
        pytest.param(
            {"segments": [MANY, "ii"], "offsets": [MANY + 1, "i"]},
            2 * NUMBERS + bytes(4 * MANY + 4),
            id="segments without names",
        ),
        pytest.param(
            {"segments": [MANY, "ii"], "offsets": [MANY + 1, "i"], "chains": [[MANY - 1, "i"], [1, "i"]]},
            2 * NUMBERS + bytes(4 * MANY + 4) + NUMBERS,
            id="ranks",
        ),
        pytest.param(
            {"segments": [1, "ii"], "offsets": [2, "i"], "chains": [[3 * MANY, "i"]]}, bytes(16 * MANY), id="many ranks"
        ),
        pytest.param(
            {"pairs": [["a", "b", "c", True, [[MANY, "iiii"]]]], "offsets": [1, "i"]},
            4 * NUMBERS + bytes(4),
            id="a long alignment",
        ),
        pytest.param({"offsets": [1, "i"]}, bytes(SMALL_BODY_BYTES - 1_000), id="names of nothing"),
        pytest.param({"segments": [10**12, "ii"]}, bytes(1_000), id="more than there is"),
        pytest.param({"segments": ["ii" * 30_000, "ii"]}, bytes(1_000), id="a length that multiplies"),
        pytest.param({"segments": [0, "i" * 60_000]}, bytes(1_000), id="many types"),
    ],
)
def test_a_bomb_made_with_the_key_takes_little_more_than_the_longest_page(
    outline: dict[str, object], filling: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a world that is smaller by a constant factor. Most of these are no page, some are a strange one."""
    monkeypatch.setattr("app.pages.format.MAX_BODY_BYTES", SMALL_BODY_BYTES)
    monkeypatch.setattr("app.pages.format.MAX_OUTLINE_BYTES", SMALL_OUTLINE_BYTES)
    monkeypatch.setattr("app.pages.format.MAX_RATIO", 10_000)
    monkeypatch.setattr("app.pages.spans.LOOK_AT_ONCE", 2_000)
    monkeypatch.setattr("app.pages.format.LOOK_AT_ONCE", 2_000)
    text = json.dumps({**EMPTY, "segments": [0, "ii"], "offsets": [0, "i"], **outline}).encode()
    data = sealed(packed(struct.pack("<I", len(text)) + text + filling))
    assert peak_bytes(data) < 4 * SMALL_BODY_BYTES


def json_like() -> st.SearchStrategy[object]:
    """What an outline may hold, and what it may not."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-2, 5)
        | st.sampled_from([2**40, 2**70, 1.5, "", "m", "i", "ii", "iiii", "\ud800"])
    )
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    )


announced = (
    st.tuples(st.integers(0, 3), st.sampled_from(["i", "q", "ii", "qi", "iiii", "iqiq"])).map(list) | json_like()
)
chains = st.lists(announced, max_size=3) | json_like()
texts = st.sampled_from(["m", "a", "\ud800", "é"]) | json_like()
pairs = st.tuples(texts, texts, texts, st.booleans() | json_like(), chains).map(list) | json_like()
outlines = st.fixed_dictionaries(
    {
        "id": texts,
        "read_at_us": st.integers(-1, 2**70) | json_like(),
        "exists": st.booleans() | json_like(),
        "problem": texts,
        "pairs": st.lists(pairs, max_size=3) | json_like(),
        "segments": announced,
        "offsets": announced,
        "chains": chains,
    }
)
fillings = st.lists(st.integers(-1, 3), max_size=40).map(lambda drawn: struct.pack(f"<{len(drawn)}i", *drawn))


@unhurried
@given(outlines | json_like(), fillings, st.binary(max_size=8), st.integers(-3, 3))
def test_whatever_is_written_with_the_key_is_a_page_or_refused(
    outline: object, filling: bytes, end: bytes, error: int
) -> None:
    text = json.dumps(outline).encode()
    body = struct.pack("<I", max(0, len(text) + error)) + text + filling + end
    with contextlib.suppress(PageFormatError):
        page = decode_page(sealed(packed(body)), "m", KEY)
        page.entry(page.segmentation.overlapping(0, 10))
        assert decode_page(encode_page(page, KEY), "m", KEY) == page


@unhurried
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_page_that_was_damaged_with_the_key_is_a_page_or_refused(changes: list[tuple[int, int]]) -> None:
    body = bytearray(unpacked(encode_page(PAGE, KEY)))
    for at, value in changes:
        body[at % len(body)] = value
    with contextlib.suppress(PageFormatError):
        page = decode_page(sealed(packed(bytes(body))), "m", KEY)
        page.entry(page.segmentation.overlapping(0, 100))


def peak_bytes(*values: bytes) -> int:
    """The most memory in use at once while these are decoded, or refused, beyond what was before."""
    tracemalloc.start()
    try:
        for value in values:
            with contextlib.suppress(PageFormatError):
                decode_page(value, "m", KEY)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def sealed(rest: bytes) -> bytes:
    """`rest` under a header that is right for it."""
    return MAGIC + blake2b(rest, key=KEY, digest_size=DIGEST_BYTES, person=b"srp page").digest() + rest


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
        pytest.param(integers_changed((0, 2, 1), (0, 2, 2)), id="a rank twice"),
        pytest.param(integers_changed((0, 2, 1), (0, 2, -2)), id="a rank from the end"),
        pytest.param(integers_changed((0, 2, 1), (0, 2, 3)), id="a rank beyond"),
        pytest.param(integers_changed((0, 2, 1), (2, 0, 1)), id="ranks out of order"),
        pytest.param(integers_changed((50, 20, 60), (50, 60, 20)), id="ends of a chain out of order"),
        pytest.param(outline_changed(b"[4,", b"[1,"), id="fewer offsets than segments"),
        pytest.param(lambda body: struct.pack("<I", 2**31) + body[4:], id="outline too long"),
        pytest.param(outline_changed(b'"exists":true', b'"exists":1'), id="exists no bool"),
        pytest.param(outline_changed(b'"read_at_us":1700000000000000', b'"read_at_us":"1"'), id="time no int"),
        pytest.param(outline_changed(b'"read_at_us":17', b'"read_at_us":-17'), id="time before all"),
        pytest.param(outline_changed(b'"read_at_us"', b'"read"'), id="field missing"),
        pytest.param(outline_changed(b'"exists"', b'"more":1,"exists"'), id="a field more"),
        pytest.param(outline_changed(b'"a1"', b"17"), id="annotation no text"),
        pytest.param(outline_changed(b'"t",false', b'"t",0'), id="end no truth"),
        pytest.param(outline_changed(b'"problem":""', b'"problem":[]'), id="problem no text"),
        pytest.param(outline_changed(b'"iiqq"', b'"iiq"'), id="array missing"),
        pytest.param(outline_changed(b'"iiqq"', b'"iiQq"'), id="unknown type code"),
        pytest.param(outline_changed(b"[2,", b"[-2,"), id="negative length"),
        pytest.param(outline_changed(b"[2,", b"[2.0,"), id="length no integer"),
        pytest.param(outline_changed(b'[1,"i"]', b'[true,"i"]'), id="length a truth"),
        pytest.param(outline_changed(b"[2,", b"[100000000,"), id="length beyond the body"),
        pytest.param(outline_changed(b'"pairs":[', b'"pairs":' + 5000 * b"["), id="deep nesting"),
    ],
)
def test_a_sealed_body_of_another_shape_is_refused(change: Callable[[bytes], bytes]) -> None:
    body = unpacked(encode_page(PAGE, KEY))
    assert decode_page(sealed(packed(body)), "m", KEY) == PAGE
    with pytest.raises(PageFormatError):
        decode_page(sealed(packed(change(body))), "m", KEY)


def test_a_segment_in_two_chains_is_refused() -> None:
    again = replace(PAGE.segmentation, chains=(*PAGE.segmentation.chains, array("i", [1])))
    with pytest.raises(PageFormatError, match="chains and segments differ"):
        decode_page(encode_page(replace(PAGE, segmentation=again), KEY), "m", KEY)
