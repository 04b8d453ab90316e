"""Apple partition maps, written from Inside Macintosh: Devices, chapter 3 (SCSI Manager)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.builders.gpt_table import poke
from tests.builders.sparse import make_sparse

DRIVER = struct.Struct(">2sHI")
"""Driver descriptor: signature ER, bytes in a block, number of blocks."""

ENTRY = struct.Struct(">2sHIII32s32sIII")
"""Signature PM, entries in the map, first block, blocks, name, type, data's blocks, status."""

VALID_READABLE_WRITABLE = 0x37


@dataclass(frozen=True)
class MacPart:
    """One entry of the map, in blocks of the map's own size."""

    start: int
    size: int
    type: str
    name: str = ""


def make_apm(path: Path, size: int, parts: Sequence[MacPart], *, block: int = 512) -> Path:
    """Make a disk of `size` bytes; the map's entries are in the order given, from block 1."""
    make_sparse(path, size)
    poke(path, 0, DRIVER.pack(b"ER", block, size // block))
    for index, part in enumerate(parts, 1):
        name, kind = part.name.encode("latin-1"), part.type.encode("ascii")
        fields = (b"PM", 0, len(parts), part.start, part.size, name, kind, 0, part.size)
        poke(path, index * block, ENTRY.pack(*fields, VALID_READABLE_WRITABLE))
    return path
