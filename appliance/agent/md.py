"""Puts Linux software RAID together from the members of a round.

The kernel reads the superblocks itself. What is read here as well are the facts that are reported,
which members it may be given, and what those that it is not given are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from appliance.agent import array_names, md_members, md_superblock
from appliance.agent.array_names import Wish
from appliance.agent.array_report import report_failed, report_health
from appliance.agent.device import DeviceError, open_device
from appliance.agent.dm import MappingError, composed
from appliance.agent.md_device import started
from appliance.agent.md_members import Part, Roster
from appliance.agent.md_superblock import SECTOR, BadSuperblock
from appliance.agent.outcome import LeftAlone
from appliance.agent.overlay import overlay
from appliance.agent.volume import Volume
from appliance.agent.work import Member, Work
from appliance.layer import Kind, Severity

TYPE = "linux_raid_member"
_SECONDS = 60


def assemble(members: list[Member], work: Work) -> Iterator[list[Volume]]:
    """Report the arrays of these members, and yield the volume of one at a time."""
    rosters = md_members.rosters(_read(members, work))
    wishes = [
        Wish(array_names.numbered(each.newest.name, each.newest.preferred), each.first)
        for each in rosters
    ]
    for address, roster in zip(array_names.choose(wishes, work.outcome), rosters, strict=True):
        volume = _opened(address, roster, work)
        if sum(each.newest.uuid == roster.newest.uuid for each in rosters) > 1:
            text = (
                "there is another array of the same UUID, a copy; which members belong together "
                "was told by their numbers, their events and their order"
            )
            work.outcome.find(Severity.INFO, address, "copies", text)
        if volume:
            yield [volume]


def _read(members: list[Member], work: Work) -> list[Part]:
    parts = []
    for member in members:
        address = member.volume.address
        try:
            with work.outcome.phase("read the superblock", address, "md"):
                parts.append(Part(member.volume, md_superblock.read(member.volume)))
        except LeftAlone:
            continue
        except (BadSuperblock, OSError) as error:
            message = f"a member of an array that cannot be put together: {error}"
            work.outcome.find(Severity.ERROR, address, "not-activated", message)
    return parts


def _opened(address: str, roster: Roster, work: Work) -> Volume | None:
    try:
        with work.outcome.phase("start the array", address, "md", _SECONDS), ExitStack() as own:
            node = _device(roster, own)
            device = open_device(node)
            own.callback(device.close)
            work.stack.enter_context(own.pop_all())
    except (LeftAlone, MappingError, DeviceError) as error:
        why = None if isinstance(error, LeftAlone) else str(error)
        report_failed(address, roster.facts, roster.size, why, work.outcome)
        return None
    report_health(address, roster.facts, work.outcome)
    if roster.newest.has_journal:
        message = (
            "it has a write journal, which was not replayed: the last writes before it was stopped "
            "may not be in it"
        )
        work.outcome.find(Severity.WARNING, address, "needs-recovery", message)
    return Volume(
        address=address,
        kind=Kind.ARRAY,
        parents=roster.addresses,
        offset=None,
        size=device.size,
        device=device,
        start=0,
        node=node,
        array=roster.facts,
    )


def _device(roster: Roster, stack: ExitStack) -> str:
    """The node of the array. Raises MappingError."""
    level = roster.newest.level
    if level == "linear":
        return stack.enter_context(composed(_linear(roster)))
    if level == "multipath":
        raise MappingError("multipath: several ways to one disk, which is not in an image")
    if not roster.usable:
        raise MappingError("none of its members that are here can be used")
    nodes = [stack.enter_context(overlay(part.volume.node or "")) for part in roster.usable]
    return stack.enter_context(started(nodes, roster.newest.version))


def _linear(roster: Roster) -> list[tuple[int, str, str]]:
    """Linux 6.8 has dropped this level: one member behind the other, each in whole chunks."""
    if roster.facts.missing:
        raise MappingError("a linear array needs all of its members")
    parts = []
    for part in roster.usable:
        block = part.block
        unit = max(block.chunk_size, SECTOR)
        size = min(block.data_size, part.volume.size - block.data_offset) // unit * unit
        parts.append((size, "linear", f"{part.volume.node} {block.data_offset // SECTOR}"))
    return parts
