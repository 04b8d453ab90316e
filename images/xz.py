"""The index of an xz file: its blocks, and how many bytes they unpack to.

Format: "The .xz File Format" 1.1 (tukaani.org), chapters 2 to 4. A block can only be unpacked from
its beginning, so that the size of the blocks decides whether a disk can be served from such a file.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from images.errors import MalformedImage, Unsupported
from images.evidence import MAX_READ, Source, read_exactly
from images.raw import MAX_VIRTUAL_SIZE

MAGIC = b"\xfd7zXZ\x00"
HEADER_SIZE = 12
MAX_BLOCK = 192 << 20
"""Bytes unpacked; as much as `xz -9` puts into a block when it works with several threads."""

_FOOTER_SIZE = 12
_MAX_STREAMS = 4096
_MAX_BLOCKS = 1 << 20
_HINT = "compare the file with the original; xz -t may tell more about a copy"


@dataclass(frozen=True, slots=True)
class Block:
    """`offset` and `packed` (without padding) in the file, `start` and `size` unpacked; bytes.

    `header` is where the header of its stream is.
    """

    offset: int
    packed: int
    start: int
    size: int
    header: int


@dataclass(frozen=True, slots=True)
class XzIndex:
    """`size` is the unpacked size in bytes; blocks in their order."""

    size: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class _Stream:
    offset: int
    records: tuple[tuple[int, int], ...]


def parse(source: Source) -> XzIndex:
    """Read and check the index of every stream. Raises MalformedImage.

    Unsupported when a block is larger than MAX_BLOCK, which is how xz before 5.6 packs by default.
    """
    streams: list[_Stream] = []
    end = source.size
    budget = _MAX_BLOCKS
    while end > 0:
        if len(streams) == _MAX_STREAMS:
            raise _bad(source, f"it has more than {_MAX_STREAMS} streams")
        stream = _stream(source, _without_padding(source, end), budget)
        budget -= len(stream.records)
        streams.append(stream)
        end = stream.offset
    blocks = _blocks(source, streams[::-1])
    size = sum(block.size for block in blocks)
    if not 0 < size <= MAX_VIRTUAL_SIZE:
        raise _bad(source, f"it unpacks to {size} bytes")
    return XzIndex(size, blocks)


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(f"damaged xz file: {message}", path=source.path, hint=_HINT)


def _without_padding(source: Source, end: int) -> int:
    """Between streams and after the last there may be zeros, in groups of four."""
    if end % 4:
        raise _bad(source, "its size is not a multiple of 4; is it truncated?")
    while end > 0:
        block = source.read(max(0, end - 65536), min(65536, end))
        kept = len(block.rstrip(b"\0"))
        if kept:
            return end - (len(block) - kept) // 4 * 4
        end -= len(block)
    raise _bad(source, "it holds nothing but zeros")


def _stream(source: Source, end: int, budget: int) -> _Stream:
    if end < HEADER_SIZE + _FOOTER_SIZE:
        raise _bad(source, "it does not begin with a stream")
    footer = read_exactly(source, end - _FOOTER_SIZE, _FOOTER_SIZE, "the xz footer")
    checksum, backward, flags, magic = struct.unpack("<II2s2s", footer)
    if magic != b"YZ" or zlib.crc32(footer[4:10]) != checksum:
        raise _bad(source, "the end of a stream is missing; is it truncated?")
    length = (backward + 1) * 4
    begin = end - _FOOTER_SIZE - length
    if begin < HEADER_SIZE or length > MAX_READ:
        raise _bad(source, f"an index of {length} bytes is not possible")
    records = _records(source, read_exactly(source, begin, length, "the xz index"), budget)
    offset = begin - sum(-(-packed // 4) * 4 for packed, _ in records) - HEADER_SIZE
    if offset < 0:
        raise _bad(source, "the blocks of its index do not fit into the file")
    _check_header(source, offset, flags)
    return _Stream(offset, tuple(records))


def _check_header(source: Source, offset: int, flags: bytes) -> None:
    header = read_exactly(source, offset, HEADER_SIZE, "the xz header")
    right = zlib.crc32(header[6:8]) == int.from_bytes(header[8:], "little")
    if not header.startswith(MAGIC) or not right:
        raise _bad(source, f"a stream should begin at {offset}")
    if header[6:8] != flags:
        raise _bad(source, "the beginning and the end of a stream disagree")


def _records(source: Source, index: bytes, budget: int) -> list[tuple[int, int]]:
    if index[0] != 0 or zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise _bad(source, "its index is damaged")
    count, place = _number(source, index, 1)
    if count > budget:
        raise _bad(source, f"it has more than {_MAX_BLOCKS} blocks")
    records = []
    for _ in range(count):
        packed, place = _number(source, index, place)
        unpacked, place = _number(source, index, place)
        if packed == 0:
            raise _bad(source, "its index has an empty block")
        records.append((packed, unpacked))
    if any(index[place:-4]) or len(index) - 4 - place > 3:
        raise _bad(source, "its index has more than it says")
    return records


def _number(source: Source, data: bytes, place: int) -> tuple[int, int]:
    """A number in groups of 7 bits, at most 9 of them, and where the next one begins."""
    value = 0
    for shift in range(9):
        if place + shift >= len(data) - 4:
            break
        byte = data[place + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if not byte & 0x80:
            return value, place + shift + 1
    raise _bad(source, "its index has a number without an end")


def _blocks(source: Source, streams: list[_Stream]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    start = 0
    for stream in streams:
        offset = stream.offset + HEADER_SIZE
        for packed, unpacked in stream.records:
            if unpacked > MAX_BLOCK:
                raise Unsupported(
                    f"is packed in blocks of up to {unpacked} bytes, which cannot be read out of "
                    f"order; at most {MAX_BLOCK} are possible",
                    path=source.path,
                    hint="unpack it, or pack it anew with xz --block-size=16MiB",
                )
            blocks.append(Block(offset, packed, start, unpacked, stream.offset))
            offset += -(-packed // 4) * 4
            start += unpacked
    return tuple(blocks)


def ending(flags: bytes, block: Block) -> bytes:
    """The index and the footer of a stream that holds only this block; `flags` from its header."""
    index = b"\0\1" + _packed_number(block.packed) + _packed_number(block.size)
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    footer = struct.pack("<I2s", len(index) // 4 - 1, flags)
    return index + zlib.crc32(footer).to_bytes(4, "little") + footer + b"YZ"


def _packed_number(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
