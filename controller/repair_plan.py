"""Which of the file systems with errors can be repaired on an overlay, and what is written to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.check import Check, Verdict
from appliance.layer import Finding, Kind, Layer, Severity
from appliance.repair import REPAIRABLE, WHY_NOT
from controller.results import Inspection

_DIRECT = {"linear", "striped"}
_COPIES = {"origin", "snapshot"}
_ENCRYPTED = {"luks", "luks1", "luks2"}
_LVM = "LVM2_member"
_SLICES = {Kind.DISK, Kind.PARTITION}


@dataclass(slots=True)
class Planned:
    """`layers` are to be repaired, `path` is all that must be writable for that, `disks` those of
    the case by their index; `findings` say what cannot be repaired."""

    layers: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    disks: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def planned(inspection: Inspection, checks: Sequence[Check], *, zero_log: bool = False) -> Planned:
    """For every check that found errors; with `zero_log` also for XFS without a verdict, since a
    log that cannot be replayed keeps its check from having one."""
    layers = {layer.address: layer for layer in inspection.layers}
    lacking = {each.layer for each in inspection.findings if each.code == "incomplete"}
    plan = Planned()
    path: set[str] = set()
    for check in checks:
        is_stuck = zero_log and check.type == "xfs" and check.verdict is Verdict.UNDECIDED
        if check.verdict is not Verdict.ERRORS and not is_stuck:
            continue
        below = _below(check.layer, layers)
        reason = _why_not(check, below, layers, lacking)
        if reason:
            plan.findings.append(
                Finding(Severity.WARNING, check.layer, "not-repairable", f"not repaired: {reason}")
            )
        else:
            plan.layers.append(check.layer)
            path |= below
    plan.path = [address for address in layers if address in path]
    plan.disks = sorted(int(each.removeprefix("disk")) for each in path if _is_disk(layers[each]))
    return plan


def _below(address: str, layers: dict[str, Layer]) -> set[str]:
    """The layer and all that it lies on."""
    found: set[str] = set()
    waiting = [address]
    while waiting:
        each = waiting.pop()
        if each not in found and each in layers:
            found.add(each)
            waiting += layers[each].parents
    return found


def _why_not(
    check: Check, below: set[str], layers: dict[str, Layer], lacking: set[str | None]
) -> str:
    """ "" where it can be repaired."""
    if check.layer not in layers:
        return "it is not in the map of the layers"
    if check.type not in REPAIRABLE:
        return WHY_NOT.get(check.type, f"there is no safe repair for {check.type}")
    for address in sorted(below, key=list(layers).index):
        if address in lacking:
            return f"{address} lacks some of its bytes, and a repair would take them for lost"
        if reason := _why_read_only(layers[address], layers):
            return f"{address} {reason}"
    return ""


def _why_read_only(layer: Layer, layers: dict[str, Layer]) -> str:
    """Why a write to the layer would not come to the overlay of its disk as it must."""
    if layer.kind in _SLICES:
        if layer.kind is Kind.DISK and layer.parents:
            return "is an image in a file system, which is opened in the guest's memory"
        return ""
    if layer.kind is Kind.CRYPT:
        parents: Sequence[Layer] = [layers[each] for each in layer.parents if each in layers]
        schemes = {each.encryption.scheme for each in parents if each.encryption}
        is_luks = bool(schemes) and schemes <= _ENCRYPTED
        return "" if is_luks else "is encrypted with something that is only opened read-only"
    if layer.kind is Kind.VOLUME_GROUP:
        return _why_no_group(layer, layers)
    if layer.kind is Kind.LOGICAL_VOLUME and layer.volume is not None:
        direct = set(layer.volume.layout) <= _DIRECT and not _COPIES & set(layer.volume.role)
        words = ", ".join(layer.volume.layout)
        return "" if direct else f"is a volume ({words}) that opens only in the guest's memory"
    return f"({layer.kind.value}) opens only in the guest's memory, where a repair would be lost"


def _why_no_group(group: Layer, layers: dict[str, Layer]) -> str:
    members = [layers[each].content for each in group.parents if each in layers]
    if any(each is not None and each.type != _LVM for each in members):
        return "is a group of dynamic disks, which is only opened read-only"
    is_whole = group.group is not None and not group.group.missing_physical_volumes
    return "" if is_whole else "lacks physical volumes"


def _is_disk(layer: Layer) -> bool:
    return layer.kind is Kind.DISK and not layer.parents
