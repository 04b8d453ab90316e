"""NTFS with shadow copies, made by hand after libvshadow's description of the format.

No tool but Windows makes them. Here a volume is changed by ntfscp between two copies, and what a
block held before goes into a store; vshadowinfo of libvshadow says whether it is right.
"""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from uuid import UUID

from tests.builders.command import run
from tests.builders.disk import MIB
from tests.builders.filesystems import GREETING_NAME
from tests.builders.sparse import make_sparse

BLOCK = 16384
SIZE = 16 * MIB
IDENTIFIER = UUID("3808876b-c176-4e48-b7ae-04046e6cc752").bytes_le
EPOCH = 11_644_473_600
CATALOG_AT = 13 * MIB


@dataclass(frozen=True)
class Made:
    """A shadow copy: when it was made (seconds since the epoch), and its identifiers."""

    created: int
    store: UUID
    copy: UUID


def make_shadowed(path: Path, texts: list[bytes], copies: list[Made]) -> Path:
    """A volume whose greeting had each of the texts in turn, and the last one now."""
    states = []
    for number, text in enumerate(texts):
        state = path.with_name(f"{path.name}.{number}")
        if states:
            shutil.copy(states[-1], state)
        else:
            make_sparse(state, SIZE)
            run("mkntfs", "-q", "-F", "-Q", "-s", "512", state)
        greeting = path.with_name("greeting")
        greeting.write_bytes(text)
        run("ntfscp", "-f", state, greeting, GREETING_NAME)
        states.append(state)
    volume = bytearray(states[-1].read_bytes())
    if any(volume[CATALOG_AT : 15 * MIB]):
        raise ValueError("there is something where the stores are to be")
    catalog, at = b"", CATALOG_AT + BLOCK
    for made, (old, new) in zip(copies, pairwise(states), strict=True):
        store = make_store(old.read_bytes(), new.read_bytes(), at, made)
        volume[at : at + len(store)] = store
        catalog += entries(made, at)
        at += len(store)
    block = (header(2, 0, CATALOG_AT) + bytes(80) + catalog).ljust(BLOCK, b"\0")
    volume[CATALOG_AT : CATALOG_AT + len(block)] = block
    volume[0x1E00 : 0x1E00 + 100] = volume_header()
    path.write_bytes(volume)
    for state in states:
        state.unlink()
    return path


def volume_header() -> bytes:
    head = IDENTIFIER + struct.pack("<IIQQQQQ", 1, 1, 0x1E00, 0x1E00, 0, CATALOG_AT, 0)
    return head + UUID(int=1).bytes_le + UUID(int=1).bytes_le + bytes(4)


def header(kind: int, relative: int, offset: int) -> bytes:
    return IDENTIFIER + struct.pack("<IIQQQ", 1, kind, relative, offset, 0)


def entries(made: Made, at: int) -> bytes:
    time = (made.created + EPOCH) * 10**7
    name = made.store.bytes_le
    copy = struct.pack("<QQ16sQQQ", 2, SIZE, name, 1, 0x40, time)
    places = (at, at + 2 * BLOCK, at + 3 * BLOCK)
    store = struct.pack("<QQ16sQQQ", 3, at + BLOCK, name, *places)
    return copy.ljust(128, b"\0") + store.ljust(128, b"\0")


def make_store(old: bytes, new: bytes, at: int, made: Made) -> bytes:
    """Header, list of blocks, list of ranges, bitmap, and the blocks as they were."""
    changed = [
        place for place in range(0, SIZE, BLOCK)
        if old[place : place + BLOCK] != new[place : place + BLOCK]
    ]  # fmt: skip
    machine = "PC".encode("utf-16-le")
    words = struct.pack("<H", len(machine)) + machine
    information = UUID(int=2).bytes_le + made.copy.bytes_le + UUID(int=3).bytes_le
    information += struct.pack("<IIII", 13, 1, 0x42000D, 0) + words + words
    first = header(4, 0, at) + struct.pack("<Q", len(information)) + bytes(72) + information
    blocks = header(3, BLOCK, at + BLOCK) + bytes(80)
    data = b""
    for index, place in enumerate(changed):
        relative = (4 + index) * BLOCK
        blocks += struct.pack("<QQQII", place, relative, at + relative, 0, 0)
        data += old[place : place + BLOCK]
    ranges = header(5, 2 * BLOCK, at + 2 * BLOCK) + bytes(80)
    ranges += struct.pack("<QQQ", at, 0, (4 + len(changed)) * BLOCK)
    bitmap = header(6, 3 * BLOCK, at + 3 * BLOCK) + bytes(80)
    return b"".join(each.ljust(BLOCK, b"\0") for each in (first, blocks, ranges, bitmap)) + data
