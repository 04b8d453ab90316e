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
from appliance.agent.crypt import SCHEMES, Unlocked, unlock
from appliance.agent.device import Device, open_device, open_disk
from appliance.agent.dm import MappingError
from appliance.agent.keyring import Keyring
from appliance.agent.lvm import Member
from appliance.agent.outcome import MAX_LAYERS, LeftAlone, Outcome
from appliance.agent.slice import with_node
from appliance.agent.volume import Volume
from appliance.layer import Content, Kind, Layer, Severity, Status, Table
from appliance.protocol import Disk

_ATTACH_TIMEOUT = 20.0
_MEMBER = "LVM2_member"


def map_disks(disks: list[Disk], keyring: Keyring, outcome: Outcome, stack: ExitStack) -> None:
    """Find everything on the disks; `stack` undoes what is set up in the guest for it.

    Raises DeviceError where a disk is not what the host attached.
    """
    _map([_open(disk, outcome, stack) for disk in disks], keyring, outcome, stack)


def map_devices(paths: list[tuple[str, str]], outcome: Outcome, stack: ExitStack) -> None:
    """The same for devices of the guest itself, given as (address, path)."""
    volumes = [_whole(address, open_device(path), stack) for address, path in paths]
    _map(volumes, Keyring(), outcome, stack)


def _map(volumes: list[Volume], keyring: Keyring, outcome: Outcome, stack: ExitStack) -> None:
    members: list[Member] = []
    while volumes or members:
        if volumes:
            volumes = _explore_all(volumes, keyring, outcome, members, stack)
            continue
        # Only when nothing else is left: a group can span partitions of several disks.
        complete, members = members, []
        for batch in assembly.assemble(complete, outcome, stack):
            volumes.extend(_explore_all(batch, keyring, outcome, members, stack))


def _explore_all(
    volumes: list[Volume],
    keyring: Keyring,
    outcome: Outcome,
    members: list[Member],
    stack: ExitStack,
) -> list[Volume]:
    found: list[Volume] = []
    for volume in volumes:
        if outcome.is_full:
            _stop_at_limit(volume, outcome)
            return []
        found.extend(_explore(volume, keyring, outcome, members, stack))
    return found


def _open(disk: Disk, outcome: Outcome, stack: ExitStack) -> Volume:
    with outcome.phase("wait for the disk", disk.address, "disks"):
        device = open_disk(disk.serial, disk.size, timeout=_ATTACH_TIMEOUT)
    return _whole(disk.address, device, stack)


def _whole(address: str, device: Device, stack: ExitStack) -> Volume:
    stack.callback(device.close)
    return Volume(address, Kind.DISK, [], None, device.size, device, start=0, node=device.path)


def _explore(
    volume: Volume, keyring: Keyring, outcome: Outcome, members: list[Member], stack: ExitStack
) -> list[Volume]:
    """Examine one volume, report its layer, and return what is in it."""
    try:
        with outcome.phase("recognise", volume.address, "recognise"):
            found = examine(volume)
            table = _read_table(volume, outcome) if _may_be_divided(volume, found) else None
        scheme = SCHEMES.get(found.content.type) if found.content else None
        unlocked = unlock(volume, scheme, keyring, outcome, stack) if scheme else None
    except LeftAlone:
        _report(volume, Examined(None, Status.DAMAGED, []), None, None, outcome)
        return []
    _report(volume, found, table, unlocked, outcome)
    if found.content and found.content.type == _MEMBER:
        _join(volume, found.content, members, outcome, stack)
    if unlocked:
        return [unlocked.inside] if unlocked.inside else []
    if table is None:
        return []
    parts = partition.divide(volume, table)
    for layer in parts.layers:
        outcome.add(layer)
    outcome.repeat(parts.findings)
    return parts.volumes


def _may_be_divided(volume: Volume, found: Examined) -> bool:
    """Boot code of a file system can look like a table; on a disk libblkid knows it apart."""
    if volume.kind is Kind.PARTITION:
        return False
    return volume.kind is Kind.DISK or found.content is None


def _join(
    volume: Volume,
    content: Content,
    members: list[Member],
    outcome: Outcome,
    stack: ExitStack,
) -> None:
    try:
        members.append(Member(with_node(volume, stack), content.uuid or volume.address))
    except MappingError as error:
        outcome.find(Severity.ERROR, volume.address, "not-activated", str(error))


def _read_table(disk: Volume, outcome: Outcome) -> PartitionTable | None:
    try:
        return find_partitions(disk.device.fd, disk.size, disk.device.sector_size)
    except BlkidError as error:
        outcome.find(Severity.ERROR, disk.address, "unreadable", str(error))
        return None


def _report(
    volume: Volume,
    found: Examined,
    table: PartitionTable | None,
    unlocked: Unlocked | None,
    outcome: Outcome,
) -> None:
    status = unlocked.status if unlocked and found.status is Status.MAPPED else found.status
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
            encryption=unlocked.facts if unlocked else None,
        )
    )
    outcome.repeat([*found.findings, *([unlocked.finding] if unlocked else [])])
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
