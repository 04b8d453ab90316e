"""The sections of one EWF segment file: its header, and the chain of section descriptors.

Layouts and their variants: libewf's "Expert Witness Compression Format (EWF)", sections "Segment
file" and "Section descriptor". All numbers are little-endian, offsets count from the file's start.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from images.errors import ImageError, MalformedImage, Unsupported
from images.evidence import Source, read_exactly, truncated
from images.quoting import shown

SIGNATURE = b"EVF\x09\x0d\x0a\xff\x00"
MAX_SECTIONS = 1 << 18
"""Of one image; enough for 40 TiB of the smallest chunks and tables that are in use."""

_HEADER = struct.Struct("<8sBHH")
_DESCRIPTOR = struct.Struct("<16sQQ40sI")
DESCRIPTOR_SIZE = _DESCRIPTOR.size
_OTHERS = {
    b"LVF\x09\x0d\x0a\xff\x00": "logical evidence (EWF-L01): files, not a disk",
    b"EVF2\x0d\x0a\x81\x00": "EWF version 2 (Ex01)",
    b"LEF2\x0d\x0a\x81\x00": "logical evidence of EWF version 2 (Lx01): files, not a disk",
    b"ADCRYPT\x00": "encrypted by FTK Imager (AD encryption)",
}
_ENDS = ("next", "done")


@dataclass(frozen=True, slots=True)
class Section:
    """One section; `offset` and `size` in bytes are those of its data, without the descriptor."""

    kind: str
    offset: int
    size: int


def bad(source: Source, message: str) -> MalformedImage:
    """The error for an EWF file that contradicts itself."""
    return MalformedImage(
        f"damaged EWF image: {message}",
        path=source.path,
        hint="compare the file with the original; ewfverify may tell more about a copy",
    )


def segment_number(source: Source) -> int:
    """What the file header says, 1 to 65535. Raises MalformedImage or Unsupported."""
    head = source.read(0, _HEADER.size)
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise Unsupported(
                f"is {what}; only EWF disk images of version 1 (E01, s01) are supported",
                path=source.path,
                hint="convert it to raw or E01 where it can be trusted",
            )
    if not head.startswith(SIGNATURE):
        raise bad(source, "the signature of an EWF segment file is missing")
    head = read_exactly(source, 0, _HEADER.size, "the EWF file header")
    _, start, number, end = _HEADER.unpack(head)
    if start != 1 or end != 0 or number == 0:
        raise bad(source, "its file header is not possible")
    return int(number)


def sections(source: Source, limit: int = MAX_SECTIONS) -> list[Section]:
    """Walk the chain from the file header on, to `next` or `done` or the end of the file.

    Raises MalformedImage for a wrong checksum, a chain that goes anywhere but forward and
    back to back, or more than `limit` sections.
    """
    found: list[Section] = []
    offset = _HEADER.size
    while offset < source.size:
        if len(found) >= limit:
            raise bad(source, f"it has more than {limit} sections")
        kind, following, size = _descriptor(source, offset)
        last = kind in _ENDS
        end = _end_of_last(source, offset, following) if last else following
        _check_extent(source, offset, end, size)
        found.append(Section(kind, offset + DESCRIPTOR_SIZE, end - offset - DESCRIPTOR_SIZE))
        if last:
            break
        offset = end
    return found


def _descriptor(source: Source, offset: int) -> tuple[str, int, int]:
    data = read_exactly(source, offset, DESCRIPTOR_SIZE, "a section descriptor")
    untrusted_kind, following, size, _, checksum = _DESCRIPTOR.unpack(data)
    if zlib.adler32(data[:-4]) != checksum:
        raise bad(source, f"the section descriptor at {offset} has a wrong checksum")
    name = untrusted_kind.split(b"\0", 1)[0]
    if not name.isalnum():
        raise bad(source, f'a section cannot be called "{shown(name)}" (at {offset})')
    return name.decode("ascii"), following, size


def _end_of_last(source: Source, offset: int, following: int) -> int:
    """`next` and `done` point to themselves; the oldest writers point behind them."""
    if following not in (offset, offset + DESCRIPTOR_SIZE):
        raise bad(source, f"the last section, at {offset}, points to {following}")
    return offset + DESCRIPTOR_SIZE


def _check_extent(source: Source, offset: int, end: int, size: int) -> None:
    if end < offset + DESCRIPTOR_SIZE:
        raise bad(source, f"after the section at {offset} the next one is said to be at {end}")
    if end > source.size:
        raise truncated(source, end, f"the EWF section at {offset}")
    # Expert Witness 1.35 leaves the size empty. Any other difference shows two images in one file,
    # one to programs that follow the offsets and another to those that follow the sizes.
    if size and size != end - offset:
        raise bad(source, f"the section at {offset} has {end - offset} bytes, but claims {size}")


def checked(source: Source, section: Section, size: int) -> bytes:
    """The first `size` bytes of the section's data, the last four of which are their Adler-32.

    Raises MalformedImage when it is shorter or the checksum is wrong.
    """
    if section.size < size:
        raise bad(source, f'the section "{section.kind}" has only {section.size} bytes')
    data = read_exactly(source, section.offset, size, f'the EWF section "{section.kind}"')
    if zlib.adler32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise bad(source, f'the section "{section.kind}" at {section.offset} has a wrong checksum')
    return data[:-4]


def continues(source: Source) -> bool:
    """Whether another segment file follows: this one ends with `next`. Raises ImageError."""
    segment_number(source)
    found = sections(source)
    return bool(found) and found[-1].kind == "next"


def optional(source: Source, section: Section, size: int) -> bytes | None:
    """As `checked`, for what the disk can be read without: None when it is damaged."""
    try:
        return checked(source, section, size)
    except ImageError:
        return None
