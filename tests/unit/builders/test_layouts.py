"""The layouts' hand-written expectations, compared with what independent tools see."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.command import execute, run
from tests.builders.expected import Expected, Layout
from tests.builders.layouts import LAYOUTS

SECTOR = 512


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, tmp_path_factory) -> Layout:
    return LAYOUTS[request.param](tmp_path_factory.mktemp(request.param))


def parts(layout: Layout, disk: str) -> Iterator[Expected]:
    """The expected partitions of one disk."""
    return (layer for layer in layout.expected if layer.address.startswith(f"{disk}/"))


def disk_of(layout: Layout, layer: Expected) -> Path:
    """The file of a disk or partition."""
    return layout.disks[int(layer.address.removeprefix("disk").partition("/")[0])]


def probe(path: Path, offset: int, size: int) -> dict[str, bytes]:
    """What libblkid finds, one value at a time: the values hold line feeds."""
    where = ("-O", str(offset), "-S", str(size), path)
    found = {}
    for tag in ("TYPE", "LABEL", "UUID", "PTTYPE", "PTUUID"):
        result = execute("blkid", "-p", "-s", tag, "-o", "value", *where)
        assert result.returncode in (0, 2)
        if result.stdout:
            found[tag] = result.stdout.removesuffix(b"\n")
    return found


def stored(text: str | None) -> bytes | None:
    """The bytes of an expected text."""
    return None if text is None else os.fsencode(text)


def test_disks_have_their_size(layout: Layout) -> None:
    disks = [layer for layer in layout.expected if layer.kind == "disk"]
    assert [disk.address for disk in disks] == [f"disk{n}" for n in range(len(layout.disks))]
    for disk, path in zip(disks, layout.disks, strict=True):
        assert path.stat().st_size == disk.size


def test_partitions_and_gaps_fill_the_disk(layout: Layout) -> None:
    for disk, gaps in layout.gaps.items():
        sizes = [part.present or part.size for part in parts(layout, disk) if not part.extended]
        assert sum(sizes) + gaps == layout.find(disk).size


def test_contents(layout: Layout) -> None:
    for layer in layout.expected:
        if layer.kind not in ("disk", "partition") or layer.extended:
            continue
        size = layer.present or layer.size
        found = probe(disk_of(layout, layer), layer.offset or 0, size)
        assert found.get("TYPE") == stored(layer.content), layer.address
        assert found.get("LABEL") == stored(layer.label), layer.address
        assert found.get("UUID") == stored(layer.uuid), layer.address
        if layer.kind == "disk":
            assert found.get("PTTYPE") == stored(layer.table)
            assert found.get("PTUUID") == stored(layer.table_uuid)


def test_tables(layout: Layout) -> None:
    for number, path in enumerate(layout.disks):
        if layout.find(f"disk{number}").table is None:
            continue
        table = json.loads(run("sfdisk", "--json", path))["partitiontable"]
        expected = list(parts(layout, f"disk{number}"))
        assert len(table["partitions"]) == len(expected)
        for row, part in zip(table["partitions"], expected, strict=True):
            assert row["node"] == f"{path}{part.address.rpartition('p')[2]}"
            assert row["start"] * SECTOR == part.offset
            assert row["size"] * SECTOR == part.size
            assert row.get("bootable", False) == part.bootable
            assert row.get("uuid", "").lower() == (part.identity or "")
            assert row.get("name") == part.name


def test_files(layout: Layout, tmp_path: Path) -> None:
    """GRUB's readers find the files, through its own partition and LVM code; it has no exFAT file.

    The disks are called loop0, loop1, … there and partitions (loop0,3).
    """
    for address, (name, content) in layout.files.items():
        reference = tmp_path / "reference"
        reference.write_bytes(content)
        count = str(len(layout.disks))
        path = f"({grub_device(address)})/{name}"
        output = run("grub-fstest", "-c", count, *layout.disks, "cmp", path, reference)
        assert output == b"", address


def grub_device(address: str) -> str:
    """GRUB's name of a layer."""
    disk, _, part = address.partition("/")
    if not disk.startswith("disk"):
        return f"lvm/{disk}-{part}"
    loop = disk.replace("disk", "loop")
    return f"{loop},{part.removeprefix('p')}" if part else loop
