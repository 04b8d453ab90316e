"""Numbers of partitions, sparse copies, and names in both copies of a GPT."""

import os
from pathlib import Path

import pytest

from tests.builders.command import ToolError, execute, run
from tests.builders.disk import MIB, Partition, make_disk, partition_numbers
from tests.builders.gpt import set_gpt_name
from tests.builders.sparse import make_sparse, place_image

LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


def test_logical_partitions_start_at_five() -> None:
    partitions = [
        Partition(2048, 2048, "83"),
        Partition(8192, 8192, "0x05"),
        Partition(8193, 100, "83"),
        Partition(20480, 2048, "83"),
        Partition(9000, 100, "83"),
    ]
    assert partition_numbers("dos", partitions) == [1, 2, 5, 3, 6]


def test_image_must_fit(tmp_path: Path) -> None:
    image = make_sparse(tmp_path / "image", 2 * MIB)
    partitions = [Partition(2048, 2048, "83", image)]
    with pytest.raises(ValueError, match="does not fit"):
        make_disk(tmp_path / "disk", 8 * MIB, "dos", partitions)


def test_bad_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError):
        make_disk(tmp_path / "disk", MIB, "dos", [Partition(2048, 1 << 20, "83")])


def test_copy_keeps_holes(tmp_path: Path) -> None:
    image = make_sparse(tmp_path / "image", 32 * MIB)
    with image.open("r+b") as file:
        os.pwrite(file.fileno(), b"begin", 0)
        os.pwrite(file.fileno(), b"end", 32 * MIB - 3)
    disk = make_sparse(tmp_path / "disk", 64 * MIB)
    place_image(image, disk, 16 * MIB)
    content = disk.read_bytes()
    assert content[16 * MIB : 48 * MIB] == image.read_bytes()
    assert content.count(0) == 64 * MIB - 8
    assert disk.stat().st_blocks * 512 < MIB


def test_gpt_name_changes_both_copies(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", 8 * MIB, "gpt", [Partition(2048, 2048, LINUX)])
    set_gpt_name(disk, 1, "odd\n".encode("utf-16-le"))
    assert disk.read_bytes().count("odd\n".encode("utf-16-le")) == 2
    result = execute("sfdisk", "--verify", disk)
    assert b"No errors detected" in result.stdout
    assert b'"name": "odd\\n"' in run("sfdisk", "--json", disk)
