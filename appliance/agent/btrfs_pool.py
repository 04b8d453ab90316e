"""A btrfs file system on several devices: one layer for the whole, with its devices as parents.

Nothing has to be put together for it: the kernel does that when it mounts the file system. So the
layer's bytes are those of its newest device, and `companions` are the nodes of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from appliance.agent import btrfs_device
from appliance.agent.array_names import Wish, choose
from appliance.agent.array_report import report_health
from appliance.agent.btrfs_device import BtrfsDevice
from appliance.agent.volume import Volume
from appliance.agent.work import Member, Work
from appliance.layer import MAX_BYTES, ArrayFacts, ArrayMember, Kind, Severity

TYPE = "btrfs"


@dataclass(frozen=True, slots=True)
class _Part:
    volume: Volume
    facts: BtrfsDevice


def assemble(members: list[Member], work: Work) -> Iterator[list[Volume]]:
    """Yield the file systems of these devices. Those of copies are different ones."""
    pools = _pools(members)
    wishes = [Wish(f"btrfs-{p[0].facts.fsid[:8]}", p[0].volume.address) for p in pools]
    for address, parts in zip(choose(wishes, work.outcome), pools, strict=True):
        volume = _volume(address, parts)
        if volume.array:
            report_health(address, volume.array, work.outcome)
        same = [p for p in pools if p is not parts and p[0].facts.fsid == parts[0].facts.fsid]
        if same:
            text = (
                "there is another file system of the same UUID, a copy; the kernel cannot mount "
                "both at once, and which devices belong together was told by their order"
            )
            work.outcome.find(Severity.WARNING, address, "copies", text)
        yield [volume]


def _pools(members: list[Member]) -> list[list[_Part]]:
    """By their UUID; a device's number occurs once in each."""
    pools: list[list[_Part]] = []
    for member in members:
        try:
            facts = btrfs_device.read(member.volume)
        except OSError:
            facts = None
        if facts is None:
            continue
        fitting = (
            pool
            for pool in pools
            if pool[0].facts.fsid == facts.fsid
            and all(part.facts.number != facts.number for part in pool)
        )
        pool = next(fitting, None)
        if pool is None:
            pool = []
            pools.append(pool)
        pool.append(_Part(member.volume, facts))
    return pools


def _volume(address: str, parts: list[_Part]) -> Volume:
    newest = max(parts, key=lambda part: part.facts.generation)
    first = newest.volume
    return Volume(
        address=address,
        kind=Kind.ARRAY,
        parents=[part.volume.address for part in parts],
        offset=None,
        size=first.size,
        device=first.device,
        start=first.start,
        node=first.node,
        array=_facts(parts, newest.facts),
        companions=tuple(part.volume.node or "" for part in parts if part is not newest),
        total=min(sum(part.volume.size for part in parts), MAX_BYTES),
    )


def _facts(parts: list[_Part], newest: BtrfsDevice) -> ArrayFacts:
    members = [
        ArrayMember(
            part.volume.address,
            min(part.facts.number, MAX_BYTES),
            "active" if part.facts.generation == newest.generation else "stale",
            part.facts.uuid,
            part.facts.generation,
        )
        for part in sorted(parts, key=lambda part: part.facts.number)
    ]
    missing = max(newest.devices - len(parts), 0)
    members += [ArrayMember(None, None, "missing")] * missing
    return ArrayFacts(
        format="btrfs",
        version=None,
        level="btrfs",
        uuid=newest.fsid,
        name=newest.label or None,
        devices=newest.devices,
        missing=missing,
        members=members,
    )
