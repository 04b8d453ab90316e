"""Which members make one array, and what each of them is in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from appliance.agent.md_superblock import Superblock
from appliance.agent.volume import Volume
from appliance.layer import MAX_BYTES, ArrayFacts, ArrayMember

_USABLE = {"active", "rebuilding"}


@dataclass(frozen=True, slots=True)
class Part:
    """A member with its superblock."""

    volume: Volume
    block: Superblock


@dataclass(frozen=True, slots=True)
class Roster:
    """The members of one array: all of them, those that are read, by slot, and the facts."""

    parts: list[Part]
    newest: Superblock
    usable: list[Part]
    facts: ArrayFacts

    @property
    def first(self) -> str:
        """Address of the first member."""
        return self.parts[0].volume.address

    @property
    def addresses(self) -> list[str]:
        """Of all members."""
        return [part.volume.address for part in self.parts]

    @property
    def size(self) -> int:
        """What the array should have, in bytes; 0 where its superblocks do not say."""
        block = self.newest
        data = {"raid1": 1, "raid4": block.devices - 1, "raid5": block.devices - 1,
                "raid6": block.devices - 2}  # fmt: skip
        return min(max(data.get(block.level, 0), 0) * block.member_size, MAX_BYTES)


@dataclass
class _Set:
    """Members of one UUID of which no two have the same number."""

    parts: dict[int, Part] = field(default_factory=dict)

    def suits(self, part: Part) -> tuple[bool, int]:
        """How well another one goes with them: copies of one array differ in their events."""
        events = [each.block.events for each in self.parts.values()]
        return (part.block.number in self.parts, min(abs(part.block.events - e) for e in events))


def rosters(parts: Iterable[Part]) -> list[Roster]:
    """Divide members into arrays. Copies of one disk that are given together are members of
    different arrays; which copies belong together is told by their events, else by their order."""
    sets: dict[str, list[_Set]] = {}
    for part in parts:
        known = sets.setdefault(part.block.uuid, [])
        best = min(known, key=lambda each: each.suits(part), default=None)
        if best is None or part.block.number in best.parts:
            best = _Set()
            known.append(best)
        best.parts[part.block.number] = part
    return [_roster(list(one.parts.values())) for known in sets.values() for one in known]


def _roster(parts: list[Part]) -> Roster:
    newest = max((part.block for part in parts), key=lambda block: block.events)
    members: list[ArrayMember] = []
    usable: list[tuple[int, Part]] = []
    for part in parts:
        state, slot = _place(part.block, newest)
        if state in _USABLE and slot is not None:
            usable.append((slot, part))
        block = part.block
        members.append(
            ArrayMember(part.volume.address, slot, state, block.member_uuid, block.events)
        )
    filled = {slot for slot, _ in usable}
    empty = [slot for slot in range(newest.devices) if slot not in filled]
    named = {member.slot for member in members}
    members += [ArrayMember(None, slot, "missing") for slot in empty if slot not in named]
    members.sort(key=lambda member: (member.slot is None, member.slot or 0))
    ordered = [part for _, part in sorted(usable, key=lambda each: each[0])]
    return Roster(parts, newest, ordered, _facts(newest, parts, members, len(empty)))


def _place(block: Superblock, newest: Superblock) -> tuple[str, int | None]:
    """What a member is, and its slot.

    The kernel takes a member whose count of events is one behind, since a crash can have come
    between two of them (super_1_validate() of drivers/md/md.c).
    """
    role = newest.roles.get(block.number, "spare")
    own = block.role if isinstance(block.role, int) else None
    if block.events + 1 < newest.events:
        return "stale", own
    if role == "faulty":
        return "faulty", own
    if not isinstance(role, int):
        return role, None
    return ("rebuilding" if block.is_rebuilding else "active"), role


def _facts(
    newest: Superblock, parts: list[Part], members: list[ArrayMember], missing: int
) -> ArrayFacts:
    return ArrayFacts(
        format="md",
        version=newest.version,
        level=newest.level,
        uuid=newest.uuid,
        name=newest.name or None,
        devices=newest.devices,
        missing=missing,
        members=members,
        chunk_size=newest.chunk_size or None,
        layout=newest.layout,
        state="clean" if newest.is_clean else "dirty",
        resync_at=newest.resync_at,
        reshape_at=newest.reshape_at,
        bad_blocks=sum(part.block.bad_blocks for part in parts),
    )
