"""bcache backing devices: made by make-bcache, and changed into what a crash leaves behind."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.builders.command import run
from tests.builders.sparse import place_image

UUID = "bcac0000-0000-4000-8000-000000000001"
SET = "5e700000-0000-4000-8000-000000000002"
DATA = 16 * 512
_PLACE = 4096


def make_backing(path: Path, content: Path) -> Path:
    """A backing device with that content, which never had a cache."""
    with path.open("wb") as file:
        file.truncate(DATA + content.stat().st_size)
    run("make-bcache", "--bdev", path, "--cset-uuid", SET)
    place_image(content, path, DATA)
    return path


def make_dirty(path: Path) -> None:
    """As if its cache had blocks that were not written back: bits 61 and 62 of the flags at 104."""
    with path.open("r+b") as file:
        file.seek(_PLACE)
        block = bytearray(file.read(208))
        block[111] = block[111] & 0x9F | 2 << 5
        struct.pack_into("<Q", block, 0, _crc64(bytes(block[8:])))
        file.seek(_PLACE)
        file.write(block)


def _crc64(data: bytes) -> int:
    """ECMA-182, with all bits set before and inverted after (lib/crc64.c of Linux)."""
    value = (1 << 64) - 1
    for byte in data:
        value ^= byte << 56
        for _ in range(8):
            value = (value << 1 ^ (0x42F0E1EBA9EA3693 if value >> 63 else 0)) & ((1 << 64) - 1)
    return value ^ ((1 << 64) - 1)
