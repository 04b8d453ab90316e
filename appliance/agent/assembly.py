"""Puts volume groups together from the physical volumes of a round."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack

from appliance.agent import lvm
from appliance.agent.dm import MappingError
from appliance.agent.lvm import Group, LogicalVolume, LvmError
from appliance.agent.outcome import LeftAlone, Outcome
from appliance.agent.volume import Volume
from appliance.agent.work import Member, Work
from appliance.layer import Kind, Layer, Severity, Status

_SECONDS = 150
"""Two commands of lvm, each with its own time limit."""

_RESERVED = re.compile(r"(disk|md)\d+")
"""Names that the addresses of other layers begin with."""


def assemble(members: list[Member], work: Work) -> Iterator[list[Volume]]:
    """Report the groups of these members, and yield the logical volumes of one at a time.

    Groups that share a name or a UUID cannot be active together, so such a group's volumes are
    gone again when the next ones are asked for; the others stay until the work's stack is closed.
    """
    outcome = work.outcome
    groups: list[Group] = []
    for clones in separate_clones(members):
        groups.extend(_read(clones, outcome))
    for address, group in zip(_addresses(groups), groups, strict=True):
        with ExitStack() as own:
            _report(address, group, outcome)
            try:
                with outcome.phase("activate", address, "lvm", _SECONDS):
                    volumes = _activate(address, group, outcome, own)
            except LeftAlone:
                _leave(address, group, outcome)
                continue
            yield volumes
            if not _conflicts(group, groups):
                work.stack.enter_context(own.pop_all())


def _conflicts(group: Group, groups: list[Group]) -> bool:
    return any(
        other is not group
        and (other.facts.name == group.facts.name or other.facts.uuid == group.facts.uuid)
        for other in groups
    )


def separate_clones(members: list[Member]) -> list[list[Member]]:
    """Divide physical volumes into sets in which every UUID occurs once.

    LVM refuses a group that it sees twice, so each set is shown to it alone. Volumes of one disk
    stay together as far as that goes.
    """
    sets: list[dict[str, Member]] = []
    for member in members:
        possible = [each for each in sets if member.uuid not in each]
        same_disk = [each for each in possible if _has_disk(each, member)]
        if not possible:
            sets.append({})
            possible = sets[-1:]
        (same_disk or possible)[0][member.uuid] = member
    return [list(each.values()) for each in sets]


def _has_disk(members: dict[str, Member], member: Member) -> bool:
    return any(each.volume.device.fd == member.volume.device.fd for each in members.values())


def _read(members: list[Member], outcome: Outcome) -> list[Group]:
    addresses = [member.volume.address for member in members]
    try:
        with outcome.phase("read LVM metadata", ", ".join(addresses)[:1000], "lvm", _SECONDS):
            groups = lvm.read_groups([member.volume for member in members])
    except LeftAlone:
        return []
    except LvmError as error:
        for address in addresses:
            outcome.find(Severity.ERROR, address, "lvm", str(error))
        return []
    found = {member.address for group in groups for member in group.members}
    for address in addresses:
        if address not in found:
            message = "this physical volume belongs to no volume group that could be read"
            outcome.find(Severity.WARNING, address, "no-group", message)
    return groups


def _addresses(groups: list[Group]) -> list[str]:
    names = [group.facts.name for group in groups]
    return [_address(group, names) for group in groups]


def _address(group: Group, names: list[str]) -> str:
    name = group.facts.name
    if names.count(name) == 1 and not _RESERVED.fullmatch(name):
        return name
    member = group.members[0].address if group.members else group.facts.uuid
    return f"{name}@{member.replace('/', '.')}"


def _report(address: str, group: Group, outcome: Outcome) -> None:
    facts = group.facts
    outcome.add(
        Layer(
            address=address,
            kind=Kind.VOLUME_GROUP,
            parents=[member.address for member in group.members],
            offset=None,
            size=group.size,
            status=Status.DAMAGED if facts.missing_physical_volumes else Status.MAPPED,
            group=facts,
        )
    )
    if facts.missing_physical_volumes:
        message = (
            f"{facts.missing_physical_volumes} of {facts.physical_volumes} physical volumes are "
            "missing; give the other images of this system with --add"
        )
        outcome.find(Severity.WARNING, address, "missing-volume", message)
    if facts.free:
        # "~" is in no name that LVM allows.
        outcome.add(Layer(f"{address}/~free", Kind.GAP, [address], None, facts.free, Status.MAPPED))
    for pool in group.volumes:
        if pool.is_pool:
            outcome.add(_without_content(address, pool, Status.MAPPED))


def _activate(address: str, group: Group, outcome: Outcome, stack: ExitStack) -> list[Volume]:
    volumes: list[Volume] = []
    try:
        for logical, opened in lvm.activate(group, stack):
            if isinstance(opened, LvmError):
                outcome.add(_without_content(address, logical, Status.DAMAGED))
                name = f"{address}/{logical.facts.name}"
                outcome.find(Severity.ERROR, name, "not-activated", str(opened))
            else:
                volumes.append(lvm.as_volume(address, logical, opened))
    except (LvmError, MappingError) as error:
        outcome.find(Severity.ERROR, address, "not-activated", str(error))
    return volumes


def _leave(address: str, group: Group, outcome: Outcome) -> None:
    """What activating a group has killed a guest once: its volumes are shown, and not opened."""
    for volume in group.volumes:
        if not volume.is_pool:
            outcome.add(_without_content(address, volume, Status.DAMAGED))


def _without_content(address: str, volume: LogicalVolume, status: Status) -> Layer:
    name = f"{address}/{volume.facts.name}"
    return Layer(
        name, Kind.LOGICAL_VOLUME, [address], None, volume.size, status, volume=volume.facts
    )
