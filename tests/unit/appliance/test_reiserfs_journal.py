"""What is taken out of sight of a ReiserFS: its transactions' descriptors, and nothing else."""

import os
import struct

import pytest

from appliance.agent.filesystem.reading import BadSuperblock
from appliance.agent.reiserfs_journal import hide_journal
from tests.builders.command import run

MIB = 1 << 20
BLOCK, FIRST = 4096, 18
"""mkfs.reiserfs puts the log there."""

MARK = BLOCK - 12


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "volume"
    path.touch()
    os.truncate(path, 40 * MIB)
    run("mkfs.reiserfs", "-q", "-ff", path)
    return path


def put(path, block: int, data: bytes, at: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(block * BLOCK + at)
        file.write(data)


def test_descriptors_are_overwritten_and_nothing_else(image):
    with image.open("rb") as file:
        file.seek(65536 + 12)
        assert struct.unpack("<III", file.read(12)) == (FIRST, 0, 8192)
    for block in (FIRST, FIRST + 700, FIRST + 8191):
        put(image, block, b"transaction".ljust(MARK, b".") + b"ReIsErLB")
    put(image, FIRST + 1, b"data of a file")
    put(image, FIRST + 2, b"ReIsErLB")  # at another place it means nothing
    put(image, 9000, b"ReIsErLB", MARK)  # outside of the log
    expected = bytearray(image.read_bytes())
    for block in (FIRST, FIRST + 700, FIRST + 8191):
        expected[block * BLOCK : (block + 1) * BLOCK] = bytes(BLOCK)
    hide_journal(str(image), 40 * MIB)
    assert image.read_bytes() == expected


@pytest.mark.parametrize(("at", "value"), [(16, 1), (20, 0xFFFFFFFF), (44, 0xFFFF), (44, 0)])
def test_an_impossible_journal_is_left(image, at, value):
    put(image, 16, struct.pack("<I", value), at)
    before = image.read_bytes()
    with pytest.raises(BadSuperblock):
        hide_journal(str(image), 40 * MIB)
    assert image.read_bytes() == before


def test_a_log_behind_the_end(image):
    put(image, 16, struct.pack("<I", 0xFFFFFF), 12)
    hide_journal(str(image), 40 * MIB)
