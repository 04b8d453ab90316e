"""Which physical volumes are shown to LVM together, and what their groups are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.agent import assembly, lvm
from appliance.agent.assembly import assemble, separate_clones
from appliance.agent.command import Completed
from appliance.agent.device import Device
from appliance.agent.lvm import Group, LogicalVolume, LvmError, read_groups
from appliance.agent.outcome import Outcome
from appliance.agent.volume import Volume
from appliance.agent.work import Member, Work
from appliance.layer import Finding, GroupFacts, Kind, Layer, Severity, Status, VolumeFacts
from appliance.protocol import Body, Progress


def volume(disk: int, number: int) -> Volume:
    device = Device(f"/dev/sd{disk}", 100 + disk, 1 << 30, 512)
    address, node = f"disk{disk}/p{number}", f"/dev/sd{disk}{number}"
    parents = [f"disk{disk}"]
    return Volume(address, Kind.PARTITION, parents, 512, 1 << 20, device, 512, node)


def member(disk: int, uuid: str, number: int = 1) -> Member:
    return Member(volume(disk, number), uuid)


def logical(name: str, layout: str = "linear") -> LogicalVolume:
    return LogicalVolume(VolumeFacts(name, f"lv-{name}", [layout], ["public"], None, None), 4096)


def group(
    name: str, uuid: str, members: list[Member], free: int = 0, missing: int = 0, *names: str
) -> Group:
    facts = GroupFacts(name, uuid, 4 << 20, free, len(members) + missing, missing)
    volumes = [logical(each) for each in names]
    return Group(facts, 1 << 30, [each.volume for each in members], volumes)


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


# --- groups, with a stand-in for LVM ------------------------------------------------------------


class Lvm:
    """Says what groups there are, and notes what is active at any time."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.problem: Exception | None = None
        self.refused: set[str] = set()
        self.active: list[str] = []
        self.most: list[list[str]] = []

    def read_groups(self, members: list[Volume]) -> list[Group]:
        if self.problem:
            raise self.problem
        here = {each.address for each in members}
        return [each for each in self.groups if {m.address for m in each.members} & here]

    def activate(
        self, wanted: Group, stack: ExitStack
    ) -> Iterator[tuple[LogicalVolume, Device | LvmError]]:
        self.active.append(wanted.facts.uuid)
        stack.callback(self.active.remove, wanted.facts.uuid)
        self.most.append(list(self.active))
        for each in wanted.volumes:
            if each.facts.name in self.refused:
                yield each, LvmError("no device")
            else:
                yield each, Device("/dev/dm-0", -1, each.size, 512)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Lvm:
    stand_in = Lvm()
    monkeypatch.setattr(assembly.lvm, "read_groups", stand_in.read_groups)
    monkeypatch.setattr(assembly.lvm, "activate", stand_in.activate)
    return stand_in


def run(members: list[Member]) -> tuple[list[Layer], list[Finding], list[list[str]]]:
    said: list[Body] = []
    with ExitStack() as stack:
        batches = [
            [each.address for each in batch]
            for batch in assemble(members, Work(Outcome(said.append), stack))
        ]
    layers = [body for body in said if isinstance(body, Layer)]
    return layers, [body for body in said if isinstance(body, Finding)], batches


def test_one_group(fake: Lvm) -> None:
    members = [member(0, "a"), member(1, "b")]
    fake.groups = [group("lvg1", "u1", members, 8192, 0, "root", "home")]
    layers, findings, batches = run(members)
    assert [(each.address, each.kind) for each in layers] == [
        ("lvg1", Kind.VOLUME_GROUP),
        ("lvg1/~free", Kind.GAP),
    ]
    assert layers[0].parents == ["disk0/p1", "disk1/p1"]
    assert batches == [["lvg1/root", "lvg1/home"]]
    assert findings == []
    assert fake.active == []


def test_groups_of_one_name(fake: Lvm) -> None:
    """They are told apart by their first physical volume, and are never active together."""
    members = [member(0, "a"), member(1, "b"), member(2, "c")]
    fake.groups = [
        group("vg", "u1", members[:1], 0, 0, "root"),
        group("vg", "u2", members[1:2], 0, 0, "root"),
        group("other", "u3", members[2:], 0, 0, "data"),
    ]
    _, _, batches = run(members)
    assert batches == [["vg@disk0.p1/root"], ["vg@disk1.p1/root"], ["other/data"]]
    assert fake.most == [["u1"], ["u2"], ["u3"]]


def test_clones_of_a_group(fake: Lvm) -> None:
    members = [member(0, "a"), member(1, "a")]
    fake.groups = [group("vg", "u1", [each], 0, 0, "root") for each in members]
    layers, _, batches = run(members)
    assert [each.address for each in layers] == ["vg@disk0.p1", "vg@disk1.p1"]
    assert batches == [["vg@disk0.p1/root"], ["vg@disk1.p1/root"]]
    assert fake.most == [["u1"], ["u1"]]


def test_different_groups_stay_active(fake: Lvm) -> None:
    """A group can lie on another group's logical volume."""
    members = [member(0, "a"), member(1, "b")]
    fake.groups = [
        group("one", "u1", members[:1], 0, 0, "x"),
        group("two", "u2", members[1:], 0, 0, "y"),
    ]
    run(members)
    assert fake.most == [["u1"], ["u1", "u2"]]
    assert fake.active == []


@pytest.mark.parametrize("name", ["disk0", "disk17", "md0", "md127"])
def test_group_that_is_called_like_a_disk(fake: Lvm, name: str) -> None:
    members = [member(0, "a")]
    fake.groups = [group(name, "u1", members)]
    layers, _, _ = run(members)
    assert layers[0].address == f"{name}@disk0.p1"


@pytest.mark.parametrize("name", ["disk", "disks0", "disk0a", "md", "mdx", "vg-1"])
def test_group_that_is_not(fake: Lvm, name: str) -> None:
    members = [member(0, "a")]
    fake.groups = [group(name, "u1", members)]
    assert run(members)[0][0].address == name


def test_missing_physical_volume(fake: Lvm) -> None:
    members = [member(0, "a")]
    fake.groups = [group("vg", "u1", members, 0, 2, "root")]
    layers, findings, batches = run(members)
    assert layers[0].status is Status.DAMAGED
    assert [(each.severity, each.code) for each in findings] == [
        (Severity.WARNING, "missing-volume")
    ]
    assert "2 of 3" in findings[0].message
    assert batches == [["vg/root"]]


def test_member_without_a_group(fake: Lvm) -> None:
    layers, findings, batches = run([member(0, "a")])
    assert (layers, batches) == ([], [])
    assert [(each.layer, each.code) for each in findings] == [("disk0/p1", "no-group")]


def test_metadata_that_cannot_be_read(fake: Lvm) -> None:
    fake.problem = LvmError("bad checksum")
    layers, findings, _ = run([member(0, "a"), member(1, "b")])
    assert layers == []
    assert [(each.layer, each.message) for each in findings] == [
        ("disk0/p1", "bad checksum"),
        ("disk1/p1", "bad checksum"),
    ]


def test_volume_that_cannot_be_activated(fake: Lvm) -> None:
    members = [member(0, "a")]
    fake.groups = [group("vg", "u1", members, 0, 0, "good", "bad")]
    fake.refused = {"bad"}
    layers, findings, batches = run(members)
    assert batches == [["vg/good"]]
    assert [(each.address, each.status) for each in layers[1:]] == [("vg/bad", Status.DAMAGED)]
    assert [(each.layer, each.code) for each in findings] == [("vg/bad", "not-activated")]


def test_progress_names_what_is_done(fake: Lvm) -> None:
    members = [member(0, "a")]
    fake.groups = [group("vg", "u1", members)]
    said: list[Body] = []
    with ExitStack() as stack:
        list(assemble(members, Work(Outcome(said.append), stack)))
    steps = [(body.operation, body.layer) for body in said if isinstance(body, Progress)]
    assert steps == [("read LVM metadata", "disk0/p1"), ("activate", "vg")]


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
