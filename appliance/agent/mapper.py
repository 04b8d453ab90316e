"""Finds the layers of the attached disks: a worklist, not a recursion.

A round examines every volume that is known; what is in them joins the list at once. What lies on
several volumes is put together only when a round is over, since its parts can be anywhere. Whatever
cannot be read is a layer with a status and a finding, never an exception: one damaged layer must
not hide the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace

from appliance.agent import ldm, partition
from appliance.agent.blkid import BlkidError, PartitionTable
from appliance.agent.content import Examined, examine, examine_header, without_label
from appliance.agent.device import Device, open_device, open_disk, seal
from appliance.agent.dm import MappingError
from appliance.agent.drivers import DRIVERS
from appliance.agent.layer_types import ASSEMBLERS, UNDIVIDED, opener_of
from appliance.agent.nested import NestedImages
from appliance.agent.outcome import LeftAlone, Outcome
from appliance.agent.overlay import capacity, overflowed
from appliance.agent.recovery import in_the_view
from appliance.agent.reporting import FILE_SYSTEM, report, stop_at_limit
from appliance.agent.slice import with_node
from appliance.agent.volume import Volume
from appliance.agent.work import FileSystem, Member, Opened, Work
from appliance.layer import Content, Finding, Kind, Layer, Severity, Status
from appliance.protocol import Disk

_ATTACH_TIMEOUT = 20.0
_UNREPLAYED = "needs-recovery"
_CONTAINERS = {"apfs"}
"""File systems whose volumes are mounted, and not they themselves."""


def map_disks(disks: list[Disk], work: Work) -> list[FileSystem]:
    """Find everything on the disks; return the file systems, which stay open as long as the work.

    Raises DeviceError where a disk is not what the host attached.
    """
    return _map([_open(disk, work) for disk in disks], work)


def map_devices(paths: list[tuple[str, str]], work: Work) -> list[FileSystem]:
    """The same for devices of the guest itself, given as (address, path)."""
    return _map([_whole(address, open_device(path), work.stack) for address, path in paths], work)


def _map(volumes: list[Volume], work: Work) -> list[FileSystem]:
    mapper = _Mapper(work)
    images = NestedImages(work)
    mapper.run(volumes)
    while inside := images.open_wanted(mapper.file_systems):
        mapper.run(inside)
    images.tell_missing()
    if work.wanted.nested:
        images.list_all(mapper.file_systems)
    _tell_losses(work.outcome)
    return mapper.file_systems


def _open(disk: Disk, work: Work) -> Volume:
    with work.outcome.phase("wait for the disk", disk.address, "disks"):
        device = open_disk(disk.serial, disk.size, timeout=_ATTACH_TIMEOUT, writable=disk.writable)
    return _whole(disk.address, device, work.stack)


def _whole(address: str, device: Device, stack: ExitStack) -> Volume:
    stack.callback(device.close)
    return Volume(address, Kind.DISK, [], None, device.size, device, start=0, node=device.path)


def _tell_losses(outcome: Outcome) -> None:
    if lost := overflowed():
        message = (
            f"{len(lost)} throw-away overlays wanted more than the {capacity()} bytes that the "
            "guest has for them: what needed them cannot be read any more (--memory gives more)"
        )
        outcome.repeat([Finding(Severity.ERROR, None, "overlay-full", message)])


class _Mapper:
    """The members that wait to be put together, and what else a mapping has at hand."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._outcome = work.outcome
        self._members: dict[int, list[Member]] = {}
        self.file_systems: list[FileSystem] = []

    def run(self, volumes: list[Volume]) -> None:
        """Explore these and whatever comes of them."""
        while volumes or self._members:
            if volumes:
                volumes = self._explore_all(volumes)
                continue
            index = min(self._members)
            for batch in ASSEMBLERS[index].assemble(self._members.pop(index), self._work):
                volumes.extend(self._explore_all(batch))

    def _explore_all(self, volumes: Iterable[Volume]) -> list[Volume]:
        found: list[Volume] = []
        for volume in volumes:
            if self._outcome.is_full:
                stop_at_limit(volume, self._outcome)
                return []
            if not self._work.is_repair:
                found.extend(self._explore(volume))
            elif self._work.may_write(volume.address):
                found.extend(self._explore(replace(volume, writable=True)))
            else:
                _leave_alone(volume)
        return found

    def _explore(self, volume: Volume) -> list[Volume]:
        """Examine one volume, report its layer, and return what is in it."""
        opened: Opened | None = None
        table: PartitionTable | None = None
        findings: list[Finding] = []
        try:
            with self._outcome.phase("recognise", volume.address, "recognise"):
                header = self._work.headers.get(volume.address)
                found = examine_header(volume, header) if header else examine(volume)
                if header is None and _may_be_divided(volume, found):
                    table, findings = _read_table(volume)
                if found.content is None and table is None:
                    found = without_label(volume) or found
                if table:
                    found = ldm.recognised(volume, table) or found
            kind = found.content.type if found.content else ""
            whole = _assembler_of(kind, volume, self._work)
            if whole is None:
                found = in_the_view(volume, found, self._work)
                is_blank = not kind and table is None and not found.findings and header is None
                if opener := opener_of(kind, volume, self._work, is_blank=is_blank):
                    opened = opener(volume, self._work)
        except LeftAlone:
            report(volume, Examined(None, Status.DAMAGED, []), None, None, self._outcome)
            return []
        report(volume, found, table, opened, self._outcome)
        self._outcome.repeat(findings)
        if found.content and whole is not None:
            self._join(volume, found.content, whole)
        elif found.content and _can_be_mounted(found.content):
            wants_replay = any(each.code == _UNREPLAYED for each in found.findings)
            self.file_systems.append(FileSystem(volume, found.content, wants_replay=wants_replay))
        return self._inside(volume, table, opened, kind)

    def _inside(
        self, volume: Volume, table: PartitionTable | None, opened: Opened | None, kind: str
    ) -> list[Volume]:
        """Report what is in a volume, and return what of it is to be explored."""
        inside: list[Volume] = []
        if opened:
            self.file_systems.extend(opened.file_systems)
            inside = self._let_in(opened.volumes, opened.layers, [])
        if table is None:
            return inside
        parts = partition.divide(volume, table)
        if kind == ldm.TYPE:
            parts = ldm.without_own(parts)
        return inside + self._let_in(parts.volumes, parts.layers, parts.findings)

    def _let_in(
        self, volumes: list[Volume], layers: list[Layer], findings: list[Finding]
    ) -> list[Volume]:
        for layer in layers:
            self._outcome.add(layer)
        self._outcome.repeat(findings)
        return volumes

    def _join(self, volume: Volume, content: Content, assembler: int) -> None:
        """Let a part of something larger wait for the others."""
        try:
            member = Member(with_node(volume, self._work.stack), content.uuid or volume.address)
        except MappingError as error:
            self._outcome.find(Severity.ERROR, volume.address, "not-activated", str(error))
        else:
            self._members.setdefault(assembler, []).append(member)


def _can_be_mounted(content: Content) -> bool:
    is_container = content.type in _CONTAINERS
    return content.usage == FILE_SYSTEM and content.type in DRIVERS and not is_container


def _leave_alone(volume: Volume) -> None:
    """It lies beside what is repaired: nothing reads it, and nothing can write to it."""
    if volume.node:
        seal(volume.node)


def _assembler_of(blkid_type: str, volume: Volume, work: Work) -> int | None:
    if volume.total is not None:  # it has been put together already
        return None
    fitting = (
        index
        for index, each in enumerate(ASSEMBLERS)
        if blkid_type in each.types
        and each.takes(volume)
        and (each.can_write or not work.is_repair)
    )
    return next(fitting, None)


def _may_be_divided(volume: Volume, found: Examined) -> bool:
    """Boot code of a file system can look like a table; on a disk libblkid knows it apart."""
    if volume.kind is Kind.PARTITION or (found.content and found.content.type in UNDIVIDED):
        return False
    return volume.kind is Kind.DISK or found.content is None


def _read_table(disk: Volume) -> tuple[PartitionTable | None, list[Finding]]:
    try:
        table = partition.read_table(disk)
        return table, partition.check(disk, table)
    except BlkidError as error:
        return None, [Finding(Severity.ERROR, disk.address, "unreadable", str(error))]
