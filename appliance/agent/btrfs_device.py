"""btrfs: what the first superblock of one device says of it and of the file system.

Source: Linux include/uapi/linux/btrfs_tree.h (struct btrfs_super_block at byte 65536, in it
struct btrfs_dev_item at 201), little endian.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from appliance.agent.volume import Volume

_PLACE = 65536
_MAGIC = b"_BHRfS_M"
MAX_DEVICES = 4096


@dataclass(frozen=True, slots=True)
class BtrfsDevice:
    """A device; `generation` is how often the file system had been written when it was last told,
    `devices` how many the file system has."""

    fsid: str
    generation: int
    devices: int
    number: int
    uuid: str
    label: str


def read(volume: Volume) -> BtrfsDevice | None:
    """None where there is no superblock. Raises OSError."""
    block = volume.read(_PLACE, 4096)
    if len(block) < 4096 or block[64:72] != _MAGIC:
        return None
    return BtrfsDevice(
        fsid=str(uuid.UUID(bytes=block[32:48])),
        generation=int.from_bytes(block[72:80], "little"),
        devices=int.from_bytes(block[136:144], "little"),
        number=int.from_bytes(block[201:209], "little"),
        uuid=str(uuid.UUID(bytes=block[267:283])),
        label=block[299:555].split(b"\0", 1)[0].decode("utf-8", "replace"),
    )


def is_part(volume: Volume) -> bool:
    """Whether there should be more devices of this file system."""
    try:
        found = read(volume)
    except OSError:
        return False
    return found is not None and 1 < found.devices <= MAX_DEVICES
