"""Dividing a disk by its table: every byte in one partition or gap, and what is wrong is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.agent import partition_types
from appliance.agent.blkid import Entry, PartitionTable
from appliance.agent.device import Device
from appliance.agent.partition import Partitions, divide, needs_no_content
from appliance.agent.volume import Volume
from appliance.layer import MAX_BYTES, Kind, Severity, Status

SIZE = 1000 * 512


def disk(size: int = SIZE, start: int = 0) -> Volume:
    device = Device("/dev/nothing", -1, size, 512)
    return Volume("disk0", Kind.DISK, [], None, size, device, start, device.path)


def entry(number: int, start: int, size: int, **changes: object) -> Entry:
    values = {
        "type": "0x83", "name": None, "uuid": None, "flags": 0, "extended": False,
        "logical": number > 4, "table_type": "dos",
    } | changes  # fmt: skip
    return Entry(number, start, size, **values)  # type: ignore[arg-type]


def table(*entries: Entry, kind: str = "dos") -> PartitionTable:
    return PartitionTable(kind, "1234", list(entries))


def codes(result: Partitions) -> list[tuple[str | None, str]]:
    return [(finding.layer, finding.code) for finding in result.findings]


def ranges(result: Partitions) -> list[tuple[int, int]]:
    """Start and end of everything that owns bytes, in order."""
    found = [(volume.offset or 0, volume.size) for volume in result.volumes]
    found += [(gap.offset or 0, gap.size) for gap in result.layers if gap.kind is Kind.GAP]
    return sorted((start, start + size) for start, size in found if size)


def tiles(result: Partitions, size: int = SIZE) -> bool:
    """Whether they cover the disk without a hole or an overlap."""
    ends = [(0, 0), *ranges(result), (size, size)]
    return all(left[1] == right[0] for left, right in pairwise(ends))


def test_empty_table() -> None:
    result = divide(disk(), table())
    assert result.volumes == []
    (gap,) = result.layers
    assert (gap.address, gap.offset, gap.size) == ("disk0/gap0", 0, SIZE)


def test_primary_extended_and_logical() -> None:
    parts = [
        entry(1, 5120, 51200, flags=0x80),
        entry(2, 102400, 204800, type="0x05", extended=True),
        entry(6, 204800, 51200, type="0x8E"),
        entry(5, 107520, 51200),
    ]
    result = divide(disk(start=7), table(*parts))
    assert [volume.address for volume in result.volumes] == ["disk0/p1", "disk0/p5", "disk0/p6"]
    assert [volume.start for volume in result.volumes] == [5127, 107527, 204807]
    assert all(volume.parents == ["disk0"] for volume in result.volumes)
    first, logical, last = (volume.partition for volume in result.volumes)
    assert first is not None
    assert first.bootable
    assert (first.type, first.type_name) == ("0x83", "Linux")
    assert logical is not None
    assert logical.logical
    assert last is not None
    assert last.type_name == "Linux LVM"
    container = next(layer for layer in result.layers if layer.partition)
    assert container.partition.extended  # type: ignore[union-attr]
    assert (container.address, container.size) == ("disk0/p2", 204800)
    assert codes(result) == []
    assert tiles(result)


@pytest.mark.parametrize(
    ("kind", "flags", "bootable"),
    [("dos", 0x80, True), ("dos", 4, False), ("gpt", 4, True), ("gpt", 0x80, False)],
)
def test_bootable(kind: str, flags: int, bootable: bool) -> None:
    result = divide(disk(), table(entry(1, 512, 512, flags=flags), kind=kind))
    facts = result.volumes[0].partition
    assert facts is not None
    assert facts.bootable is bootable


def test_type_in_capitals() -> None:
    guid = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
    result = divide(disk(), table(entry(1, 0, 512, type=guid), kind="gpt"))
    facts = result.volumes[0].partition
    assert facts is not None
    assert (facts.type, facts.type_name) == (guid.lower(), "Linux filesystem")


@pytest.mark.parametrize(("kind", "expected"), [("0x41", True), ("0xda", True), ("0x83", False)])
def test_without_content(kind: str, expected: bool) -> None:
    result = divide(disk(), table(entry(1, 0, 512, type=kind)))
    assert needs_no_content(result.volumes[0]) is expected
    assert not needs_no_content(disk())


def test_end_beyond_the_disk() -> None:
    result = divide(disk(), table(entry(1, SIZE - 512, 5120)))
    (volume,) = result.volumes
    assert (volume.offset, volume.size) == (SIZE - 512, 512)
    (finding,) = result.findings
    assert (finding.severity, finding.code) == (Severity.ERROR, "beyond-end")
    assert f"byte {SIZE + 4608}" in finding.message
    assert tiles(result)


@pytest.mark.parametrize("start", [SIZE, SIZE + 512, 2**40])
def test_start_beyond_the_disk(start: int) -> None:
    result = divide(disk(), table(entry(1, start, 512)))
    assert result.volumes == []
    outside = result.layers[0]
    assert (outside.offset, outside.size, outside.status) == (start, 0, Status.DAMAGED)
    assert codes(result) == [("disk0/p1", "beyond-end")]
    assert tiles(result)


def test_end_at_the_end() -> None:
    result = divide(disk(), table(entry(1, 0, SIZE)))
    assert codes(result) == []
    assert result.layers == []


@pytest.mark.parametrize(
    ("second", "expected"),
    [((2560, 512), True), ((5632, 512), False), ((5120, 5120), True), ((0, 512), False),
     ((512, 51200), True), ((512, 512), True)],
)  # fmt: skip
def test_overlap(second: tuple[int, int], expected: bool) -> None:
    result = divide(disk(), table(entry(1, 512, 5120), entry(2, *second)))
    assert ("overlap" in [code for _, code in codes(result)]) is expected
    assert tiles(result) is not expected


def test_overlap_with_one_that_is_not_the_neighbour() -> None:
    parts = [entry(1, 0, 51200), entry(2, 512, 512), entry(3, 10240, 512)]
    result = divide(disk(), table(*parts))
    assert codes(result) == [("disk0/p2", "overlap"), ("disk0/p3", "overlap")]
    assert "inside disk0/p1 (until 51200)" in result.findings[1].message


def test_logical_in_its_container_is_no_overlap() -> None:
    parts = [entry(1, 512, 51200, extended=True, type="0x0f"), entry(5, 1024, 512)]
    assert codes(divide(disk(), table(*parts))) == []


def test_numbers_of_layers() -> None:
    """What the host refuses in a layer must not come out of any table that libblkid can read.

    Its numbers of sectors have 32 bits but for GPT, which it checks against the disk's size.
    """
    largest = (2**32 - 1) * 4096
    divide(disk(), table(entry(1, largest, largest)))
    assert largest * 2 < MAX_BYTES


EXTENTS = st.tuples(st.integers(0, 1200), st.integers(1, 400))
"""In sectors; the disk has 1000."""


@given(st.lists(EXTENTS, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=250, deadline=None)
def test_any_table(extents: list[tuple[int, int]], chance: object) -> None:
    entries = [entry(n, s * 512, z * 512) for n, (s, z) in enumerate(extents, 1)]
    chance.shuffle(entries)  # type: ignore[attr-defined]
    result = divide(disk(), table(*entries))
    inside = sorted((s, min(s + z, 1000)) for s, z in extents if s < 1000)
    overlap = any(right[0] < left[1] for left, right in pairwise(inside))
    assert tiles(result) is not overlap
    assert ("overlap" in [code for _, code in codes(result)]) is overlap
    beyond = {f"disk0/p{n}" for n, (s, z) in enumerate(extents, 1) if s + z > 1000}
    assert {layer for layer, code in codes(result) if code == "beyond-end"} == beyond
    covered = set()
    for start, end in ranges(result):
        covered |= set(range(start // 512, end // 512))
    assert covered == set(range(1000)), "every byte is accounted for"
    addresses = [volume.address for volume in result.volumes]
    addresses += [layer.address for layer in result.layers]
    assert len(set(addresses)) == len(addresses)
    assert {f"disk0/p{n}" for n in range(1, len(extents) + 1)} <= set(addresses)
    gaps = [(layer.offset, layer.size) for layer in result.layers if layer.kind is Kind.GAP]
    assert gaps == sorted(gaps)


@given(st.lists(EXTENTS, max_size=6), EXTENTS)
@settings(max_examples=100, deadline=None)
def test_extended_partition_owns_nothing(
    extents: list[tuple[int, int]], container: tuple[int, int]
) -> None:
    entries = [entry(n, s * 512, z * 512) for n, (s, z) in enumerate(extents, 5)]
    extended = entry(1, container[0] * 512, container[1] * 512, extended=True)
    without = divide(disk(), table(*entries))
    result = divide(disk(), table(*entries, extended))
    assert ranges(result) == ranges(without)
    assert codes(result) == codes(without)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The kernel's own view of the partitions, as /sys/block shows it."""
    from appliance.agent import device  # noqa: PLC0415

    base = tmp_path / "sys" / "block"
    base.mkdir(parents=True)

    def path(*parts: str) -> Path:
        return Path(*[str(part).replace("/sys/block", str(base)) for part in parts])

    monkeypatch.setattr(device, "Path", path)
    yield base
    assert os.path.isdir(base)  # noqa: PTH112


def test_node_of_the_kernel(kernel: Path) -> None:
    """Only a node that begins where the table says is taken for the partition."""
    for number, sector in ((1, 1), (2, 99)):
        (kernel / "nothing" / f"nothing{number}").mkdir(parents=True)
        (kernel / "nothing" / f"nothing{number}" / "start").write_text(f"{sector}\n")
    parts = [entry(1, 512, 512), entry(2, 1024, 512), entry(3, 2048, 512)]
    result = divide(disk(), table(*parts))
    assert [volume.node for volume in result.volumes] == ["/dev/nothing1", None, None]


def test_node_of_a_table_inside(kernel: Path) -> None:
    """The first partition of a table in a partition can begin where that one does."""
    (kernel / "nothing" / "nothing1").mkdir(parents=True)
    (kernel / "nothing" / "nothing1" / "start").write_text("1\n")
    device = Device("/dev/nothing", -1, SIZE, 512)
    whole = Volume("disk0", Kind.DISK, [], None, SIZE, device, 0, device.path)
    assert divide(whole, table(entry(1, 512, 512))).volumes[0].node == "/dev/nothing1"
    inside = Volume("disk0/p1", Kind.PARTITION, ["disk0"], 0, SIZE - 512, device, 0, None)
    assert divide(inside, table(entry(1, 512, 512))).volumes[0].node is None
    later = Volume("disk0/p1", Kind.PARTITION, ["disk0"], 512, SIZE - 512, device, 512, None)
    assert divide(later, table(entry(1, 512, 512))).volumes[0].node is None
    parts = [entry(9, 512, 5120), entry(1, 512, 512, parent=9, table_type="freebsd")]
    assert [volume.node for volume in divide(whole, table(*parts)).volumes] == [None]


@pytest.mark.parametrize("size", [0, -512, -(2**62)])
def test_partition_of_no_size(size: int) -> None:
    """libblkid gives a size below zero to a GPT entry that ends before it begins."""
    result = divide(disk(), table(entry(1, 512, size), kind="gpt"))
    assert result.volumes == []
    assert (result.layers[0].size, result.layers[0].status) == (0, Status.DAMAGED)
    assert codes(result) == [("disk0/p1", "impossible")]
    assert tiles(result)


@pytest.mark.parametrize("start", [-512, -(2**62)])
def test_partition_before_the_disk(start: int) -> None:
    result = divide(disk(), table(entry(1, start, 1024)))
    assert result.volumes == []
    assert codes(result) == [("disk0/p1", "impossible")]


@pytest.mark.parametrize("parent", [7, 1, 2, 3])
def test_parent_that_holds_no_table(parent: int) -> None:
    """It is missing, the entry itself, an extended partition, or nested: nothing is lost."""
    parts = [
        entry(1, 512, 512, parent=parent, table_type="freebsd"),
        entry(2, 5120, 5120, extended=True, type="0x05"),
        entry(3, 2048, 512, parent=9, table_type="freebsd"),
        entry(9, 2048, 1024),
    ]
    result = divide(disk(), table(*parts))
    assert {(each.address, each.parents[0]) for each in result.volumes} == {
        ("disk0/p1", "disk0"), ("disk0/p3", "disk0/p9"),
    }  # fmt: skip


@given(st.lists(EXTENTS, max_size=5), st.lists(EXTENTS, max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_table_in_a_partition(
    outer: list[tuple[int, int]], inner: list[tuple[int, int]]
) -> None:
    """Entries of all kinds of places: each has an address of its own, and lies in its parent."""
    entries = [entry(n, s * 512, z * 512) for n, (s, z) in enumerate([(200, 300), *outer], 1)]
    entries += [
        entry(n, s * 512, z * 512, parent=1, table_type="netbsd")
        for n, (s, z) in enumerate(inner, 20)
    ]
    result = divide(disk(), table(*entries))
    everything = [*result.volumes, *result.layers]
    addresses = [each.address for each in everything]
    assert len(set(addresses)) == len(addresses)
    assert {f"disk0/p{each.number}" for each in entries} <= set(addresses)
    sizes = {each.address: each.size for each in everything} | {"disk0": SIZE}
    covered: dict[str, set[int]] = {}
    for each in everything:
        assert each.offset is not None
        if each.size:
            assert each.offset + each.size <= sizes[each.parents[0]]
            place = range(each.offset // 512, (each.offset + each.size) // 512)
            covered.setdefault(each.parents[0], set()).update(place)
    assert covered["disk0"] == set(range(1000))
    if inner:
        assert covered["disk0/p1"] == set(range(300))


@pytest.mark.parametrize(
    ("kind", "type_", "expected"),
    [
        ("dos", "0x07", "NTFS/exFAT/HPFS"),
        ("bsd", "0x07", "4.2BSD (UFS)"),
        ("sun", "0x07", "Solaris var"),
        ("sgi", "0x07", "SGI EFS"),
        ("mac", "Apple_HFS", "Apple HFS/HFS+"),
        ("mac", "Apple_Nonsense", None),
        ("bsd", "0x83", None),
        ("minix", "0x81", "Minix"),
        ("gpt", "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "Linux filesystem"),
    ],
)
def test_the_table_decides_what_a_type_is_called(
    kind: str, type_: str, expected: str | None
) -> None:
    facts = divide(disk(), table(entry(1, 512, 512, type=type_), kind=kind)).volumes[0].partition
    assert facts is not None
    assert facts.type_name == expected
    assert facts.type == (type_ if kind == "mac" else type_.lower())


def test_number_that_needs_content_in_another_table() -> None:
    """0x41 is boot code in an MBR alone."""
    result = divide(disk(), table(entry(1, 512, 512, type="0x41"), kind="bsd"))
    assert not needs_no_content(result.volumes[0])


def test_type_names_are_keyed_as_they_are_looked_up() -> None:
    tables = [partition_types.TYPE_NAMES, *partition_types.NAMES_BY_TABLE.values()]
    assert all(key == key.lower() for names in tables for key in names)
    known = {name for names in tables for name in names.values()}
    assert known >= partition_types.WITHOUT_CONTENT
