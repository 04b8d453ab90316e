"""What is to be told of a volume group besides its volumes."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.agent.lvm2.choice import Assembled
from appliance.agent.lvm2.group import SECTOR, PhysicalVolume, VolumeGroup
from appliance.agent.volume import Volume
from appliance.layer import Finding, Severity

_NO_LOCKS = {"", "none"}
_MAX_NAMED = 8


def group_findings(address: str, assembled: Assembled) -> list[Finding]:
    """Missing members, members that have changed, and who may use the group."""
    return [
        *_missing(address, assembled),
        *_flags(address, assembled.group),
        *(
            finding
            for name, member in assembled.members.items()
            for finding in _member(assembled.group, assembled.group.pvs[name], member.volume)
        ),
    ]


def _missing(address: str, assembled: Assembled) -> Iterator[Finding]:
    group = assembled.group
    missing = [pv for name, pv in group.pvs.items() if name not in assembled.members]
    if missing:
        names = ", ".join(
            f"{pv.name} ({pv.uuid}, {pv.extents * group.extent_bytes} bytes)"
            for pv in missing[:_MAX_NAMED]
        )
        message = (
            f"{len(missing)} of {len(group.pvs)} physical volumes are missing: {names}; give the "
            "other images of this system with --add"
        )
        yield Finding(Severity.WARNING, address, "missing-volume", message)


def _flags(address: str, group: VolumeGroup) -> Iterator[Finding]:
    words = []
    if "EXPORTED" in group.flags:
        words.append("it was exported (vgexport) to be moved to another system")
    if group.system_id:
        words.append(f"only the system with the ID {group.system_id} may use it")
    if group.lock_type not in _NO_LOCKS or {"CLUSTERED", "SHARED"} & set(group.flags):
        kind = group.lock_type if group.lock_type not in _NO_LOCKS else "clustered"
        words.append(f"it is shared between several systems (lock type {kind})")
    if words:
        message = f"{'; '.join(words)}. It was opened all the same, read-only"
        yield Finding(Severity.INFO, address, "group-flags", message)


def _member(group: VolumeGroup, pv: PhysicalVolume, volume: Volume) -> Iterator[Finding]:
    sectors = volume.size // SECTOR
    needed = pv.start + pv.extents * group.extent_size
    if sectors < needed:
        message = (
            f"it has {volume.size} bytes here, and the group {group.name} uses "
            f"{needed * SECTOR} of it: what lies behind its end cannot be read"
        )
        yield Finding(Severity.WARNING, volume.address, "pv-too-short", message)
    elif pv.size and sectors != pv.size:
        message = f"it has {volume.size} bytes here; LVM knew it with {pv.size * SECTOR}"
        yield Finding(Severity.INFO, volume.address, "pv-resized", message)
    if "MISSING" in pv.flags:
        message = (
            f"it was missing when the group {group.name} was last changed: what is on it may be "
            "older than the rest"
        )
        yield Finding(Severity.WARNING, volume.address, "pv-was-missing", message)
