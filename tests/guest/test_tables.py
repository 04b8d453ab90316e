"""Partition tables with a real guest: every kind on one disk each, all in one run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.builders import sun
from tests.builders.apm import MacPart, make_apm
from tests.builders.bsd import EXT2, SWAP, UNUSED, Slice, put_disklabel
from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.ext4 import make_ext4
from tests.builders.gpt_table import EFI, Row, add_mbr_row, make_gpt, poke, set_row
from tests.builders.lvm import PhysicalVolume, Volume, make_group
from tests.builders.sparse import make_sparse, place_image
from tests.guest.conftest import inspect

SIZE = 16 * MIB
UUIDS = "e4000000-0000-4000-8000-%012d"
Run = tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    folder = tmp_path_factory.mktemp("ext4")

    def make(number: int) -> Path:
        return make_ext4(folder / str(number), 4 * MIB, f"fs{number}", UUIDS % number, ())

    return make


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, ext4: Callable[[int], Path]) -> Run:
    """Layers, and code and layer of each finding that is more than a remark."""
    folder = tmp_path_factory.mktemp("tables")
    apm = [MacPart(1, 63, "Apple_partition_map", "Apple"), MacPart(2048, 8192, "Linux", "root")]
    make_apm(folder / "0.apm", SIZE, apm)
    place_image(ext4(0), folder / "0.apm", 2048 * SECTOR)

    sun.make_sun(folder / "1.sun", SIZE, {1: sun.Slice(2048, 8192, sun.SUN_LINUX)})
    place_image(ext4(1), folder / "1.sun", 2048 * SECTOR)

    make_disk(folder / "2.bsd", SIZE, "dos", [Partition(2048, 16384, "a5")], "0x00000b5d")
    whole = Slice(2048, 16384, UNUSED)  # says from where this label counts
    slices = {"a": Slice(2112, 8192, EXT2), "b": Slice(10368, 1024, SWAP), "c": whole}
    put_disklabel(folder / "2.bsd", slices, at=2048 * SECTOR)
    place_image(ext4(2), folder / "2.bsd", (2048 + 64) * SECTOR)

    make_gpt(folder / "3.gpt", SIZE, [Row(1, 2048, 10239, name="root")])
    place_image(ext4(3), folder / "3.gpt", 2048 * SECTOR)
    poke(folder / "3.gpt", SECTOR, bytes(512))

    make_gpt(folder / "4.gpt", SIZE, [Row(1, 2048, 10239), Row(2, 10240, 12287, EFI)])
    place_image(ext4(4), folder / "4.gpt", 2048 * SECTOR)
    set_row(folder / "4.gpt", "backup", Row(2, 12288, 14335, EFI))
    add_mbr_row(folder / "4.gpt", 2, 0x83, 2048, 8192)

    make_gpt(folder / "5.4k", SIZE, [Row(1, 256, 1279)], sector=4096)
    place_image(ext4(5), folder / "5.4k", 256 * 4096)

    make_gpt(folder / "6.cut", SIZE, [Row(1, 2048, 10239), Row(2, 10240, 30000)])
    place_image(ext4(6), folder / "6.cut", 2048 * SECTOR)
    os.truncate(folder / "6.cut", 12 * MIB)

    make_disk(folder / "inner", 6 * MIB, "dos", [Partition(2048, 8192, "83", ext4(7))])
    volume = Volume("lvinner", 6 * MIB, image=folder / "inner")
    make_group("vgtab", [PhysicalVolume(folder / "7.lvm", SIZE)], [volume], extent_size=MIB)
    (folder / "inner").unlink()
    make_sparse(folder / "8.empty", MIB)

    run = inspect(*sorted(folder.iterdir()))
    assert run.status == 1, run.stderr
    told = [f for f in run.json["findings"] if f["severity"] != "info"]
    return run.layers(), sorted((each["layer"], each["code"]) for each in told)


def is_root(layer: dict[str, Any], number: int, offset: int | None) -> None:
    assert (layer["content"]["type"], layer["content"]["label"]) == ("ext4", f"fs{number}")
    assert layer["content"]["uuid"] == UUIDS % number
    assert (layer["offset"], layer["size"]) == (offset, 4 * MIB)


def test_tables_of_other_systems(found: Run) -> None:
    layers, _ = found
    assert [layers[f"disk{n}"]["table"]["type"] for n in (0, 1, 2)] == ["mac", "sun", "dos"]
    is_root(layers["disk0/p2"], 0, MIB)
    assert layers["disk0/p2"]["partition"]["name"] == "root"
    is_root(layers["disk1/p1"], 1, MIB)
    assert layers["disk2/p1"]["table"]["type"] == "freebsd"
    assert layers["disk2/p5"]["parents"] == ["disk2/p1"]
    is_root(layers["disk2/p5"], 2, 64 * SECTOR)
    assert layers["disk2/p6"]["partition"]["type"] == f"0x{SWAP:02x}"


def test_damaged_and_doubtful_gpt(found: Run) -> None:
    layers, told = found
    is_root(layers["disk3/p1"], 3, MIB)
    is_root(layers["disk4/p1"], 4, MIB)
    assert layers["disk4/p2"]["offset"] == 10240 * SECTOR
    is_root(layers["disk6/p1"], 6, MIB)
    assert layers["disk6/p2"]["size"] == 12 * MIB - 10240 * SECTOR
    mine = ("disk3", "disk4", "disk6")
    assert [each for each in told if each[0] and each[0].startswith(mine)] == [
        ("disk3", "gpt-primary-damaged"),
        ("disk4", "gpt-copies-differ"),
        ("disk4", "hybrid-mbr"),
        ("disk4/p2", "unrecognised"),
        ("disk6", "gpt-backup-misplaced"),
        ("disk6/p2", "beyond-end"),
        ("disk6/p2", "unrecognised"),
    ]  # fmt: skip


def test_table_inside_a_logical_volume(found: Run) -> None:
    layers, _ = found
    (volume,) = [name for name, each in layers.items() if each["kind"] == "logical-volume"]
    assert layers[volume]["table"]["type"] == "dos"
    is_root(layers[f"{volume}/p1"], 7, MIB)


def test_every_byte_is_accounted_for(found: Run) -> None:
    """What lies in a disk, a partition with a table, or a volume with one covers it once."""
    layers, _ = found
    for address, layer in layers.items():
        inside = [
            (each["offset"], each["offset"] + each["size"])
            for each in layers.values()
            if each["parents"] == [address] and each["offset"] is not None
        ]
        if layer["table"]:
            at = 0
            for start, end in sorted(inside):
                assert start <= at
                at = max(at, end)
            assert at == layer["size"], address


def test_sectors_of_4096(found: Run, tmp_path: Path, ext4: Callable[[int], Path]) -> None:
    _, told = found
    assert ("disk5", "sector-size") in told
    disk = make_gpt(tmp_path / "disk", SIZE, [Row(1, 256, 1279, name="root")], sector=4096)
    place_image(ext4(5), disk, 256 * 4096)
    run = inspect("--sector-size", "4096", disk)
    assert run.status == 0, run.stderr
    layers = run.layers()
    assert layers["disk0"]["table"]["sector_size"] == 4096
    is_root(layers["disk0/p1"], 5, MIB)
