"""Images below the root of a file system that is a folder here: nothing leads out of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.agent.image_disk import NestedDisk, open_disk_image
from images.errors import ImageError, PolicyViolation
from tests.builders.qcow2 import Qcow2
from tests.unit.images.conftest import listing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system whose root is `root`; beside it a secret."""
    (tmp_path / "secret").write_bytes(bytes(512))
    (tmp_path / "root/images/sub").mkdir(parents=True)
    (tmp_path / "root/etc").mkdir()
    (tmp_path / "root/base.raw").write_bytes(bytes(1024))
    (tmp_path / "root/etc/secret").write_bytes(bytes(2048))
    return tmp_path / "root"


@pytest.fixture
def opened(root: Path) -> Callable[[str], NestedDisk]:
    stack = ExitStack()

    def open_it(path: str) -> NestedDisk:
        before = listing("/proc/self/fd")
        try:
            with ExitStack() as own:
                return open_disk_image(root, os.fsencode(path), own)
        finally:
            assert listing("/proc/self/fd") == before

    stack.close()
    return open_it


def on(root: Path, backing: bytes) -> str:
    image = Qcow2(backing=backing, backing_format=b"raw")
    (root / "images/a.qcow2").write_bytes(image.build())
    return "/images/a.qcow2"


@pytest.mark.parametrize(
    ("backing", "place"),
    [
        (b"../base.raw", "/base.raw"),
        (b"/base.raw", "/base.raw"),
        (b"sub/../../base.raw", "/base.raw"),
        # Above the root there is the root.
        (b"../../../../../../base.raw", "/base.raw"),
        (b"../../../etc/secret", "/etc/secret"),
        (b"/etc/../../etc/secret", "/etc/secret"),
    ],
)
def test_references_inside(
    root: Path, opened: Callable[[str], NestedDisk], backing: bytes, place: str
) -> None:
    found = opened(on(root, backing))
    assert found.facts.chain == [f"raw {place}"]
    assert [file.path for file in found.facts.files] == ["/images/a.qcow2", place]


@pytest.mark.parametrize(
    "backing",
    [b"../../secret", b"../secret", b"/secret", b"/proc/self/fd/0", b"json:{}", b"/dev/sda"],
)
def test_references_outside(
    root: Path, opened: Callable[[str], NestedDisk], backing: bytes
) -> None:
    with pytest.raises(ImageError) as failure:
        opened(on(root, backing))
    assert str(root) not in str(failure.value)


def test_absolute_name_of_the_host_means_the_file_system(
    root: Path, opened: Callable[[str], NestedDisk]
) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        opened(on(root, os.fsencode(root.parent / "secret")))


@pytest.mark.parametrize("target", ["../secret", "/secret", "../../secret", "/etc/../../secret"])
def test_link_out_of_it(root: Path, opened: Callable[[str], NestedDisk], target: str) -> None:
    (root / "link").symlink_to(target)
    with pytest.raises(FileNotFoundError):
        opened("/link")


def test_links_inside(root: Path, opened: Callable[[str], NestedDisk]) -> None:
    (root / "link").symlink_to("/images/../base.raw")
    assert opened("/link").image.virtual_size == 1024
    assert opened("/../../base.raw").facts.files[0].path == "/base.raw"


@pytest.mark.parametrize("path", ["/none", "/base.raw/more", "/a\0b", ""])
def test_no_such_file(opened: Callable[[str], NestedDisk], path: str) -> None:
    with pytest.raises((FileNotFoundError, NotADirectoryError, IsADirectoryError)):
        opened(path)


def test_no_file_at_all(root: Path, opened: Callable[[str], NestedDisk]) -> None:
    os.mkfifo(root / "fifo")
    with pytest.raises(ImageError, match="is a named pipe"):
        opened("/fifo")
    (root / "up").symlink_to("/")
    with pytest.raises((PolicyViolation, IsADirectoryError)):
        opened("/up")


def test_a_long_list_of_files_is_cut(root: Path, opened: Callable[[str], NestedDisk]) -> None:
    folder = root / ("x" * 200) / ("y" * 200)
    folder.mkdir(parents=True)
    lines = ["# Disk DescriptorFile", "version=1", "CID=1", "parentCID=ffffffff"]
    lines += ['createType="twoGbMaxExtentFlat"']
    for number in range(400):
        (folder / f"f{number:03}").write_bytes(bytes(512))
        lines.append(f'RW 1 FLAT "f{number:03}" 0')
    (folder / "a.vmdk").write_text("\n".join([*lines, ""]))
    found = opened(f"/{'x' * 200}/{'y' * 200}/a.vmdk")
    assert len(found.image.files) == 401
    assert 100 < len(found.facts.files) < 401
    assert any("more files belong to it" in note for note in found.notes)
