"""Block devices as evidence, with real ones (loop devices)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from images import evidence
from images.detect import Format
from images.errors import ImageError, PolicyViolation, Unreadable, Unsupported
from images.export import exported
from images.image import open_image
from images.reference import Reach, opened_reference
from tests.builders.command import run
from tests.builders.qcow2 import Qcow2

from .conftest import MIB
from .test_chain import Opened, content, qemu_img

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a block device")

Loop = Callable[[Path], Path]


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Makes a read-only loop device of a file."""
    with ExitStack() as stack:

        def make(file: Path) -> Path:
            device = run("losetup", "--read-only", "--find", "--show", file).decode().strip()
            stack.callback(run, "losetup", "--detach", device)
            return Path(device)

        yield make


def test_served_byte_for_byte(disk: Path, loop: Loop, opened: Opened, run_folder: Path) -> None:
    device = loop(disk)
    image = opened(device)
    assert image.format is Format.RAW
    assert image.files[0].is_device
    assert image.virtual_size == image.files[0].size == disk.stat().st_size // 512 * 512
    assert content(image, run_folder) == disk.read_bytes()
    assert image.files[0].changes() == []


def test_link_to_a_device(
    disk: Path, loop: Loop, tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    (tmp_path / "link").symlink_to(loop(disk))
    assert content(opened(tmp_path / "link"), run_folder) == disk.read_bytes()


def test_opened_read_only_and_for_us_alone(disk: Path, loop: Loop) -> None:
    device = loop(disk)
    with evidence.opened(device) as file:
        flags = Path(f"/proc/self/fdinfo/{file.fd}").read_text().split("flags:")[1].split()[0]
        assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY
        with pytest.raises(OSError, match="busy"):
            os.open(device, os.O_RDONLY | os.O_EXCL)
    os.close(os.open(device, os.O_RDONLY | os.O_EXCL))


def test_claimed_device_is_refused(disk: Path, loop: Loop, opened: Opened) -> None:
    device = loop(disk)
    claim = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(Unreadable, match="is in use: mounted, or part of a volume") as failure:
            opened(device)
    finally:
        os.close(claim)
    assert "unmount" in failure.value.hint
    assert opened(device).files


def test_mounted_device_is_refused(tmp_path: Path, loop: Loop, opened: Opened) -> None:
    file = tmp_path / "ext4"
    file.write_bytes(bytes(4 * MIB))
    run("mkfs.ext4", "-q", file)
    device = loop(file)
    (tmp_path / "mnt").mkdir()
    # In a mount namespace of its own, so that nothing of it can stay behind.
    script = 'mount -t ext4 -o ro,noload "$0" "$1" && echo mounted && read -r end'
    command = ["unshare", "--mount", "sh", "-c", script, device, tmp_path / "mnt"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as mounted:
        try:
            assert mounted.stdout.readline() == b"mounted\n"
            with pytest.raises(Unreadable, match="is in use: mounted"):
                opened(device)
        finally:
            mounted.stdin.close()
    assert opened(device).virtual_size == 4 * MIB


def test_changes_name_another_size(tmp_path: Path, loop: Loop) -> None:
    file = tmp_path / "disk"
    file.write_bytes(bytes(MIB))
    device = loop(file)
    with evidence.opened(device) as open_file:
        os.truncate(file, 2 * MIB)
        run("losetup", "--set-capacity", device)
        assert open_file.changes() == [f"open file: size in bytes was {MIB}, is {2 * MIB}"]


def test_device_without_content(tmp_path: Path, opened: Opened) -> None:
    free = Path(run("losetup", "--find").decode().strip())
    with pytest.raises(Unreadable, match="is empty"):
        opened(free)


def test_qcow2_on_a_device(
    disk: Path, variants: dict[str, Path], tmp_path: Path, loop: Loop, opened: Opened, run_folder
) -> None:
    """As oVirt keeps disks: a qcow2 in a logical volume, which is larger than the image."""
    path = tmp_path / "volume"
    shutil.copy(variants["qcow2-v3"], path)
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size + 8 * MIB)
    image = opened(loop(path))
    assert image.format is Format.QCOW2
    assert content(image, run_folder) == disk.read_bytes()


def test_raw_device_below_an_overlay(
    disk: Path, tmp_path: Path, loop: Loop, opened: Opened, run_folder: Path
) -> None:
    """In an allowed folder a reference may lead to a device too."""
    number = loop(disk).stat().st_rdev
    os.mknod(tmp_path / "node", 0o600 | 0o060000, number)
    top = tmp_path / "top"
    size = str(disk.stat().st_size)
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", "node", "-F", "raw", top, size)
    image = opened(top)
    assert image.files[1].is_device
    assert content(image, run_folder) == disk.read_bytes()


@pytest.mark.parametrize("by", ["{}", "{.name}", "/{.name}", "C:\\{.name}"])
@pytest.mark.parametrize("role", ["backing file", "data file"])
def test_image_on_a_device_cannot_name_its_neighbours(
    role: str, by: str, disk: Path, tmp_path: Path, loop: Loop, opened: Opened
) -> None:
    """Its folder is /dev: everything in it belongs to the host."""
    neighbour = loop(disk)
    name = os.fsencode(by.format(neighbour))
    names = {"backing": name, "backing_format": b"raw"} if role == "backing file" else {}
    path = tmp_path / "volume"
    path.write_bytes(Qcow2(**(names or {"data_file": name})).build())
    device = loop(path)
    with (
        pytest.raises(PolicyViolation, match=f"{role}.*outside") as failure,
        ExitStack() as stack,
    ):
        open_image(device, stack=stack)
    assert "put it into" not in failure.value.hint
    with evidence.opened(device) as owner:
        as_file = replace(owner, is_device=False)
        with opened_reference(as_file, name, role, Reach()) as found:  # the guard taken out
            assert found.file.resolved == neighbour
    assert opened(device, reach=Reach.into([Path("/dev")])).files[1].resolved == neighbour


def test_part_of_a_disk_cannot_be_a_device(
    disk: Path, tmp_path: Path, loop: Loop, opened: Opened, run_folder: Path
) -> None:
    os.mknod(tmp_path / "node", 0o600 | 0o060000, loop(disk).stat().st_rdev)
    path = tmp_path / "disk.vmdk"
    path.write_text(
        '# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "node" 0\n'
    )
    image = opened(path)
    with (
        pytest.raises(Unsupported, match="node: is a block device"),
        exported(image.plan, run_folder, name="d"),
    ):
        pass


def test_same_device_under_two_names(
    disk: Path, tmp_path: Path, loop: Loop, opened: Opened
) -> None:
    number = loop(disk).stat().st_rdev
    for name in ("one", "two"):
        os.mknod(tmp_path / name, 0o600 | 0o060000, number)
    path = tmp_path / "disk.vmdk"
    lines = 'RW 8 FLAT "one" 0\nRW 8 FLAT "two" 0\n'
    path.write_text(f'# Disk DescriptorFile\nversion=1\ncreateType="twoGbMaxExtentFlat"\n{lines}')
    with pytest.raises(ImageError, match=r"in use|twice"):
        opened(path)
