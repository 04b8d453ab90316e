"""Finds the layers of the attached disks: a worklist, not a recursion.

A round examines every volume that is known; partitions join the list at once. Volume groups are
put together only when a round is over, since their physical volumes can be anywhere. Whatever
cannot be read is a layer with a status and a finding, never an exception: one damaged layer must
not hide the others.
"""

from __future__ import annotations

from contextlib import ExitStack

from appliance.agent import assembly, partition
from appliance.agent.blkid import BlkidError, PartitionTable, find_partitions
from appliance.agent.content import Examined, examine
from appliance.agent.device import Device, open_device, open_disk
from appliance.agent.lvm import Member
from appliance.agent.outcome import MAX_LAYERS, Outcome
from appliance.agent.volume import Volume
from appliance.layer import Kind, Layer, Severity, Status, Table
from appliance.protocol import Disk

_ATTACH_TIMEOUT = 20.0
_MEMBER = "LVM2_member"


def map_disks(disks: list[Disk], outcome: Outcome, stack: ExitStack) -> None:
    """Find everything on the disks; `stack` undoes what is set up in the guest for it.

    Raises DeviceError where a disk is not what the host attached.
    """
    _map([_open(disk, outcome, stack) for disk in disks], outcome, stack)


def map_devices(paths: list[tuple[str, str]], outcome: Outcome, stack: ExitStack) -> None:
    """The same for devices of the guest itself, given as (address, path)."""
    _map([_whole(address, open_device(path), stack) for address, path in paths], outcome, stack)


def _map(volumes: list[Volume], outcome: Outcome, stack: ExitStack) -> None:
    members: list[Member] = []
    while volumes or members:
        if volumes:
            volumes = _explore_all(volumes, outcome, members)
            continue
        # Only when nothing else is left: a group can span partitions of several disks.
        complete, members = members, []
        for batch in assembly.assemble(complete, outcome, stack):
            volumes.extend(_explore_all(batch, outcome, members))


def _explore_all(volumes: list[Volume], outcome: Outcome, members: list[Member]) -> list[Volume]:
    found: list[Volume] = []
    for volume in volumes:
        if outcome.is_full:
            _stop_at_limit(volume, outcome)
            return []
        found.extend(_explore(volume, outcome, members))
    return found


def _open(disk: Disk, outcome: Outcome, stack: ExitStack) -> Volume:
    with outcome.phase("wait for the disk", disk.address, "disks"):
        device = open_disk(disk.serial, disk.size, timeout=_ATTACH_TIMEOUT)
    return _whole(disk.address, device, stack)


def _whole(address: str, device: Device, stack: ExitStack) -> Volume:
    stack.callback(device.close)
    return Volume(address, Kind.DISK, [], None, device.size, device, start=0, node=device.path)


def _explore(volume: Volume, outcome: Outcome, members: list[Member]) -> list[Volume]:
    """Examine one volume, report its layer, and return the partitions in it."""
    with outcome.phase("recognise", volume.address, "recognise"):
        found = examine(volume)
        table = _read_table(volume, outcome) if volume.kind is Kind.DISK else None
    _report(volume, found, table, outcome)
    if found.content and found.content.type == _MEMBER:
        members.append(Member(volume, found.content.uuid or volume.address))
    if table is None:
        return []
    parts = partition.divide(volume, table)
    for layer in parts.layers:
        outcome.add(layer)
    outcome.repeat(parts.findings)
    return parts.volumes


def _read_table(disk: Volume, outcome: Outcome) -> PartitionTable | None:
    try:
        return find_partitions(disk.device.fd, disk.size, disk.device.sector_size)
    except BlkidError as error:
        outcome.find(Severity.ERROR, disk.address, "unreadable", str(error))
        return None


def _report(
    volume: Volume, found: Examined, table: PartitionTable | None, outcome: Outcome
) -> None:
    status = found.status
    nothing = found.content is None and status is Status.UNSUPPORTED and not found.findings
    if nothing and (table or partition.needs_no_content(volume)):
        status, nothing = Status.MAPPED, False
    outcome.add(
        Layer(
            address=volume.address,
            kind=volume.kind,
            parents=volume.parents,
            offset=volume.offset,
            size=volume.size,
            status=status,
            content=found.content,
            table=Table(table.type, table.uuid, volume.device.sector_size) if table else None,
            partition=volume.partition,
            volume=volume.logical_volume,
        )
    )
    outcome.repeat(found.findings)
    if nothing:
        message = _describe_unknown(volume)
        outcome.find(Severity.WARNING, volume.address, "unrecognised", message)


def _describe_unknown(volume: Volume) -> str:
    try:
        head = volume.read(0, 16)
    except OSError:
        return "nothing was recognised here, and its first bytes cannot be read"
    return f"nothing was recognised here; it begins with the bytes {head.hex(' ')}"


def _stop_at_limit(volume: Volume, outcome: Outcome) -> None:
    outcome.add(
        Layer(
            address=volume.address,
            kind=volume.kind,
            parents=volume.parents,
            offset=volume.offset,
            size=volume.size,
            status=Status.LIMIT,
            partition=volume.partition,
            volume=volume.logical_volume,
        )
    )
    message = f"more than {MAX_LAYERS} layers: this one and what follows it were not examined"
    outcome.find(Severity.ERROR, volume.address, "limit", message)
