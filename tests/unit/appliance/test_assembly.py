"""Which physical volumes are taken together, what their groups are called, and what LVM reports."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.agent import group_volumes, lvm
from appliance.agent.assembly import assemble, separate_clones
from appliance.agent.command import Completed
from appliance.agent.device import Device
from appliance.agent.lvm import Group, LvmError, read_groups
from appliance.agent.lvm2.table import Tables
from appliance.agent.outcome import Outcome
from appliance.agent.volume import Volume
from appliance.agent.work import Member, Work
from appliance.layer import Finding, GroupFacts, Kind, Layer, Severity, Status
from appliance.protocol import Body, Deed, Progress
from tests.builders import lvm as builder
from tests.builders.lvm_text import DATA_OFFSET, PhysicalVolume

MIB = 1 << 20


def volume(disk: int, number: int) -> Volume:
    device = Device(f"/dev/sd{disk}", 100 + disk, 1 << 30, 512)
    address, node = f"disk{disk}/p{number}", f"/dev/sd{disk}{number}"
    parents = [f"disk{disk}"]
    return Volume(address, Kind.PARTITION, parents, 512, 1 << 20, device, 512, node)


def member(disk: int, uuid: str, number: int = 1) -> Member:
    return Member(volume(disk, number), uuid)


def places(sets: list[list[Member]]) -> list[list[str]]:
    return [[f"{each.volume.address}={each.uuid}" for each in one] for one in sets]


def test_no_members() -> None:
    assert separate_clones([]) == []


def test_different_members_stay_together() -> None:
    members = [member(0, "a"), member(1, "b"), member(2, "c")]
    assert separate_clones(members) == [members]


def test_clone_of_a_disk() -> None:
    members = [member(0, "a"), member(1, "a")]
    assert separate_clones(members) == [[members[0]], [members[1]]]


def test_two_disks_with_the_same_two_members() -> None:
    members = [member(0, "a", 1), member(0, "b", 2), member(1, "a", 1), member(1, "b", 2)]
    assert separate_clones(members) == [members[:2], members[2:]]


def test_members_of_one_disk_stay_together_in_any_order() -> None:
    members = [member(0, "a", 1), member(1, "a", 1), member(1, "b", 2), member(0, "b", 2)]
    assert places(separate_clones(members)) == [
        ["disk0/p1=a", "disk0/p2=b"],
        ["disk1/p1=a", "disk1/p2=b"],
    ]


def test_the_same_member_twice_on_one_disk() -> None:
    members = [member(0, "a", 1), member(0, "a", 2)]
    assert separate_clones(members) == [[members[0]], [members[1]]]


def test_three_snapshots() -> None:
    members = [member(disk, uuid) for uuid in "ab" for disk in range(3)]
    assert [len(one) for one in separate_clones(members)] == [2, 2, 2]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcd")), max_size=12))
def test_any_members(pairs: list[tuple[int, str]]) -> None:
    members = [member(disk, uuid, number) for number, (disk, uuid) in enumerate(pairs)]
    sets = separate_clones(members)
    assert sorted(m.volume.address for one in sets for m in one) == sorted(
        m.volume.address for m in members
    )
    assert all(len({m.uuid for m in one}) == len(one) for one in sets)
    most = max((sum(m.uuid == uuid for m in members) for uuid in "abcd"), default=0)
    assert len(sets) == most, "no more sets than there are copies"


# --- groups, from metadata that was built; there is no device-mapper on the host ------------------


class Disks:
    """Files with groups on them, as the agent sees attached disks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []
        self.stack = ExitStack()

    def pv(self) -> PhysicalVolume:
        path = self._folder / f"{len(self._paths)}.raw"
        self._paths.append(path)
        return PhysicalVolume(path, DATA_OFFSET + 16 * MIB)

    def group(self, name: str, *volumes: str, pvs: int = 1, uuid: str | None = None) -> None:
        made = [builder.Volume(each, 4 * MIB) for each in volumes]
        builder.make_group(name, [self.pv() for _ in range(pvs)], made, uuid=uuid)

    def members(self, *left_out: int) -> list[Member]:
        found = []
        for number, path in enumerate(self._paths):
            if number not in left_out:
                fd = os.open(path, os.O_RDONLY)
                self.stack.callback(os.close, fd)
                device = Device(str(path), fd, path.stat().st_size, 512)
                address = f"disk{number}"
                whole = Volume(address, Kind.DISK, [], None, device.size, device, 0, device.path)
                found.append(Member(whole, whole.read(512 + 32, 32).hex()))
        return found


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    """Files are not mapped: the first physical volume stands for what device-mapper would make."""
    monkeypatch.setattr(Tables, "open", lambda *_, **_kw: "/dev/dm-0")
    monkeypatch.setattr(
        group_volumes, "open_device", lambda _, **_kw: Device("/dev/dm-0", -1, 4096, 512)
    )
    monkeypatch.setattr(Device, "close", lambda _: None)
    made = Disks(tmp_path)
    with made.stack:
        yield made


Ran = tuple[list[Layer], list[Finding], list[list[str]]]


def run(
    members: list[Member], *fatal: Deed, before: Callable[[Outcome], None] | None = None
) -> Ran:
    said: list[Body] = []
    outcome = Outcome(said.append, fatal)
    if before:
        before(outcome)
    with ExitStack() as stack:
        batches = [
            [each.address for each in batch] for batch in assemble(members, Work(outcome, stack))
        ]
    layers = [body for body in said if isinstance(body, Layer)]
    return layers, [body for body in said if isinstance(body, Finding)], batches


def test_one_group(disks: Disks) -> None:
    disks.group("lvg1", "root", "home", pvs=2)
    layers, findings, batches = run(disks.members())
    assert [(each.address, each.kind) for each in layers] == [
        ("lvg1", Kind.VOLUME_GROUP),
        ("lvg1/~free", Kind.GAP),
    ]
    assert layers[0].parents == ["disk0", "disk1"]
    assert layers[0].size == 32 * MIB
    assert layers[1].size == 24 * MIB
    assert batches == [["lvg1/home", "lvg1/root"]]
    assert findings == []


def test_groups_of_one_name(disks: Disks) -> None:
    """They are told apart by their first physical volume."""
    disks.group("vg", "root", uuid="AAAAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAAA1")
    disks.group("vg", "root", uuid="AAAAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAAA2")
    disks.group("other", "data")
    _, findings, batches = run(disks.members())
    assert batches == [["vg@disk0/root"], ["other/data"], ["vg@disk1/root"]]
    assert findings == []


def test_clones_of_a_group(disks: Disks) -> None:
    disks.group("vg", "root")
    disks.group("vg", "root")
    layers, _, batches = run(disks.members())
    assert [each.address for each in layers if each.group] == ["vg@disk0", "vg@disk1"]
    assert batches == [["vg@disk0/root"], ["vg@disk1/root"]]


def test_name_that_an_earlier_round_has_used(disks: Disks) -> None:
    disks.group("vg", "root")
    earlier = Layer("vg", Kind.VOLUME_GROUP, [], None, 0, Status.MAPPED)
    _, _, batches = run(disks.members(), before=lambda outcome: outcome.add(earlier))
    assert batches == [["vg@disk0/root"]]


@pytest.mark.parametrize("name", ["disk0", "disk17", "md0", "md127"])
def test_group_that_is_called_like_a_disk(disks: Disks, name: str) -> None:
    disks.group(name)
    assert run(disks.members())[0][0].address == f"{name}@disk0"


@pytest.mark.parametrize("name", ["disk", "disks0", "disk0a", "md", "mdx", "vg-1"])
def test_group_that_is_not(disks: Disks, name: str) -> None:
    disks.group(name)
    assert run(disks.members())[0][0].address == name


def test_missing_physical_volume(disks: Disks) -> None:
    disks.group("vg", "root", pvs=3)
    layers, findings, batches = run(disks.members(1, 2))
    assert layers[0].status is Status.DAMAGED
    assert [(each.severity, each.code) for each in findings] == [
        (Severity.WARNING, "missing-volume")
    ]
    assert "2 of 3" in findings[0].message
    assert "pv1" in findings[0].message
    assert batches == [["vg/root"]]


def test_volume_on_what_is_missing(disks: Disks) -> None:
    disks.group("vg", "root", pvs=2)
    layers, findings, batches = run(disks.members(0))
    assert batches == [[]]
    assert [(each.address, each.status) for each in layers if each.volume] == [
        ("vg/root", Status.DAMAGED)
    ]
    assert ("vg/root", "incomplete") in [(each.layer, each.code) for each in findings]


def test_left_alone(disks: Disks) -> None:
    """What opening a group's volumes has killed a guest before: they are shown."""
    disks.group("vg", "root")
    layers, _, batches = run(disks.members(), Deed("map volumes", "vg"))
    assert batches == [[]]
    assert layers[-1].address == "vg/root"
    assert layers[-1].status is Status.DAMAGED


def test_progress_names_what_is_done(disks: Disks) -> None:
    disks.group("vg", "root")
    said: list[Body] = []
    with ExitStack() as stack:
        list(assemble(disks.members(), Work(Outcome(said.append), stack)))
    steps = [(body.operation, body.layer) for body in said if isinstance(body, Progress)]
    assert steps == [("read LVM metadata", "disk0"), ("map volumes", "vg")]


# --- lvm's own report ---------------------------------------------------------------------------

VG = {
    "vg_name": "vg", "vg_uuid": "u", "vg_size": "8192", "vg_extent_size": "4096", "vg_free": "0",
    "pv_count": "1", "vg_missing_pv_count": "0",
}  # fmt: skip
LV = {
    "lv_name": "root", "lv_uuid": "l", "lv_size": "4096", "lv_layout": "linear",
    "lv_role": "public", "origin": "", "pool_lv": "",
}  # fmt: skip
PV = {"pv_name": "/dev/sd01", "pv_uuid": "p"}


def report(monkeypatch: pytest.MonkeyPatch, vg: dict[str, str], lv: dict[str, str]) -> list[Group]:
    import json  # noqa: PLC0415

    document: dict[str, Any] = {"report": [{"vg": [vg], "pv": [PV], "lv": [lv]}]}
    done = Completed(0, json.dumps(document).encode() + b'\n{"log":[]}', b"")
    monkeypatch.setattr(lvm, "_lvm", lambda _command: done)
    return read_groups([volume(0, 1)])


def test_report(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = report(monkeypatch, VG, LV)
    assert found.facts == GroupFacts("vg", "u", 4096, 0, 1, 0)
    assert [each.address for each in found.members] == ["disk0/p1"]
    assert [each.facts.name for each in found.volumes] == ["root"]


HOSTILE = {
    "size of 2^63": ({"vg_free": str(2**63)}, {}),
    "extent of 2^63": ({"vg_extent_size": str(2**63)}, {}),
    "size is empty": ({"vg_size": ""}, {}),
    "size is no number": ({"vg_size": "unknown"}, {}),
    "volume without a size": ({}, {"lv_size": ""}),
    "negative size": ({"vg_free": "-4096"}, {}),
    "name with a space": ({"vg_name": "a b"}, {}),
    "name with an option": ({}, {"lv_name": "-x"}),
    "long name": ({"vg_name": "x" * 5000}, {}),
}


@pytest.mark.parametrize(
    "case",
    list(HOSTILE),
)
def test_hostile_report(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """What the metadata claims is the image's own: a finding, not the end of the agent."""
    vg, lv = HOSTILE[case]
    with pytest.raises(LvmError):
        report(monkeypatch, VG | vg, LV | lv)
