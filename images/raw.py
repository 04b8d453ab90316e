"""A raw image: the bytes of the disk, without a header."""

from __future__ import annotations

from dataclasses import dataclass

from images.errors import MalformedImage
from images.evidence import Source

SECTOR = 512
# QEMU counts bytes in a signed 64-bit integer; the last sector must fit as a whole.
MAX_VIRTUAL_SIZE = (1 << 63) - SECTOR


@dataclass(frozen=True, slots=True)
class RawLayout:
    """`virtual_size` is in bytes, rounded up to a sector as QEMU does."""

    virtual_size: int
    padded: bool


def parse(source: Source) -> RawLayout:
    """Only the size counts; raises MalformedImage when no disk can be that large."""
    if source.size > MAX_VIRTUAL_SIZE:
        raise MalformedImage("is too large for a disk", path=source.path)
    size = -(-source.size // SECTOR) * SECTOR
    return RawLayout(virtual_size=size, padded=size != source.size)
