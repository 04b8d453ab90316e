"""The search for images in folders of the host: what is found, what is passed over, its bounds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from appliance.agent.image_search import Bounds, Candidate, Search
from tests.builders.qcow2 import Qcow2

QCOW2 = Qcow2(size=5 << 20).build()


def found(root: Path, bounds: Bounds | None = None) -> tuple[dict[bytes, Candidate], list[str]]:
    search = Search(root, bounds)
    return {each.path: each for each in search.run()}, list(search.left_out)


def test_by_content_and_not_by_name(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(QCOW2)
    (tmp_path / "disk.qcow2").write_bytes(b"just words " * 100)
    (tmp_path / "settings").write_bytes(b"# a comment\nversion=1\nname=x\n" * 10)
    (tmp_path / "log.gz").write_bytes(b"\x1f\x8b\x08" + bytes(2000))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "zeros").write_bytes(bytes(1 << 20))
    images, left_out = found(tmp_path)
    assert list(images) == [b"/holiday.jpg"]
    image = images[b"/holiday.jpg"]
    assert (image.format, image.virtual_size, image.file_size) == ("qcow2", 5 << 20, len(QCOW2))
    assert image.allocated_size == (tmp_path / "holiday.jpg").stat().st_blocks * 512
    assert left_out == []


@pytest.mark.parametrize(
    ("command", "content"),
    [
        (["mke2fs", "-q", "-F"], "ext2"),
        (["mkfs.vfat"], "vfat"),
        (["sfdisk", "-q", "--no-reread"], "dos"),
    ],
)
def test_raw_disks(tmp_path: Path, command: list[str], content: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(2 << 20))
    subprocess.run([*command, path], input=b"2048,1024,83\n", check=True, capture_output=True)
    images, _ = found(tmp_path)
    image = images[b"/a"]
    assert (image.format, image.content, image.virtual_size) == ("raw", content, 2 << 20)
    with path.open("ab") as file:
        file.write(b"x")  # no longer whole sectors
    assert found(tmp_path)[0] == {}


def test_nothing_but_files_and_folders(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "image").write_bytes(QCOW2)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside / "image")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(".")
    os.mkfifo(root / "fifo")
    assert found(root) == ({}, [])


def test_names_are_bytes(tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"a\nb", b"\x1b[31m"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(QCOW2)
    assert set(found(tmp_path)[0]) == {b"/" + name for name in names}


def test_signs_of_several_formats(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(QCOW2[:510] + b"\x55\xaa" + QCOW2[512:])
    images, _ = found(tmp_path)
    assert images[b"/a"].format == "ambiguous"


def tree(root: Path) -> None:
    for number in range(5):
        folder = root / f"f{number}" / "g"
        folder.mkdir(parents=True)
        (folder / "image").write_bytes(QCOW2)


@pytest.mark.parametrize(
    ("bounds", "images", "reason"),
    [
        (Bounds(folder_entries=3), 3, "a folder has more than 3 entries"),
        (Bounds(entries=8), 1, "there are more than 8 entries; the search ended here"),
        (Bounds(depth=2), 0, "lies more than 2 folders deep"),
        (Bounds(images=2), 2, "there are 2 images or more; the search ended here"),
        (Bounds(seconds=0), 0, "it took longer than 0 seconds; the search ended here"),
    ],
)
def test_bounds(tmp_path: Path, bounds: Bounds, images: int, reason: str) -> None:
    tree(tmp_path)
    listed, left_out = found(tmp_path, bounds)
    assert len(listed) == images
    assert left_out == [reason]


def test_sparse_giant(tmp_path: Path) -> None:
    os.truncate(os.open(tmp_path / "a", os.O_CREAT | os.O_WRONLY), 1 << 43)
    assert found(tmp_path) == ({}, [])
