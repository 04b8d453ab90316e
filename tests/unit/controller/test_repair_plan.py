"""What can be repaired on an overlay, and what the exit status says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.check import Check, Verdict
from appliance.layer import (
    Content,
    Encryption,
    Finding,
    GroupFacts,
    Kind,
    Layer,
    Severity,
    Status,
    VolumeFacts,
)
from appliance.repair import Repair, Result
from controller.fsck_results import result_of
from controller.repair_plan import planned
from controller.repair_results import Repaired, delta_of
from controller.results import Inspection
from controller.wire import Delta

MIB = 1 << 20


def layer(address: str, kind: Kind, *parents: str, offset: int | None = None, **more: object):
    return Layer(address, kind, list(parents), offset, 100 * MIB, Status.MAPPED, **more)  # type: ignore[arg-type]


def group(missing: int = 0) -> Layer:
    facts = GroupFacts("vg", "u", 4 * MIB, 0, 2, missing)
    return layer("vg", Kind.VOLUME_GROUP, "disk0/p1/luks", "disk1", group=facts)


def volume(layout: str = "linear", role: str = "public") -> Layer:
    facts = VolumeFacts("lv", "u", layout.split(","), role.split(","), None, None)
    return layer("vg/lv", Kind.LOGICAL_VOLUME, "vg", volume=facts)


def inspection(*layers: Layer) -> Inspection:
    return Inspection("", [], list(layers), [], False, "", {}, {})


def layout(lvm: Layer, vg: Layer, scheme: str = "luks2") -> Inspection:
    return inspection(
        layer("disk0", Kind.DISK),
        layer("disk1", Kind.DISK),
        layer("disk2", Kind.DISK),
        layer("disk0/p1", Kind.PARTITION, "disk0", offset=MIB, encryption=Encryption(scheme)),
        layer("disk0/p2", Kind.PARTITION, "disk0", offset=50 * MIB),
        layer("disk0/p1/luks", Kind.CRYPT, "disk0/p1"),
        vg,
        lvm,
    )


def errors(address: str = "vg/lv", kind: str = "ext4") -> Check:
    return Check(address, kind, Verdict.ERRORS, "because")


def test_all_that_it_lies_on_is_written_to() -> None:
    plan = planned(layout(volume(), group()), [errors()])
    assert plan.layers == ["vg/lv"]
    assert plan.path == ["disk0", "disk1", "disk0/p1", "disk0/p1/luks", "vg", "vg/lv"]
    assert plan.disks == [0, 1]
    assert plan.findings == []


@pytest.mark.parametrize(
    ("lvm", "vg", "scheme", "kind", "word"),
    [
        (volume("raid,raid1"), group(), "luks2", "ext4", "raid1"),
        (volume(role="public,origin,thickorigin"), group(), "luks2", "ext4", "vg/lv"),
        (volume("thin,sparse"), group(), "luks2", "ext4", "thin"),
        (volume(), group(1), "luks2", "ext4", "lacks physical volumes"),
        (volume(), group(), "bitlocker", "ext4", "encrypted"),
        (volume(), group(), "luks1", "btrfs", "last resort"),
        (volume(), group(), "luks1", "ntfs", "chkdsk"),
        (volume(), group(), "luks1", "hfsplus", "no safe repair"),
    ],
)
def test_what_cannot_be_repaired_is_said(
    lvm: Layer, vg: Layer, scheme: str, kind: str, word: str
) -> None:
    plan = planned(layout(lvm, vg, scheme), [errors(kind=kind)])
    assert (plan.layers, plan.path, plan.disks) == ([], [], [])
    (finding,) = plan.findings
    assert (finding.layer, finding.code) == ("vg/lv", "not-repairable")
    assert finding.severity is Severity.WARNING
    assert word in finding.message


@pytest.mark.parametrize("kind", [Kind.ARRAY, Kind.SUBVOLUME, Kind.SHADOW_COPY, Kind.DISK])
def test_other_layers_in_between(kind: Kind) -> None:
    found = inspection(layer("disk0", Kind.DISK), layer("x", kind, "disk0"))
    plan = planned(found, [errors("x")])
    assert plan.layers == []
    assert "not repaired: x " in plan.findings[0].message


def test_dynamic_disks_are_no_lvm() -> None:
    on_ldm = layout(volume("striped"), group())
    members = [each for each in on_ldm.layers if each.address in on_ldm.layers[-2].parents]
    for member in members:
        at = on_ldm.layers.index(member)
        on_ldm.layers[at] = replace(member, content=Content("LDM_member"))
    plan = planned(on_ldm, [errors()])
    assert plan.layers == []
    assert "dynamic disks" in plan.findings[0].message


def test_nothing_with_holes_is_repaired() -> None:
    found = layout(volume(), group())
    found.findings.append(Finding(Severity.WARNING, "vg/lv", "incomplete", ""))
    plan = planned(found, [errors()])
    assert plan.layers == []
    assert "vg/lv lacks some of its bytes" in plan.findings[0].message


def test_only_errors_are_repaired() -> None:
    found = inspection(layer("disk0", Kind.DISK))
    for verdict in (Verdict.CLEAN, Verdict.UNDECIDED):
        assert planned(found, [Check("disk0", "ext4", verdict, "")]).layers == []


@pytest.mark.parametrize(
    ("result", "status"),
    [(Result.CORRECTED, 1), (Result.ERRORS_LEFT, 4), (Result.UNDECIDED, 12)],
)
def test_status(result: Result, status: int) -> None:
    found = inspection(layer("disk0", Kind.DISK))
    found.findings.append(Finding(Severity.WARNING, "disk0", "not-clean", ""))
    repaired = Repaired([Repair("disk0", "ext4", result, "")])
    # What is said of a file system before its repair counts only where that came to nothing.
    expected = status if result is Result.CORRECTED else status | 8
    assert result_of(found, [errors("disk0")], repaired).status == expected
    assert repaired.is_whole == (result is Result.CORRECTED)


def test_ranges_lie_in_the_smallest_layer() -> None:
    found = layout(volume(), group())
    ranges = [(0, 4096), (MIB, 4096), (60 * MIB, 8192), (MIB - 4096, 8192)]
    delta = delta_of(Delta(0, 65536, 5 * 4096 + 512, 4, ranges), found.layers)
    assert [each.layer for each in delta.ranges] == ["disk0", "disk0/p1", "disk0/p2", "disk0"]
    assert (delta.disk, delta.changed_blocks) == ("disk0", 6)
