"""Block devices of the guest: found by the serial that the host gave them, and read-only unless a
repair on the host's overlay is what the guest is for."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

# <linux/fs.h>
_BLKROSET = 0x125D
_BLKROGET = 0x125E
_BLKFLSBUF = 0x1261
_BLKSSZGET = 0x1268
_BLKGETSIZE64 = 0x80081272


class DeviceError(Exception):
    """A device did not appear, is not what was attached, or could be written to."""


@dataclass(frozen=True, slots=True)
class Device:
    """An open block device: `path` below /dev, descriptor, size in bytes, logical sector size."""

    path: str
    fd: int
    size: int
    sector_size: int

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; short only at the end. Raises OSError."""
        return os.pread(self.fd, length, offset)

    def close(self) -> None:
        """Let the device go, so that what it is part of can be taken down."""
        os.close(self.fd)


def open_disk(serial: str, size: int, *, timeout: float, writable: bool = False) -> Device:
    """Wait for the SCSI disk with that serial, open it, and make sure that it is the right one.

    Disks appear in any order, so a letter says nothing. Raises DeviceError after `timeout`
    seconds, for another size than `size`, and for a device that is not as `writable` says.
    """
    deadline = time.monotonic() + timeout
    while (name := _find_by_serial(serial)) is None or not _is_ready(f"/dev/{name}"):
        if time.monotonic() > deadline:
            raise DeviceError(f"no disk with the serial {serial} appeared in {timeout:g} seconds")
        time.sleep(0.005)
    device = open_device(f"/dev/{name}", writable=writable)
    if device.size != size:
        raise DeviceError(f"disk {serial} has {device.size} bytes here and {size} on the host")
    return device


def open_device(path: str, *, writable: bool = False) -> Device:
    """Open a block device for reading. Raises DeviceError where the kernel says that it can be
    written to and `writable` that it must not be, and the other way round."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(f"{path} cannot be opened: {error.strerror}") from error
    if writable and is_read_only(fd):
        os.close(fd)
        raise DeviceError(f"{path} is read-only; nothing can be repaired on it")
    if not writable and not is_read_only(fd):
        os.close(fd)
        raise DeviceError(f"{path} is writable; nothing is read from a device that could change")
    return Device(path, fd, _number(fd, _BLKGETSIZE64, 8), _number(fd, _BLKSSZGET, 4))


def seal(path: str) -> None:
    """Make a device of the guest's own (a volume on an overlay) refuse writes from here on."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _BLKROSET, struct.pack("=i", 1))
    finally:
        os.close(fd)


def flush(path: str) -> None:
    """Write out what the kernel still holds for a device, and forget what it has read of it.

    fsync(2) also has the disk behind it write out its cache. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        fcntl.ioctl(fd, _BLKFLSBUF, 0)
    finally:
        os.close(fd)


def is_read_only(fd: int) -> bool:
    """What blockdev --getro says."""
    return _number(fd, _BLKROGET, 4) == 1


def _number(fd: int, request: int, size: int) -> int:
    answer = fcntl.ioctl(fd, request, bytes(size))
    return int(struct.unpack("=Q" if size == 8 else "=I", answer)[0])


def _is_ready(path: str) -> bool:
    """The kernel shows a disk in /sys a moment before it lets anyone open it."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.ENOENT, errno.ENODEV}:
            return False
        raise
    return True


def _find_by_serial(serial: str) -> str | None:
    for disk in Path("/sys/block").glob("sd*"):
        # SPC: the unit serial number page has a header of four bytes.
        try:
            page = (disk / "device/vpd_pg80").read_bytes()
        except OSError:
            continue  # it is just being added
        if page[4:].decode("ascii", "replace").strip() == serial:
            return disk.name
    return None


def partition_node(disk: Device, number: int, start: int) -> str | None:
    """The device node that the kernel made for a partition, None where it made none there."""
    name = Path(disk.path).name
    base = Path("/sys/block", name, f"{name}{number}")
    try:
        found = int((base / "start").read_text()) * 512
    except (OSError, ValueError):
        return None
    return f"/dev/{base.name}" if found == start else None
