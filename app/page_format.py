"""Pages as bytes, for the cache that workers share.

Invariant: bytes that were not written by `encode_page` of this very format, for this very manifestation, are
refused: a checksum covers everything, and what it covers is checked again for shape. Nothing in them is ever
executed.

Layout: MAGIC (its last byte is the format's version), BLAKE2b-128 of all that follows, length of the body
before compression (4 bytes), the body under zlib. The body: length of the outline (4 bytes), the outline as
JSON, every array that the outline announces as little-endian integers, the segments' names in ASCII.
"""

import json
import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from app.pages import Page, PageFormatError, Segmentation
from app.spans import Numbers, Pair, SpanChain, is_ascending, pick

FORMAT_VERSION = 3
MAGIC = b"srpage" + bytes([FORMAT_VERSION])
DIGEST_BYTES = 16
MAX_BODY_BYTES = 256 * 1024 * 1024  # no page comes near; a forged length must not fill the memory
_HEADER = struct.Struct(f"<{len(MAGIC)}s{DIGEST_BYTES}s")
_LENGTH = struct.Struct("<I")
_ZLIB_LEVEL = 1


def encode_page(page: Page) -> bytes:
    """The page as bytes that `decode_page` turns into an equal one."""
    arrays: list[Numbers] = []
    segmentation = page.segmentation
    outline = {
        "id": page.manifestation_id,
        "read_at_us": page.read_at_us,
        "exists": page.exists,
        "problem": page.problem,
        "pairs": [
            [
                *(pair.annotation, pair.other, pair.target, pair.is_whole),
                [_announce(arrays, chain.starts, chain.ends, chain.lows, chain.highs) for chain in pair.chains],
            ]
            for pair in page.pairs
        ],
        "segments": _announce(arrays, segmentation.starts, segmentation.ends),
        "offsets": _announce(arrays, segmentation.offsets),
        "chains": [_announce(arrays, ranks) for ranks in segmentation.chains],
    }
    text = json.dumps(outline).encode("ascii")
    body = b"".join(
        [_LENGTH.pack(len(text)), text, *map(_to_bytes, arrays), segmentation.names.encode("ascii")],
    )
    rest = _LENGTH.pack(len(body)) + zlib.compress(body, _ZLIB_LEVEL)
    return _HEADER.pack(MAGIC, blake2b(rest, digest_size=DIGEST_BYTES).digest()) + rest


def decode_page(data: bytes, expected_id: str) -> Page:
    """The page of the manifestation `expected_id`; PageFormatError for anything else."""
    try:
        page = _decode(_unwrap(data))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise PageFormatError(f"not of the shape of a page: {type(error).__name__}") from error
    if page.manifestation_id != expected_id:
        raise PageFormatError("the page of another manifestation")
    return page


def _announce(arrays: list[Numbers], *group: Numbers) -> list[Any]:
    """Queue arrays of one length for writing; what the outline says of them: [length, a type code each]."""
    arrays.extend(group)
    return [len(group[0]), "".join(numbers.typecode for numbers in group)]


def _to_bytes(numbers: Numbers) -> bytes:
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()


def _unwrap(data: bytes) -> bytes:
    """Check magic, checksum and length; the body."""
    if len(data) < _HEADER.size + _LENGTH.size or not data.startswith(MAGIC):
        raise PageFormatError("no page of this format")
    rest = memoryview(data)[_HEADER.size :]
    if blake2b(rest, digest_size=DIGEST_BYTES).digest() != data[len(MAGIC) : _HEADER.size]:
        raise PageFormatError("the checksum differs")
    (size,) = _LENGTH.unpack_from(rest)
    if size > MAX_BODY_BYTES:
        raise PageFormatError("too large")
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

    def group(self, announced: Sequence[Any], names: Sequence[str]) -> list[Numbers]:
        """The arrays of one announcement; as many as `names`."""
        size, typecodes = announced
        if len(typecodes) != len(names):
            raise PageFormatError("a group of arrays lacks some")
        return [self._numbers(size, typecode) for typecode in typecodes]

    def rest(self) -> memoryview:
        return self.take(len(self._body) - self._at)

    def _numbers(self, size: int, typecode: str) -> Numbers:
        if typecode not in ("i", "q"):
            raise PageFormatError("an array of an unknown type")
        numbers: Numbers = array(typecode)
        numbers.frombytes(self.take(size * numbers.itemsize))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers


def _decode(body: bytes) -> Page:
    reader = _Reader(body)
    outline = json.loads(bytes(reader.take(reader.length())))
    pairs = tuple(
        Pair(
            *(_text(annotation), _text(other), _text(target)),
            tuple(_span_chain(reader, announced) for announced in chains),
            _truth(is_whole),
        )
        for annotation, other, target, is_whole, chains in outline["pairs"]
    )
    starts, ends = reader.group(outline["segments"], ["starts", "ends"])
    (offsets,) = reader.group(outline["offsets"], ["offsets"])
    chains = tuple(ranks for announced in outline["chains"] for ranks in reader.group(announced, ["ranks"]))
    segmentation = Segmentation(starts, ends, offsets, str(reader.rest(), "ascii"), chains)
    _check_segmentation(segmentation)
    if type(outline["read_at_us"]) is not int:
        raise PageFormatError("a field of another type")
    return Page(
        _text(outline["id"]),
        outline["read_at_us"],
        _truth(outline["exists"]),
        pairs,
        segmentation,
        _text(outline["problem"]),
    )


def _span_chain(reader: _Reader, announced: Sequence[Any]) -> SpanChain:
    starts, ends, lows, highs = reader.group(announced, ["starts", "ends", "lows", "highs"])
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
    if sorted(rank for ranks in chains for rank in ranks) != list(range(len(starts))):
        raise PageFormatError("chains and segments differ")
    for ranks in chains:
        _check_ascending(ranks, pick(ends, ranks))


def _check_ascending(*columns: Numbers) -> None:
    if not all(map(is_ascending, columns)):
        raise PageFormatError("an array is out of order")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise PageFormatError("a field of another type")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise PageFormatError("a field of another type")
    return value
