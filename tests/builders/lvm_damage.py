"""Small groups with something unusual or damaged about each, written straight into files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.builders.command import run
from tests.builders.lvm import AREA_OFFSET, area_header, make_group
from tests.builders.lvm_text import DATA_OFFSET, MIB, SECTOR, PhysicalVolume, Volume

VOLUME = 4 * MIB


def file_system(folder: Path, label: str) -> Path:
    """An ext4 of 4 MiB with that label."""
    path = folder / f"{label}.ext4"
    if not path.exists():
        with path.open("wb") as file:
            file.truncate(VOLUME)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-L", label, path)
    return path


def simple(folder: Path, name: str, volume: str = "root", label: str = "", uuid: str = "") -> Path:
    """A disk with a group of that name and one volume, whose label is the group's name."""
    disk = folder / f"{name}.raw"
    image = file_system(folder, label or name[:16])
    pv = PhysicalVolume(disk, DATA_OFFSET + 2 * VOLUME)
    make_group(name, [pv], [Volume(volume, VOLUME, image)], uuid=uuid or None)
    return disk


def nested(folder: Path) -> Path:
    """A group on a volume of a group that has the same names and the same UUIDs."""
    inner = simple(folder, "nest", label="inner")
    whole = inner.rename(folder / "nest-inner.raw")
    outer = folder / "nest.raw"
    make_group(
        "nest",
        [PhysicalVolume(outer, DATA_OFFSET + 5 * VOLUME)],
        [Volume("root", 3 * VOLUME, whole), Volume("data", VOLUME, file_system(folder, "outer"))],
    )
    return outer


def rewrite(disk: Path, change: Callable[[str], str]) -> Path:
    """Write the metadata text of a disk anew, with checksums that fit."""
    data = disk.read_bytes()
    begin = AREA_OFFSET + SECTOR
    end = data.index(b"\0", begin)
    text = change(data[begin:end].decode()).encode() + b"\0"
    return overwrite(disk, AREA_OFFSET, area_header(text) + text.ljust(end - begin, b"\0"))


def damaged(disk: Path) -> Path:
    """Change one letter of the metadata text, so that its checksum does not fit."""
    return overwrite(disk, disk.read_bytes().index(b'"test image"') + 1, b"T")


def overwrite(disk: Path, offset: int, data: bytes) -> Path:
    """Put other bytes somewhere; return the disk."""
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return disk
