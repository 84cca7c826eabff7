"""Pages as bytes, for the cache that workers share.

Invariant: bytes that were not written by `encode_page` of this very format, under this very key, for this very
manifestation, are refused: a checksum that nobody can make without the key covers everything, and what it covers is
checked again for shape. Nothing in them is ever executed. Whatever they are, refusing them takes no more memory than
four times `MAX_BODY_BYTES`, and much less for a short value.

Layout: MAGIC (its last byte is the format's version), keyed BLAKE2b-128 of all that follows, length of the body
before compression (4 bytes), the body under zlib. The body: length of the outline (4 bytes), the outline as
JSON, every array that the outline announces as little-endian integers, the segments' names in ASCII.
"""

import struct
import sys
import zlib
from array import array
from collections.abc import Buffer
from hashlib import blake2b
from hmac import compare_digest
from typing import Annotated

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder, encode

from app.pages.page import Page, PageFormatError, Segmentation
from app.pages.spans import LOOK_AT_ONCE, Given, Numbers, Pair, SpanChain, is_ascending, pick

FORMAT_VERSION = 6
MAGIC = b"srpage" + bytes([FORMAT_VERSION])
DIGEST_BYTES = 16
MAX_BODY_BYTES = 128 * 1024 * 1024
"""A text of 500,000 segments with ids of 32 characters and ten alignments takes 103 MB, and 38 MB as a value."""
MAX_VALUE_BYTES = MAX_BODY_BYTES // 2
MAX_OUTLINE_BYTES = 4 * 1024 * 1024
"""Room for 20,000 alignments; decoded, an outline takes up to 14 times its length."""
MAX_RATIO = 50
"""Pages shrink to a third as a rule, the most regular ones to a tenth; a run of zeros to a thousandth."""
ANY_RATIO_BYTES = 1024 * 1024  # a body of this length may be as regular as it likes
_HEADER = struct.Struct(f"<{len(MAGIC)}s{DIGEST_BYTES}s")
_LENGTH = struct.Struct("<I")
_ZLIB_LEVEL = 1

type _Natural = Annotated[int, Meta(ge=0)]
type _Arrays = tuple[_Natural, str]
"""What the outline announces: the length of some arrays that are equally long, and a type code each."""


class _PairOutline(Struct, array_like=True, forbid_unknown_fields=True):
    """All of a `Pair` but the numbers; `chains` announce the starts, ends, lows and highs of each that was given."""

    annotation: str
    other: str
    target: str
    from_other_end: bool
    chains: list[_Arrays]


class _Outline(Struct, forbid_unknown_fields=True):
    """All of a `Page` but the numbers and the segments' names; the arrays follow in the order of these fields."""

    id: str
    read_at_us: _Natural
    exists: bool
    problem: str
    pairs: list[_PairOutline]
    segments: _Arrays  # starts and ends
    offsets: _Arrays
    chains: list[_Arrays]


_outlines = Decoder(_Outline)


class PageTooLargeError(PageFormatError):
    """This page is larger than what a worker would read; it is not for the cache that workers share."""


def encode_page(page: Page, key: bytes) -> bytes:
    """The page as bytes that `decode_page` turns into an equal one. Raises `PageTooLargeError`."""
    arrays: list[Numbers] = []
    segmentation = page.segmentation
    outline = _Outline(
        page.manifestation_id,
        page.read_at_us,
        page.exists,
        page.problem,
        [_outline_pair(pair, arrays) for pair in page.pairs],
        _announce(arrays, segmentation.starts, segmentation.ends),
        _announce(arrays, segmentation.offsets),
        [_announce(arrays, ranks) for ranks in segmentation.chains],
    )
    text = encode(outline)
    size = _LENGTH.size + len(text) + len(segmentation.names) + sum(len(each) * each.itemsize for each in arrays)
    if len(text) > MAX_OUTLINE_BYTES or size > MAX_BODY_BYTES:
        raise PageTooLargeError(f"{size} bytes")
    body = b"".join(
        [_LENGTH.pack(len(text)), text, *map(_to_bytes, arrays), segmentation.names.encode("ascii")],
    )
    rest = _LENGTH.pack(size) + zlib.compress(body, _ZLIB_LEVEL)
    if _HEADER.size + len(rest) > MAX_VALUE_BYTES or size > _longest_body(len(rest)):
        raise PageTooLargeError(f"{size} bytes, {len(rest)} compressed")
    return _HEADER.pack(MAGIC, _checksum(rest, key)) + rest


def decode_page(data: bytes, expected_id: str, key: bytes) -> Page:
    """The page of the manifestation `expected_id`, written under `key`; PageFormatError for anything else."""
    try:
        page = _decode(_unwrap(data, key))
    except (DecodeError, UnicodeDecodeError) as error:
        raise PageFormatError(f"not of the shape of a page: {type(error).__name__}") from error
    if page.manifestation_id != expected_id:
        raise PageFormatError("the page of another manifestation")
    return page


def _outline_pair(pair: Pair, arrays: list[Numbers]) -> _PairOutline:
    """As it was given; the arrays are queued for writing."""
    chains, from_other_end = pair.given
    announced = [_announce(arrays, chain.starts, chain.ends, chain.lows, chain.highs) for chain in chains]
    return _PairOutline(pair.annotation, pair.other, pair.target, from_other_end, announced)


def _announce(arrays: list[Numbers], *group: Numbers) -> _Arrays:
    """Queue arrays of one length for writing; what the outline says of them."""
    arrays.extend(group)
    return len(group[0]), "".join(numbers.typecode for numbers in group)


def _to_bytes(numbers: Numbers) -> bytes:
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()


def _checksum(rest: Buffer, key: bytes) -> bytes:
    return blake2b(rest, key=key, digest_size=DIGEST_BYTES, person=b"srp page").digest()


def _longest_body(rest_bytes: int) -> int:
    """How long a body is believed to be whose length and compressed form are so many bytes."""
    return min(MAX_BODY_BYTES, max(ANY_RATIO_BYTES, MAX_RATIO * rest_bytes))


def _unwrap(data: bytes, key: bytes) -> bytes:
    """Check magic, checksum and lengths, in this order; the body."""
    if len(data) > MAX_VALUE_BYTES:
        raise PageFormatError("too large")
    if len(data) < _HEADER.size + _LENGTH.size or not data.startswith(MAGIC):
        raise PageFormatError("no page of this format")
    rest = memoryview(data)[_HEADER.size :]
    if not compare_digest(_checksum(rest, key), data[len(MAGIC) : _HEADER.size]):
        raise PageFormatError("the checksum differs")
    (size,) = _LENGTH.unpack_from(rest)
    if size > _longest_body(len(rest)):
        raise PageFormatError("too large when unpacked")
    unpacking = zlib.decompressobj()
    try:
        body = unpacking.decompress(rest[_LENGTH.size :], size + 1)
    except zlib.error as error:
        raise PageFormatError("does not decompress") from error
    if len(body) != size or not unpacking.eof or unpacking.unused_data:
        raise PageFormatError("the length differs")
    return body


class _Reader:
    """Takes the body apart from front to back; asking for more than there is is a PageFormatError."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)
        self._at = 0

    def take(self, size: int) -> memoryview:
        if size < 0 or self._at + size > len(self._body):
            raise PageFormatError("cut short")
        self._at += size
        return self._body[self._at - size : self._at]

    def length(self) -> int:
        (size,) = _LENGTH.unpack(self.take(_LENGTH.size))
        return int(size)

    def arrays(self, announced: _Arrays, count: int) -> list[Numbers]:
        """So many arrays, announced together."""
        length, typecodes = announced
        if len(typecodes) != count:
            raise PageFormatError("a group of arrays of another shape")
        return [self._numbers(length, typecode) for typecode in typecodes]

    def rest(self) -> memoryview:
        return self.take(len(self._body) - self._at)

    def _numbers(self, length: int, typecode: str) -> Numbers:
        if typecode not in ("i", "q"):
            raise PageFormatError("an array of an unknown type")
        numbers: Numbers = array(typecode)
        numbers.frombytes(self.take(length * numbers.itemsize))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers


def _decode(body: bytes) -> Page:
    reader = _Reader(body)
    outline_bytes = reader.length()
    if outline_bytes > MAX_OUTLINE_BYTES:
        raise PageFormatError("the outline is too long")
    outline = _outlines.decode(reader.take(outline_bytes))
    pairs = tuple(
        Pair(
            *(pair.annotation, pair.other, pair.target),
            Given(tuple(_span_chain(reader, announced) for announced in pair.chains), pair.from_other_end),
        )
        for pair in outline.pairs
    )
    starts, ends = reader.arrays(outline.segments, 2)
    (offsets,) = reader.arrays(outline.offsets, 1)
    chains = tuple(ranks for announced in outline.chains for ranks in reader.arrays(announced, 1))
    segmentation = Segmentation(starts, ends, offsets, str(reader.rest(), "ascii"), chains)
    _check_segmentation(segmentation)
    return Page(outline.id, outline.read_at_us, outline.exists, pairs, segmentation, outline.problem)


def _span_chain(reader: _Reader, announced: _Arrays) -> SpanChain:
    starts, ends, lows, highs = reader.arrays(announced, 4)
    if not starts:
        raise PageFormatError("an empty chain")
    _check_ascending(starts, ends)
    return SpanChain(starts, ends, lows, highs)


def _check_segmentation(segmentation: Segmentation) -> None:
    """Segments in order, every one of them in one chain, and offsets that cut the text into as many names."""
    starts, ends, offsets, chains = segmentation.starts, segmentation.ends, segmentation.offsets, segmentation.chains
    _check_ascending(starts, offsets)
    if len(offsets) != len(starts) + 1 or offsets[0] != 0 or offsets[-1] != len(segmentation.names):
        raise PageFormatError("offsets and names differ")
    if not chains:
        _check_ascending(ends)
        return
    if sum(map(len, chains)) != len(starts):
        raise PageFormatError("chains and segments differ")
    seen = bytearray(len(starts))
    for ranks in chains:
        _check_chain(ranks, ends)
        for rank in ranks:
            seen[rank] = 1
    if 0 in seen:
        raise PageFormatError("chains and segments differ")


def _check_chain(ranks: Numbers, ends: Numbers) -> None:
    """Ranks of segments, ascending, and so do the segments' ends."""
    _check_ascending(ranks)
    if ranks and not 0 <= ranks[0] <= ranks[-1] < len(ends):
        raise PageFormatError("a rank of no segment")
    for at in range(0, len(ranks), LOOK_AT_ONCE):
        _check_ascending(pick(ends, ranks[at : at + LOOK_AT_ONCE + 1]))


def _check_ascending(*columns: Numbers) -> None:
    if not all(map(is_ascending, columns)):
        raise PageFormatError("an array is out of order")
