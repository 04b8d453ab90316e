"""Windows dynamic disks: groups of disks with simple, spanned, striped, mirrored, RAID 5 volumes.

Device-mapper puts the volumes together, straight on the read-only evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from appliance.agent import ldm_database
from appliance.agent.blkid import BlkidError, PartitionTable
from appliance.agent.content import Examined
from appliance.agent.device import DeviceError, open_device
from appliance.agent.dm import MappingError
from appliance.agent.ldm_database import Database, PrivateHeader
from appliance.agent.ldm_records import Component, Extent, LdmError, LdmVolume
from appliance.agent.outcome import LeftAlone
from appliance.agent.partition import Partitions
from appliance.agent.raid_table import Run, joined, striped, with_parity
from appliance.agent.table import read_table
from appliance.agent.volume import Volume
from appliance.agent.work import Member, Work
from appliance.layer import (
    Content,
    Finding,
    GroupFacts,
    Kind,
    Layer,
    Severity,
    Status,
    VolumeFacts,
)

TYPE = "LDM_member"
_STRIPED, _ONE_BEHIND_THE_OTHER, _RAID5 = 1, 2, 3
_SAFE = re.compile(r"(?!(?:disk|md)\d+$)[A-Za-z0-9_][A-Za-z0-9+_. -]*")
_OWN_TYPES = {ldm_database.MBR_TYPE, ldm_database.METADATA_TYPE, ldm_database.DATA_TYPE}


@dataclass(frozen=True, slots=True)
class _Part:
    """A disk that is here."""

    disk: Volume
    header: PrivateHeader
    database: Database


@dataclass(frozen=True, slots=True)
class _Group:
    address: str
    parts: dict[str, _Part]
    newest: _Part

    @property
    def database(self) -> Database:
        return self.newest.database

    def run(self, extent: Extent) -> Run | None:
        """Where it is, None where its disk is not here. Raises LdmError."""
        guids = [disk.guid for disk in self.database.records.disks if disk.id == extent.disk]
        part = self.parts.get(guids[0]) if guids else None
        if part is None:
            return None
        sector = part.disk.device.sector_size
        start, size = part.header.data_start + extent.start * sector, extent.size * sector
        if size <= 0 or start + size > part.disk.size:
            raise LdmError("a part of it lies outside of its disk")
        return Run(part.disk.node or "", start, size)


def recognised(disk: Volume, table: PartitionTable) -> Examined | None:
    """A dynamic disk as content, which libblkid does not know; None for any other disk."""
    if not ldm_database.is_dynamic(table):
        return None
    try:
        header = ldm_database.read_header(disk, table)
    except (LdmError, OSError) as error:
        text = f"a Windows dynamic disk whose database cannot be found: {error}"
        return Examined(None, Status.DAMAGED, [Finding(Severity.ERROR, disk.address, "ldm", text)])
    content = Content(
        TYPE, usage="raid", version=header.version, label=header.group_name, uuid=header.disk_guid
    )
    return Examined(content, Status.MAPPED, [])


def without_own(parts: Partitions) -> Partitions:
    """The partitions of a dynamic disk only stand for what its database describes."""
    volumes = [each for each in parts.volumes if not _is_own(each)]
    layers = [
        Layer(
            each.address, each.kind, each.parents, each.offset, each.size, Status.MAPPED,
            partition=each.partition,
        )
        for each in parts.volumes
        if _is_own(each)
    ]  # fmt: skip
    return Partitions(volumes, [*layers, *parts.layers], parts.findings)


def _is_own(volume: Volume) -> bool:
    return volume.partition is not None and volume.partition.type in _OWN_TYPES


def assemble(members: list[Member], work: Work) -> Iterator[list[Volume]]:
    """Report the groups of these disks, and yield the volumes of one at a time."""
    parts = [part for member in members if (part := _read(member.volume, work))]
    for one in _separated(parts):
        group = _group(one, work)
        _report(group, work)
        volumes = [_volume(group, volume, work) for volume in group.database.records.volumes]
        yield [volume for volume in volumes if volume]


def _read(disk: Volume, work: Work) -> _Part | None:
    try:
        with work.outcome.phase("read the LDM database", disk.address, "ldm"):
            table = read_table(disk)
            if table is None:
                return None
            header = ldm_database.read_header(disk, table)
            return _Part(disk, header, ldm_database.read_database(disk, header))
    except LeftAlone:
        return None
    except (LdmError, BlkidError, OSError) as error:
        text = f"a Windows dynamic disk whose database cannot be read: {error}"
        work.outcome.find(Severity.ERROR, disk.address, "ldm", text)
        return None


def _separated(parts: Sequence[_Part]) -> list[dict[str, _Part]]:
    """Groups by their GUID, in each of which a disk's GUID occurs once: copies are apart."""
    sets: list[tuple[str, dict[str, _Part]]] = []
    for part in parts:
        header = part.header
        fitting = (
            own for group, own in sets if group == header.group_guid and header.disk_guid not in own
        )
        own = next(fitting, None)
        if own is None:
            own = {}
            sets.append((header.group_guid, own))
        own[header.disk_guid] = part
    return [own for _, own in sets]


def _group(parts: dict[str, _Part], work: Work) -> _Group:
    newest = max(parts.values(), key=lambda part: part.database.sequence)
    first = next(iter(parts.values())).disk.address.replace("/", ".")
    name = newest.header.group_name
    address = name if _SAFE.fullmatch(name) else f"ldm@{first}"
    if work.outcome.has(address):
        address = f"{name}@{first}"
    return _Group(address, parts, newest)


def _report(group: _Group, work: Work) -> None:
    records = group.database.records
    missing = [disk for disk in records.disks if disk.guid not in group.parts]
    present = group.parts.values()
    used = sum(run.size for extent in records.extents if (run := _run(group, extent)))
    size = sum(part.header.data_size for part in present)
    facts = GroupFacts(
        name=group.newest.header.group_name,
        uuid=group.newest.header.group_guid,
        extent_size=group.newest.disk.device.sector_size,
        free=max(size - used, 0),
        physical_volumes=len(records.disks),
        missing_physical_volumes=len(missing),
    )
    status = Status.DAMAGED if missing else Status.MAPPED
    parents = [part.disk.address for part in present]
    work.outcome.add(
        Layer(group.address, Kind.VOLUME_GROUP, parents, None, size, status, group=facts)
    )
    if missing:
        names = ", ".join(f"{disk.name} ({disk.guid})" for disk in missing[:8])
        text = (
            f"{len(missing)} of {len(records.disks)} dynamic disks are missing: {names}; give the "
            "other images of this system with --add"
        )
        work.outcome.find(Severity.WARNING, group.address, "missing-volume", text)
    for part in present:
        if part.database.sequence != group.database.sequence:
            text = (
                f"its copy of the database is older (sequence {part.database.sequence} of "
                f"{group.database.sequence}), and was not used"
            )
            work.outcome.find(Severity.WARNING, part.disk.address, "left-out", text)


def _run(group: _Group, extent: Extent) -> Run | None:
    try:
        return group.run(extent)
    except LdmError:
        return None


def _volume(group: _Group, volume: LdmVolume, work: Work) -> Volume | None:
    name = volume.name if _SAFE.fullmatch(volume.name) else f"volume{volume.id}"
    address = f"{group.address}/{name}"
    if work.outcome.has(address):
        address = f"{address}.{volume.id}"
    components = [c for c in group.database.records.components if c.volume == volume.id]
    facts = VolumeFacts(volume.name, volume.guid, [_layout(components)], ["public"], None, None)
    try:
        with work.outcome.phase("activate", address, "ldm"), ExitStack() as own:
            device = open_device(_device(group, address, components, own, work))
            own.callback(device.close)
            work.stack.enter_context(own.pop_all())
    except LeftAlone:
        why = None
    except (LdmError, MappingError, DeviceError) as error:
        why = str(error)
    else:
        return Volume(
            address, Kind.LOGICAL_VOLUME, [group.address], None, device.size, device, 0,
            device.path, logical_volume=facts,
        )  # fmt: skip
    sector = group.newest.disk.device.sector_size
    size = min(volume.size * sector, 2**63 - 1)
    work.outcome.add(
        Layer(
            address, Kind.LOGICAL_VOLUME, [group.address], None, size, Status.DAMAGED, volume=facts
        )
    )
    if why is not None:
        work.outcome.find(Severity.ERROR, address, "not-activated", why)
    return None


def _layout(components: Sequence[Component]) -> str:
    if len(components) > 1:
        return "mirrored"
    kind = components[0].type if components else 0
    if kind == _ONE_BEHIND_THE_OTHER:
        return "spanned" if components[0].parts > 1 else "simple"
    return {_STRIPED: "striped", _RAID5: "raid5"}.get(kind, "unknown")


def _device(
    group: _Group, address: str, components: Sequence[Component], stack: ExitStack, work: Work
) -> str:
    """The node of a volume. Of a mirror one copy is read that is there as a whole: the copies of a
    mirror that was not stopped cleanly may differ, and a mixture was never on any disk."""
    if not components:
        raise LdmError("the database has no component of it")
    whole = [each for each in components if all(_runs(group, each))]
    if len(components) > 1 and whole:
        ordered = sorted(whole, key=lambda each: each.state != "ACTIVE")
        if len(whole) < len(components):
            text = f"{len(components) - len(whole)} of its {len(components)} copies are missing"
            work.outcome.find(Severity.WARNING, address, "degraded", text)
        return _component(group, ordered[0], stack)
    missing = len(_runs(group, components[0])) - len([*filter(None, _runs(group, components[0]))])
    if missing and components[0].type == _RAID5:
        text = f"{missing} of its {components[0].parts} parts are missing; it is read from parity"
        work.outcome.find(Severity.WARNING, address, "degraded", text)
    return _component(group, components[0], stack)


def _component(group: _Group, component: Component, stack: ExitStack) -> str:
    runs = _runs(group, component)
    sector = group.newest.disk.device.sector_size
    if component.type == _RAID5:
        return with_parity("raid5_ls", runs, component.chunk * sector, 1, stack)
    present = [run for run in runs if run]
    if len(present) < len(runs):
        raise LdmError(f"{len(runs) - len(present)} of its {len(runs)} parts are on missing disks")
    if component.type == _STRIPED:
        return striped(present, component.chunk * sector, stack)
    if component.type == _ONE_BEHIND_THE_OTHER:
        return joined(present, stack)
    raise LdmError(f"the database has an unknown kind of component ({component.type})")


def _runs(group: _Group, component: Component) -> list[Run | None]:
    """The parts of a component in their order. Raises LdmError."""
    extents = [e for e in group.database.records.extents if e.component == component.id]
    if not extents or len(extents) != component.parts:
        raise LdmError(f"the database has {len(extents)} of its {component.parts} parts")
    if component.type == _ONE_BEHIND_THE_OTHER:
        extents.sort(key=lambda extent: extent.volume_offset)
        ends = [extent.volume_offset + extent.size for extent in extents[:-1]]
        if [extent.volume_offset for extent in extents] != [0, *ends]:
            raise LdmError("its parts are not one behind the other")
    else:
        extents.sort(key=lambda extent: extent.index)
    return [group.run(extent) for extent in extents]
