"""Puts firmware RAID together (Intel and DDF metadata): by device-mapper, read-only.

The kernel does not read these formats. mdadm does, but it starts a daemon that writes, and it knows
the disks of an Intel array only by serial numbers that an image does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from appliance.agent import ddf, imsm
from appliance.agent.array_names import Wish, choose
from appliance.agent.array_report import report_failed, report_health
from appliance.agent.blkid import BlkidError, find_partitions, find_signature
from appliance.agent.device import DeviceError, open_device
from appliance.agent.dm import MappingError
from appliance.agent.firmware_array import Container, FirmwareArray, FirmwareError, Slot
from appliance.agent.outcome import LeftAlone
from appliance.agent.raid_table import Run, joined, striped, with_parity
from appliance.agent.volume import Volume
from appliance.agent.work import Member, Work
from appliance.layer import ArrayFacts, ArrayMember, Kind, Severity

INTEL, DDF = "isw_raid_member", "ddf_raid_member"
_METADATA = 1 << 20
"""At the end of a disk: there is no content of an array in it."""

_PARITIES = {"raid4": 1, "raid5": 1, "raid6": 2}


@dataclass(frozen=True, slots=True)
class _Part:
    volume: Volume
    container: Container


@dataclass(frozen=True, slots=True)
class _Array:
    """An array, and the disks of its container: those that it is on by their references, and
    those that are left out."""

    array: FirmwareArray
    container: Container
    parts: list[_Part]
    disks: dict[int, Volume]
    stale: list[_Part]

    def run(self, slot: Slot, size: int) -> Run | None:
        disk = self.disks.get(slot.disk)
        if disk is None or not slot.is_whole or slot.start + size > disk.size:
            return None
        return Run(disk.node or "", slot.start, size)


def assemble(members: list[Member], work: Work) -> Iterator[list[Volume]]:
    """Report the arrays of these members, and yield the volume of one at a time."""
    arrays = [each for parts in _containers(members, work) for each in _arrays(parts, work)]
    wishes = [Wish(None, each.parts[0].volume.address) for each in arrays]
    for address, array in zip(choose(wishes, work.outcome), arrays, strict=True):
        if volume := _opened(address, array, work):
            yield [volume]


def _containers(members: list[Member], work: Work) -> list[list[_Part]]:
    containers: dict[tuple[str, str], list[_Part]] = {}
    for member in members:
        disk = member.volume
        try:
            with work.outcome.phase("read the RAID metadata", disk.address, "md"):
                is_ddf = disk.read(disk.size - 512, 4) == bytes.fromhex("de11de11")
                container = (ddf if is_ddf else imsm).read(disk)
        except LeftAlone:
            continue
        except (FirmwareError, OSError) as error:
            text = f"a member of a firmware RAID that cannot be put together: {error}"
            work.outcome.find(Severity.ERROR, disk.address, "not-activated", text)
            continue
        key = (container.format, container.id)
        containers.setdefault(key, []).append(_Part(disk, container))
    return list(containers.values())


def _arrays(parts: list[_Part], work: Work) -> list[_Array]:
    newest = max(parts, key=lambda part: part.container.sequence).container
    stale = [part for part in parts if part.container.sequence < newest.sequence]
    current = [part for part in parts if part not in stale]
    found: dict[str, FirmwareArray] = {}
    for part in current:
        found |= {array.uuid: array for array in part.container.arrays}
    if not found:
        for part in parts:
            text = "its RAID metadata describes no array that it has a part in"
            work.outcome.find(Severity.WARNING, part.volume.address, "no-group", text)
    return [
        _Array(each, newest, parts, _disks(each, current, newest, work), stale)
        for each in found.values()
    ]


def _disks(
    array: FirmwareArray, parts: list[_Part], container: Container, work: Work
) -> dict[int, Volume]:
    """Which disk is which."""
    known = {part.container.own: part.volume for part in parts}
    if None not in known:
        return {own: volume for own, volume in known.items() if own is not None}
    volumes = [part.volume for part in parts]
    slots = [slot.disk for slot in array.slots]
    if array.level == "raid1":
        return dict(zip(slots, volumes, strict=False))
    if len(volumes) < len(container.disks):
        return {}  # with one missing it is not even known which one
    # The first slot has the beginning of the array: a partition table, or a file system.
    volumes.sort(key=lambda volume: not _begins_something(volume, array))
    text = (
        f"the disks of this {array.level} are told apart by serial numbers, which images do not "
        "have: they were taken in the order of the command line, but that the one comes first "
        "which has the beginning. If what is in it looks damaged, try another order"
    )
    work.outcome.find(Severity.WARNING, volumes[0].address, "member-order", text)
    return dict(zip(slots, volumes, strict=False))


def _begins_something(volume: Volume, array: FirmwareArray) -> bool:
    first = array.slots[0].start
    size = max(min(array.size, volume.size - first - _METADATA), 0)
    fd, start, sector = volume.device.fd, volume.start + first, volume.device.sector_size
    try:
        return bool(find_partitions(fd, size, sector, start) or find_signature(fd, start, size))
    except BlkidError:
        return False


def _opened(address: str, each: _Array, work: Work) -> Volume | None:
    facts = _facts(each)
    try:
        with work.outcome.phase("start the array", address, "md"), ExitStack() as own:
            device = open_device(_device(each, own))
            own.callback(device.close)
            work.stack.enter_context(own.pop_all())
    except (LeftAlone, MappingError, DeviceError) as error:
        why = None if isinstance(error, LeftAlone) else str(error)
        report_failed(address, facts, each.array.size, why, work.outcome)
        return None
    report_health(address, facts, work.outcome)
    parents = [member.layer for member in facts.members if member.layer]
    return Volume(
        address, Kind.ARRAY, parents, None, device.size, device, 0, device.path, array=facts
    )


def _facts(each: _Array) -> ArrayFacts:
    array, members = each.array, []
    for number, slot in enumerate(array.slots):
        disk = each.disks.get(slot.disk)
        state = "missing" if disk is None else "active" if slot.is_whole else "faulty"
        members.append(ArrayMember(disk.address if disk else None, number, state))
    missing = sum(member.state != "active" for member in members)
    members += [
        ArrayMember(part.volume.address, None, "stale", events=part.container.sequence)
        for part in each.stale
    ]
    placed = {member.layer for member in members}
    members += [
        ArrayMember(part.volume.address, None, "unplaced")
        for part in each.parts
        if not each.disks and part.volume.address not in placed
    ]
    level, _, layout = array.level.partition("_")
    return ArrayFacts(
        format=each.container.format,
        version=each.container.version,
        level=level,
        uuid=array.uuid,
        name=array.name or None,
        devices=len(array.slots),
        missing=missing,
        members=members,
        chunk_size=array.chunk_size,
        layout=layout or None,
        state="clean" if array.is_clean else "dirty",
    )


def _device(each: _Array, stack: ExitStack) -> str:
    """The node of the array. Raises MappingError."""
    array = each.array
    level = array.level.partition("_")[0]
    slots = array.slots
    per_row = {"raid1": 1, "raid10": len(slots) // 2}.get(
        level, len(slots) - _PARITIES.get(level, 0)
    )
    if per_row <= 0 or array.size <= 0:
        raise MappingError("its metadata makes no sense")
    unit = 1 if level == "raid1" else array.chunk_size
    size = -(-array.size // (per_row * unit)) * unit
    runs = [each.run(slot, size) for slot in slots]
    if level in _PARITIES:
        node = with_parity(array.level, runs, array.chunk_size, _PARITIES[level], stack)
    else:
        # Of copies one is read: a mixture of them was never on any disk.
        copies = {"raid1": len(slots), "raid10": 2}.get(level, 1)
        rows = [runs[at : at + copies] for at in range(0, len(runs), copies)]
        chosen = [next(filter(None, row), None) for row in rows]
        present = [run for run in chosen if run]
        if len(present) < len(rows) or len(slots) % copies:
            raise MappingError(f"{len(rows) - len(present)} of {len(rows)} parts have no copy")
        node = striped(present, array.chunk_size, stack) if len(rows) > 1 else ""
        node = node or joined(present, stack)
    return joined([Run(node, 0, array.size)], stack)
