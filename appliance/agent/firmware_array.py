"""What the metadata of a firmware RAID says, whichever format it has."""

from __future__ import annotations

from dataclasses import dataclass, field


class FirmwareError(Exception):
    """The metadata contradicts itself, or is of a kind that is not known here."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one member of an array is: the disk by its reference, and the first byte there.

    `is_whole` is false while it is being rebuilt, or after it has failed.
    """

    disk: int
    start: int
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class FirmwareArray:
    """An array on the disks of a container. Sizes in bytes.

    `level` is raid0, raid1, raid10 (stripes over pairs), or the name that dm-raid has for a layout
    with parity.
    """

    uuid: str
    name: str
    level: str
    chunk_size: int
    size: int
    slots: tuple[Slot, ...]
    is_clean: bool = True


@dataclass(frozen=True, slots=True)
class Container:
    """One disk's copy of the metadata: `own` is the disk's reference, None where the metadata
    tells disks by serial numbers, which an image does not have. `disks` are all references."""

    format: str
    version: str
    id: str
    sequence: int
    own: int | None
    disks: tuple[int, ...]
    arrays: tuple[FirmwareArray, ...] = field(default=())
