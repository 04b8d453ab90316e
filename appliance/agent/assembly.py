"""Puts volume groups together from the physical volumes of a round."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, count

from appliance.agent import lvm
from appliance.agent.dm import MappingError
from appliance.agent.group_findings import group_findings
from appliance.agent.group_volumes import GroupVolumes, Result
from appliance.agent.lvm import LvmError
from appliance.agent.lvm2 import choice
from appliance.agent.lvm2.choice import Assembled
from appliance.agent.lvm_only import LvmOnly
from appliance.agent.outcome import LeftAlone, Outcome
from appliance.agent.volume import Volume
from appliance.agent.work import Member, Work
from appliance.layer import GroupFacts, Kind, Layer, Severity, Status

_SECONDS = 150
"""One command of lvm with its own time limit, and much of our own on the slowest of machines."""

_RESERVED = re.compile(r"(disk|md)\d+")
"""Names that the addresses of other layers begin with."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A group, with its size in bytes and the members that are here."""

    facts: GroupFacts
    size: int
    members: list[Volume]
    source: Assembled | lvm.Group


def assemble(members: list[Member], work: Work) -> Iterator[list[Volume]]:
    """Report the groups of these members, and yield the logical volumes of one at a time.

    They stay open until the work's stack is closed, also where groups share a name or a UUID.
    """
    outcome = work.outcome
    groups: list[_Found] = []
    for clones in separate_clones(members):
        groups.extend(_read([member.volume for member in clones], outcome))
    names = [group.facts.name for group in groups]
    for group in groups:
        address = _address(group, names, work)
        _report(address, group, outcome)
        yield (_open_writable if work.is_repair else _open)(address, group, work)


def separate_clones(members: list[Member]) -> list[list[Member]]:
    """Divide physical volumes into sets in which every UUID occurs once.

    A group that is there twice cannot be told apart within one set. Volumes of one disk stay
    together as far as that goes.
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


def _read(members: list[Volume], outcome: Outcome) -> list[_Found]:
    addresses = ", ".join(member.address for member in members)[:1000]
    try:
        with outcome.phase("read LVM metadata", addresses, "lvm", _SECONDS):
            reading = choice.read(members)
            outcome.repeat(reading.findings)
            others = _ask_lvm(reading.unread, outcome)
    except LeftAlone:
        return []
    return [*(_found(each) for each in reading.groups), *others]


def _found(assembled: Assembled) -> _Found:
    group = assembled.group
    facts = GroupFacts(
        name=group.name,
        uuid=group.uuid,
        extent_size=group.extent_bytes,
        free=group.free * group.extent_bytes,
        physical_volumes=len(group.pvs),
        missing_physical_volumes=len(group.pvs) - len(assembled.members),
    )
    members = [each.volume for each in assembled.members.values()]
    return _Found(facts, group.extents * group.extent_bytes, members, assembled)


def _ask_lvm(members: list[Volume], outcome: Outcome) -> list[_Found]:
    """What we cannot read although its checksums are right: LVM itself is asked."""
    if not members:
        return []
    try:
        groups = lvm.read_groups(members)
    except LvmError as error:
        for member in members:
            outcome.find(Severity.ERROR, member.address, "lvm", str(error))
        return []
    found = {member.address for group in groups for member in group.members}
    for member in members:
        if member.address not in found:
            message = "this physical volume belongs to no volume group that could be read"
            outcome.find(Severity.WARNING, member.address, "no-group", message)
    return [_Found(each.facts, each.size, each.members, each) for each in groups]


def _address(group: _Found, names: list[str], work: Work) -> str:
    """The group's name; with the place of its first member where the name alone is not enough.

    In a repair the others of that name may be out of sight: what the inspection called it counts.
    """
    outcome, name = work.outcome, group.facts.name
    is_own = names.count(name) == 1 and not _RESERVED.fullmatch(name) and not outcome.has(name)
    if work.may_write(name) if work.is_repair else is_own:
        return name
    place = group.members[0].address if group.members else group.facts.uuid
    address = f"{name}@{place.replace('/', '.')}"
    others = (f"{address}~{number}" for number in count(2))
    return next(each for each in chain([address], others) if not outcome.has(each))


def _report(address: str, group: _Found, outcome: Outcome) -> None:
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
    if isinstance(group.source, Assembled):
        outcome.repeat(group_findings(address, group.source))
    if facts.free:
        # "~" is in no name that LVM allows.
        outcome.add(Layer(f"{address}/~free", Kind.GAP, [address], None, facts.free, Status.MAPPED))


def _open(address: str, group: _Found, work: Work) -> list[Volume]:
    source = group.source
    opener = (
        GroupVolumes(address, source) if isinstance(source, Assembled) else LvmOnly(address, source)
    )
    volumes = _taken(opener.closed(), work.outcome)
    try:
        with work.outcome.phase("map volumes", address, "lvm", _SECONDS):
            volumes += _taken(opener.open_direct(work.stack), work.outcome)
    except LeftAlone:
        _taken(opener.left_alone(direct=True), work.outcome)
    if not opener.others:
        return volumes
    try:
        with work.outcome.phase("activate", address, "lvm", _SECONDS), ExitStack() as stack:
            volumes += _taken(opener.open_others(stack), work.outcome)
            work.stack.enter_context(stack.pop_all())
    except LeftAlone:
        _taken(opener.left_alone(direct=False), work.outcome)
    except (LvmError, MappingError) as error:
        _taken(opener.left_alone(direct=False), work.outcome)
        work.outcome.find(Severity.ERROR, address, "not-activated", str(error))
    return volumes


def _open_writable(address: str, group: _Found, work: Work) -> list[Volume]:
    """For a repair: what may be written to, and nothing besides."""
    if not isinstance(group.source, Assembled):
        return []  # all of it would lie on overlays in the guest's memory
    opener = GroupVolumes(address, group.source)
    try:
        with work.outcome.phase("map volumes", address, "lvm", _SECONDS):
            return _taken(opener.open_writable(work.may_write, work.stack), work.outcome)
    except LeftAlone:
        return []


def _taken(results: list[Result], outcome: Outcome) -> list[Volume]:
    """Report what has no content, and return what is to be explored."""
    volumes = []
    for result in results:
        if result.layer:
            outcome.add(result.layer)
        if result.volume:
            volumes.append(result.volume)
        outcome.repeat(result.findings)
    return volumes
