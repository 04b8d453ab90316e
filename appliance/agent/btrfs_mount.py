"""What the kernel has to be told to mount a btrfs file system that lies on several devices.

Source: btrfs(5); <linux/btrfs.h> for BTRFS_IOC_FORGET_DEV.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress

from appliance.agent.volume import Volume

_FORGET_DEV = 0x50009405
_ARGUMENTS = 4096


def options(volume: Volume, companions: Sequence[str]) -> list[str]:
    """Options that name the other devices (`companions`, or overlays of them)."""
    words = [f"device={node}" for node in companions]
    if volume.array and volume.array.format == "btrfs" and volume.array.missing:
        words.append("degraded")
    return words


def forget() -> None:
    """Make the kernel forget every device that is not mounted: it tells devices by their UUIDs,
    and would take a device of one copy for that of another."""
    with suppress(OSError):
        control = os.open("/dev/btrfs-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(control, _FORGET_DEV, bytearray(_ARGUMENTS))  # bytes end at 1024
        finally:
            os.close(control)
