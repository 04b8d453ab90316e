"""The words for what is put together from several devices: RAID, dynamic disks, pools."""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.bounds import check_bytes, check_list, check_text


@dataclass(frozen=True, slots=True)
class ArrayMember:
    """A part of an array: the layer that it is, None where it is on none of the images.

    `slot` is its place in the array, None for a spare. `state` is active, rebuilding, spare,
    journal, stale, faulty, unplaced or missing; `events` how often the array had changed when this
    part was last written to.
    """

    layer: str | None
    slot: int | None
    state: str
    uuid: str | None = None
    events: int | None = None

    def __post_init__(self) -> None:
        check_text(self.layer, self.state, self.uuid)
        check_bytes(self.slot)
        if self.events is not None and not 0 <= self.events < 2**64:
            raise ValueError("a number of events has more than 64 bits")


@dataclass(frozen=True, slots=True)
class ArrayFacts:
    """What is put together from several devices, as it is written on them.

    `format` is md, imsm, ddf, btrfs or bcache, and `version` that of its metadata. `devices` is
    how many the array is made for, `missing` how many of those it must do without. `resync_at` and
    `reshape_at` are the bytes up to which a resync or a reshape has come, None where none is going
    on. Sizes in bytes.
    """

    format: str
    version: str | None
    level: str
    uuid: str
    name: str | None
    devices: int
    missing: int
    members: list[ArrayMember] = field(default_factory=list)
    chunk_size: int | None = None
    layout: str | None = None
    state: str | None = None
    resync_at: int | None = None
    reshape_at: int | None = None
    bad_blocks: int = 0

    def __post_init__(self) -> None:
        check_text(self.format, self.version, self.level, self.uuid, self.name)
        check_text(self.layout, self.state)
        check_list(self.members)
        check_bytes(self.devices, self.missing, self.chunk_size, self.bad_blocks)
        check_bytes(self.resync_at, self.reshape_at)
