"""libblkid through ctypes against what blkid(8) and sfdisk(8) say of the same images.

The host's libblkid is older than the guest's; only what both know is compared.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.agent import blkid
from appliance.agent.blkid import (
    BlkidError,
    PartitionTable,
    Signature,
    find_partitions,
    find_signature,
    library_version,
)
from tests.builders.command import execute, run
from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.expected import Layout
from tests.builders.filesystems import make_exfat, make_swap, make_vfat, set_vfat_label
from tests.builders.layouts import beyond_end, gpt_mixed, mbr_logical
from tests.builders.sparse import make_sparse, place_image


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def signature(path: Path, start: int = 0, size: int | None = None) -> Signature | None:
    with opened(path) as fd:
        found = find_signature(fd, start, path.stat().st_size if size is None else size)
    assert not isinstance(found, list)
    return found


def partitions(path: Path, sector: int = SECTOR) -> PartitionTable | None:
    with opened(path) as fd:
        return find_partitions(fd, path.stat().st_size, sector)


def by_blkid(path: Path, start: int, size: int) -> dict[str, bytes]:
    """What blkid(8) says of the range, its export form taken apart."""
    options = ("-p", "-o", "export", "-u", "filesystem,raid,crypto,other")
    done = execute("blkid", *options, "-O", str(start), "-S", str(size), path)
    assert done.returncode in {0, 2}, done
    rows = (line.partition(b"=") for line in done.stdout.splitlines())
    return {
        name.decode(): shlex.split(value.decode("utf-8", "surrogateescape"))[0].encode(
            "utf-8", "surrogateescape"
        )
        for name, _, value in rows
        if name != b"DEVNAME" and value
    }


COMPARED = ("TYPE", "USAGE", "VERSION", "UUID", "LABEL")

LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    "mbr_logical": mbr_logical,
    "gpt_mixed": gpt_mixed,
    "beyond_end": beyond_end,
}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Layout]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in LAYOUTS.items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_signatures(layouts: dict[str, Layout], name: str) -> None:
    layout = layouts[name]
    (disk,) = layout.disks
    compared = 0
    for layer in layout.expected:
        if layer.kind != "partition" or layer.extended or layer.offset is None:
            continue
        size = layer.present or layer.size
        found = signature(disk, layer.offset, size)
        if layer.content is None:
            assert found is None, layer.address
            continue
        assert found is not None, layer.address
        assert found.text("TYPE") == layer.content
        assert found.text("LABEL") == layer.label
        assert found.text("UUID") == layer.uuid
        theirs = by_blkid(disk, layer.offset, size)
        assert {key: found.values[key] for key in COMPARED if key in found.values} == {
            key: theirs[key] for key in COMPARED if key in theirs
        }
        compared += 1
    assert compared


@pytest.mark.parametrize("name", LAYOUTS)
def test_tables(layouts: dict[str, Layout], name: str) -> None:
    layout = layouts[name]
    (disk,) = layout.disks
    table = partitions(disk)
    assert table is not None
    theirs = json.loads(run("sfdisk", "--json", disk))["partitiontable"]
    assert table.type == theirs["label"]
    assert (table.uuid or "").lower() == theirs["id"].lower().removeprefix("0x")
    rows = {int(re.findall(r"\d+$", row["node"])[0]): row for row in theirs["partitions"]}
    assert {entry.number for entry in table.entries} == set(rows)
    for entry in table.entries:
        row = rows[entry.number]
        assert entry.start == row["start"] * SECTOR
        kind = row["type"].lower()
        assert entry.type.lower() == (f"0x{kind:>02}" if table.type == "dos" else kind)
        if not entry.extended:  # libblkid gives it the size of its boot record
            assert entry.size == row["size"] * SECTOR
        assert entry.name == row.get("name")
        assert (entry.uuid or "").lower() == row.get("uuid", entry.uuid or "").lower()
        assert entry.table_type == table.type


@pytest.mark.parametrize("name", LAYOUTS)
def test_tables_as_they_were_written(layouts: dict[str, Layout], name: str) -> None:
    layout = layouts[name]
    table = partitions(layout.disks[0])
    assert table is not None
    assert table.uuid == layout.expected[0].table_uuid
    entries = {f"disk0/p{entry.number}": entry for entry in table.entries}
    expected = {layer.address: layer for layer in layout.expected if layer.kind == "partition"}
    assert set(entries) == set(expected)
    for address, layer in expected.items():
        entry = entries[address]
        assert (entry.start, entry.extended) == (layer.offset, layer.extended)
        assert layer.extended or entry.size == layer.size
        assert entry.name == layer.name


def test_blank(tmp_path: Path) -> None:
    path = make_sparse(tmp_path / "blank", MIB)
    assert signature(path) is None
    assert partitions(path) is None


@pytest.mark.parametrize("size", [1, 511, 512, 1024, 4096])
def test_small(tmp_path: Path, size: int) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"\xff" * size)
    assert signature(path) is None
    assert partitions(path) is None


def test_range_beyond_the_end(tmp_path: Path) -> None:
    path = make_swap(tmp_path / "swap", MIB, "s", "5a000000-0000-4000-8000-000000000002")
    with pytest.raises(BlkidError):
        signature(path, 0, 8 * MIB)


def test_descriptor_that_is_closed() -> None:
    with pytest.raises(BlkidError):
        find_signature(-1, 0, MIB)
    with pytest.raises(BlkidError):
        find_partitions(-1, MIB, SECTOR)


def test_label_that_is_not_utf8(tmp_path: Path) -> None:
    path = make_vfat(tmp_path / "vfat", 8 * MIB, "X", "1a2b3c4d")
    set_vfat_label(path, b"\xff\xfe\x1b[31m\x01ABC")
    found = signature(path)
    assert found is not None
    assert found.text("TYPE") == "vfat"
    label = found.values["LABEL"]
    assert label.startswith(b"\xff\xfe\x1b[31m\x01A")
    assert "�" in (found.text("LABEL") or "")


def test_number() -> None:
    values = Signature({"a": b"12", "b": b"", "c": b"-1", "d": b"1.5", "e": "²".encode()})
    assert [values.number(name) for name in "abcdef"] == [12, None, None, None, None, None]
    assert values.text("f") is None


def test_two_signatures(tmp_path: Path) -> None:
    """FAT and swap in one place exclude each other: both are named, none is chosen."""
    path = make_vfat(tmp_path / "both", 8 * MIB, "X", "1a2b3c4d")
    swap = make_swap(tmp_path / "swap", 8 * MIB, "s", "5a000000-0000-4000-8000-000000000002")
    with path.open("r+b") as file, swap.open("rb") as other:
        other.seek(1024)
        header = other.read(3072)
        file.seek(1024)
        file.write(header)
    with opened(path) as fd:
        found = find_signature(fd, 0, 8 * MIB)
    assert isinstance(found, list)
    assert {each.text("TYPE") for each in found} >= {"vfat", "swap"}
    assert execute("blkid", "-p", path).returncode == 8


def test_sectors_of_4096(tmp_path: Path) -> None:
    """The same table means another place on a disk with larger sectors."""
    rows = [Partition(256, 1024, "83")]
    path = make_disk(tmp_path / "disk", 64 * MIB, "dos", rows, "0x12345678")
    table = partitions(path, 4096)
    assert table is not None
    (entry,) = table.entries
    assert (entry.start, entry.size) == (MIB, 4 * MIB)


@pytest.mark.parametrize("name", ["mbr_logical", "gpt_mixed"])
def test_table_in_the_middle(layouts: dict[str, Layout], name: str, tmp_path: Path) -> None:
    """The same entries, counted from where the table is."""
    (disk,) = layouts[name].disks
    size = disk.stat().st_size
    path = make_sparse(tmp_path / "device", size + 5 * MIB)
    place_image(disk, path, 3 * MIB)
    with opened(path) as fd:
        assert find_partitions(fd, size + 5 * MIB, SECTOR) is None
        assert find_partitions(fd, size, SECTOR, 3 * MIB) == partitions(disk)
        assert find_partitions(fd, size, SECTOR, start=2 * MIB) is None
        with pytest.raises(BlkidError):
            find_partitions(fd, size, SECTOR, 6 * MIB)


def test_many_partitions(tmp_path: Path) -> None:
    rows = [Partition(2048 + n * 8, 8, "0FC63DAF-8483-4772-8E79-3D69D8477DE4") for n in range(128)]
    path = make_disk(tmp_path / "disk", 4 * MIB, "gpt", rows)
    table = partitions(path)
    assert table is not None
    assert [entry.number for entry in table.entries] == list(range(1, 129))


def test_endless_chain_of_logical_partitions(tmp_path: Path) -> None:
    """An extended boot record that leads to itself: an answer, in time."""
    rows = [Partition(2048, 8192, "5"), Partition(4096, 512, "83")]
    path = make_disk(tmp_path / "disk", 8 * MIB, "dos", rows, "0x12345678")
    with path.open("r+b") as file:
        file.seek(2048 * SECTOR + 446 + 16)
        file.write(bytes([0, 0, 0, 0, 5, 0, 0, 0]) + (0).to_bytes(4, "little") + b"\0\x10\0\0")
    table = partitions(path)
    assert table is None or len(table.entries) <= blkid.MAX_PARTITIONS


def test_noise(tmp_path: Path) -> None:
    """Damaged tables and superblocks: an answer or a BlkidError, never more."""
    chance = random.Random(7)
    swap = make_swap(tmp_path / "swap", MIB, "s", "5a000000-0000-4000-8000-000000000002")
    exfat = make_exfat(tmp_path / "exfat", 8 * MIB, "CARD", "0ca4d001")
    rows = [Partition(2048, 2048, "83"), Partition(8192, 4096, "5"), Partition(8200, 100, "83")]
    table = make_disk(tmp_path / "table", 8 * MIB, "dos", rows, "0x12345678")
    gpt_rows = [Partition(2048, 2048, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", name="ü")]
    gpt = make_disk(tmp_path / "gpt", 8 * MIB, "gpt", gpt_rows)
    noisy = tmp_path / "noisy"
    for source in (swap, exfat, table, gpt):
        good = source.read_bytes()
        for _ in range(30):
            content = bytearray(good)
            for _ in range(chance.randrange(1, 40)):
                content[chance.randrange(4096)] = chance.randrange(256)
            noisy.write_bytes(content)
            with opened(noisy) as fd:
                find_signature(fd, 0, len(content))
                find_partitions(fd, len(content), SECTOR)


def test_version() -> None:
    assert library_version() in run("blkid", "--version").decode()
