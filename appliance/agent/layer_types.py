"""Which module looks into which type. A new layer type is added here, and in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from appliance.agent import (
    apfs,
    assembly,
    bcache,
    btrfs_device,
    btrfs_pool,
    crypt,
    firmware_raid,
    ldm,
    md,
    shadow,
    subvolumes,
    tcrypt,
)
from appliance.agent.volume import Volume
from appliance.agent.work import Member, Opened, Work

Opener = Callable[[Volume, Work], Opened]
"""Looks into one volume. Raises LeftAlone."""

OPENERS: dict[str, Opener] = {
    "crypto_LUKS": crypt.luks_volume,
    "BitLocker": crypt.bitlocker_volume,
    "apfs": apfs.apfs_container,
    "btrfs": subvolumes.btrfs_volume,
    "ntfs": shadow.ntfs_volume,
    "cs_fvault2": crypt.filevault_volume,
    bcache.TYPE: bcache.open_volume,
}
"""By libblkid's TYPE."""

CAN_WRITE = frozenset({"crypto_LUKS"})
"""Those of which the inside can be repaired; in a repair there is nobody for the others."""


def opener_of(blkid_type: str, volume: Volume, work: Work, *, is_blank: bool) -> Opener | None:
    """Who looks into a volume of that type; `is_blank` where nothing at all was recognised on it.

    What has no signature is tried only with a key that was given for exactly this volume.
    """
    if work.is_repair and blkid_type not in CAN_WRITE:
        return None
    if blkid_type in OPENERS:
        return OPENERS[blkid_type]
    if is_blank and work.keyring.own(volume.address):
        return tcrypt.volume_without_signature
    return None


@dataclass(frozen=True, slots=True)
class Assembler:
    """Puts together what lies on several volumes.

    `assemble` gets all members that were found since it was called last, and yields the volumes
    that came of them, one batch at a time: a batch is explored before the next one is asked for.
    Of these types it `takes` not every volume: a file system can be whole on one. `can_write`: it
    also does so for a repair.
    """

    types: frozenset[str]
    assemble: Callable[[list[Member], Work], Iterator[list[Volume]]]
    takes: Callable[[Volume], bool] = lambda _volume: True
    can_write: bool = False


ASSEMBLERS = [
    Assembler(frozenset({md.TYPE}), md.assemble),
    Assembler(frozenset({firmware_raid.INTEL, firmware_raid.DDF}), firmware_raid.assemble),
    Assembler(frozenset({ldm.TYPE}), ldm.assemble),
    Assembler(frozenset({"LVM2_member"}), assembly.assemble, can_write=True),
    Assembler(frozenset({btrfs_pool.TYPE}), btrfs_pool.assemble, btrfs_device.is_part),
]
"""In the order in which they are tried: what can hold members of the next ones comes first."""


UNDIVIDED = frozenset({md.TYPE, firmware_raid.INTEL, firmware_raid.DDF})
"""A disk with one of these at its end can show at its start what is inside of the array: a
partition table, say. That is looked for in the array alone."""


def is_looked_into(blkid_type: str) -> bool:
    """Whether there is anyone for this type."""
    return blkid_type in OPENERS or any(blkid_type in each.types for each in ASSEMBLERS)
