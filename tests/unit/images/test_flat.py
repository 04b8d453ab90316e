"""Raw disks in numbered parts, and on block devices."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from images.errors import MalformedImage, Unreadable
from images.export import exported
from images.image import Image

from .test_export import fetch

Opened = Callable[..., Image]
PARTS = [bytes([number]) * 4096 for number in range(1, 4)]


def split(folder: Path, names: list[str]) -> Path:
    for name, data in zip(names, PARTS, strict=False):
        (folder / name).write_bytes(data)
    return folder / names[0]


def served(image: Image, folder: Path) -> bytes:
    with exported(image.plan, folder, name="flat") as export:
        return fetch(export, folder / "out.raw")


@pytest.mark.parametrize(
    "names",
    [["d.001", "d.002", "d.003"], ["d.000", "d.001", "d.002"], ["d.dd.00001", "d.dd.00002"]],
)
def test_parts_are_one_disk(
    names: list[str], tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    image = opened(split(tmp_path, names))
    assert [file.path.name for file in image.files] == names
    assert served(image, run_folder) == b"".join(PARTS[: len(names)])
    assert image.notes[0] == f"{len(names)} parts of one raw disk"


def test_last_part_may_be_odd(tmp_path: Path, opened: Opened, run_folder: Path) -> None:
    path = split(tmp_path, ["d.001", "d.002"])
    (tmp_path / "d.002").write_bytes(b"x" * 700)
    image = opened(path)
    assert served(image, run_folder) == PARTS[0] + (b"x" * 700).ljust(1024, b"\0")
    assert "last sector" in image.notes[1]


def test_other_parts_may_not(tmp_path: Path, opened: Opened) -> None:
    path = split(tmp_path, ["d.001", "d.002", "d.003"])
    (tmp_path / "d.002").write_bytes(b"x" * 700)
    with pytest.raises(MalformedImage, match="700 bytes"):
        opened(path)


def test_missing_part_is_named(tmp_path: Path, opened: Opened) -> None:
    with pytest.raises(Unreadable, match=r"d\.002 is missing"):
        opened(split(tmp_path, ["d.001", "d.003"]))


@pytest.mark.parametrize("name", ["d.002", "d.003"])
def test_only_the_first_part_is_a_name(name: str, tmp_path: Path, opened: Opened) -> None:
    split(tmp_path, ["d.001", "d.002", "d.003"])
    with pytest.raises(Unreadable, match="not the first part") as caught:
        opened(tmp_path / name)
    assert "lowest" in caught.value.hint


@pytest.mark.parametrize("name", ["report.2024", "disk.001", "disk.img", "disk.1"])
def test_a_number_alone_is_no_part(name: str, tmp_path: Path, opened: Opened) -> None:
    image = opened(split(tmp_path, [name]))
    assert len(image.files) == 1


def test_part_behind_a_link_that_leads_away(tmp_path: Path, opened: Opened) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    path = split(folder, ["d.001"])
    (tmp_path / "secret").write_bytes(PARTS[1])
    (folder / "d.002").symlink_to(tmp_path / "secret")
    with pytest.raises(Exception, match="outside"):
        opened(path)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A read-only loop device on a file of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a loop device")
    path = tmp_path / "disk"
    path.write_bytes(b"".join(PARTS).ljust(1 << 20, b"e"))
    command = ["losetup", "--find", "--show", "--read-only", str(path)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield name
    finally:
        subprocess.run(["losetup", "--detach", name], check=True)


def test_block_device(device: str, opened: Opened, run_folder: Path) -> None:
    image = opened(Path(device))
    assert image.virtual_size == 1 << 20
    assert image.files[0].is_device
    assert served(image, run_folder) == b"".join(PARTS).ljust(1 << 20, b"e")
    assert image.files[0].changes() == []


def test_block_device_in_use(device: str, opened: Opened) -> None:
    """Somebody holds it exclusively, as mount(2) and device-mapper do."""
    held = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(Unreadable, match="in use"):
            opened(Path(device))
    finally:
        os.close(held)
    opened(Path(device))
