"""Raw disks in numbered parts: all found, in order, and a missing one named."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from images import flat
from images.detect import Format
from images.errors import ImageError, MalformedImage, PolicyViolation, Unreadable
from tests.builders.qcow2 import Qcow2

from .conftest import MIB
from .test_chain import Opened, content

DISK = random.Random(4).randbytes(3 * MIB + 512 * 3)


def split(folder: Path, first: int, digits: int = 3, part: int = MIB, disk: bytes = DISK) -> Path:
    """Writes image.001, …; returns the first."""
    for number, start in enumerate(range(0, len(disk), part), first):
        (folder / f"image.{number:0{digits}}").write_bytes(disk[start : start + part])
    return folder / f"image.{first:0{digits}}"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("digits", [3, 4, 5])
def test_parts(first: int, digits: int, tmp_path: Path, opened: Opened, run_folder: Path) -> None:
    image = opened(split(tmp_path, first, digits))
    assert image.format is Format.RAW
    assert image.virtual_size == len(DISK)
    assert [file.path.name for file in image.files] == [
        f"image.{number:0{digits}}" for number in range(first, first + 4)
    ]
    assert image.notes == ("4 parts of one raw disk",)
    assert content(image, run_folder) == DISK
    assert all(file.changes() == [] for file in image.files)


def test_many_parts(tmp_path: Path, opened: Opened, run_folder: Path) -> None:
    image = opened(split(tmp_path, 1, part=8192))
    assert len(image.files) == 385
    assert content(image, run_folder) == DISK


def test_parts_of_different_sizes(tmp_path: Path, opened: Opened, run_folder: Path) -> None:
    for number, size in enumerate((512, MIB, 1024), 1):
        (tmp_path / f"d.{number:03}").write_bytes(bytes([number]) * size)
    expected = b"\1" * 512 + b"\2" * MIB + b"\3" * 1024
    assert content(opened(tmp_path / "d.001"), run_folder) == expected


@pytest.mark.parametrize("extra", [1, 511])
def test_last_part_is_filled_up(
    extra: int, tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    image = opened(split(tmp_path, 1, disk=DISK + b"x" * extra))
    assert any("filled with zeros" in note for note in image.notes)
    assert content(image, run_folder) == (DISK + b"x" * extra).ljust(len(DISK) + 512, b"\0")


def test_middle_part_must_be_whole_sectors(tmp_path: Path, opened: Opened) -> None:
    path = split(tmp_path, 1)
    with (tmp_path / "image.002").open("ab") as file:
        file.write(b"x")
    with pytest.raises(MalformedImage, match=r"image\.002: has 1048577 bytes"):
        opened(path)


@pytest.mark.parametrize("gone", [2, 3])
def test_missing_part_is_named(gone: int, tmp_path: Path, opened: Opened) -> None:
    path = split(tmp_path, 1)
    (tmp_path / f"image.{gone:03}").unlink()
    with pytest.raises(Unreadable, match=rf"its part image\.00{gone} is missing") as failure:
        opened(path)
    assert "number 4" in failure.value.hint


@pytest.mark.parametrize("first", [0, 1])
def test_later_part_is_not_the_disk(first: int, tmp_path: Path, opened: Opened) -> None:
    split(tmp_path, first)
    for number in range(first + 1, first + 4):
        with pytest.raises(Unreadable, match="not the first part") as failure:
            opened(tmp_path / f"image.{number:03}")
        assert "lowest number" in failure.value.hint


@pytest.mark.parametrize(
    "name",
    ["disk.2024", "disk.002", "disk.001", "disk.000", "disk.01", "disk.1", "disk.img", "001"],
)
def test_names_that_only_end_in_a_number(
    name: str, tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    (tmp_path / name).write_bytes(DISK)
    for other in ("disc.001", "disk.1000x", "disk.02"):
        (tmp_path / other).write_bytes(b"other")
    image = opened(tmp_path / name)
    assert len(image.files) == 1
    assert content(image, run_folder) == DISK


def test_parts_with_other_digits_are_others(tmp_path: Path, opened: Opened) -> None:
    path = split(tmp_path, 1, 3)
    split(tmp_path, 1, 4)
    assert len(opened(path).files) == 4


def test_parts_behind_a_link_of_the_user(tmp_path: Path, opened: Opened, run_folder: Path) -> None:
    path = split(tmp_path, 1)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere/image"
    link.symlink_to(path)
    assert content(opened(link), run_folder) == DISK


def test_part_that_is_a_link_outside_is_refused(tmp_path: Path, opened: Opened) -> None:
    case = tmp_path / "case"
    case.mkdir()
    path = split(case, 1)
    (tmp_path / "secret").write_bytes(b"s" * MIB)
    (case / "image.003").unlink()
    (case / "image.003").symlink_to("../secret")
    with pytest.raises(PolicyViolation, match=r"further part.*outside"):
        opened(path)


def test_part_that_is_another_part(tmp_path: Path, opened: Opened) -> None:
    path = split(tmp_path, 1)
    (tmp_path / "image.003").unlink()
    (tmp_path / "image.003").symlink_to("image.002")
    with pytest.raises(PolicyViolation, match="twice"):
        opened(path)


def test_part_that_is_a_folder_or_empty(tmp_path: Path, opened: Opened) -> None:
    path = split(tmp_path, 1)
    (tmp_path / "image.003").unlink()
    (tmp_path / "image.003").mkdir()
    with pytest.raises(ImageError, match=r"image\.003.*is a folder"):
        opened(path)
    (tmp_path / "image.003").rmdir()
    (tmp_path / "image.003").touch()
    with pytest.raises(Unreadable, match="is empty"):
        opened(path)


def test_too_many_parts(tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    path = split(tmp_path, 1)
    (tmp_path / "image.99999").touch()
    assert len(opened(path).files) == 4
    (tmp_path / "image.00001").write_bytes(b"x" * 512)
    with pytest.raises(MalformedImage, match="more than 4096 parts"):
        opened(tmp_path / "image.00001")
    monkeypatch.setattr(flat, "MAX_FILES", 3)
    with pytest.raises(MalformedImage, match="more than 3 parts"):
        opened(path)


def test_part_is_never_interpreted(tmp_path: Path, opened: Opened, run_folder: Path) -> None:
    """The second part begins like a qcow2 with a backing file."""
    inner = Qcow2(MIB, backing=b"/etc/passwd", backing_format=b"raw").build().ljust(MIB, b"\0")
    disk = DISK[:MIB] + inner
    image = opened(split(tmp_path, 1, disk=disk))
    assert len(image.files) == 2
    assert content(image, run_folder) == disk


def test_below_an_overlay_a_number_means_nothing(
    tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    """Only what the user names is put together; a reference means the one file that it names."""
    split(tmp_path, 1)
    top = tmp_path / "top"
    top.write_bytes(Qcow2(MIB, backing=b"image.001", backing_format=b"raw").build())
    image = opened(top)
    assert len(image.files) == 2
    assert content(image, run_folder) == DISK[:MIB]
