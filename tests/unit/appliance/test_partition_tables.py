"""Tables of every kind on image files, from libblkid to layers; expected values by hand, and
compared with what fdisk, sfdisk and parted say of the same files."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from appliance.agent.blkid import Entry, PartitionTable, find_partitions
from appliance.agent.device import Device
from appliance.agent.partition import Partitions, check, divide, needs_no_content, read_table
from appliance.agent.volume import Volume
from appliance.layer import MAX_BYTES, Finding, Kind, Layer, Status
from tests.builders import sun
from tests.builders.apm import MacPart, make_apm
from tests.builders.bsd import EXT2, SWAP, UFS, UNUSED, Slice, put_disklabel
from tests.builders.command import execute, run
from tests.builders.disk import MIB, Partition, make_disk
from tests.builders.gpt_table import (
    DISK_UUID,
    EFI,
    Row,
    add_mbr_row,
    make_gpt,
    poke,
    protective_mbr,
    set_field,
    set_row,
)
from tests.builders.sparse import make_sparse

SIZE = 16 * MIB
SECTORS = SIZE // 512
SIZES = pytest.mark.parametrize("sector", [512, 4096])

Open = Callable[..., Volume]


@pytest.fixture
def volume() -> Iterator[Open]:
    """Opens an image file, or a part of it, as a volume of the guest."""
    with ExitStack() as stack:

        def open_volume(
            path: Path, sector: int = 512, start: int = 0, size: int | None = None
        ) -> Volume:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            whole = path.stat().st_size
            device = Device("/dev/nothing", fd, whole, sector)
            size = whole - start if size is None else size
            return Volume("disk0", Kind.DISK, [], None, size, device, start, device.path)

        yield open_volume


def table_of(disk: Volume) -> PartitionTable:
    table = read_table(disk)
    assert table is not None
    numbers = [entry.number for entry in table.entries]
    assert len(set(numbers)) == len(numbers), "no two entries share an address"
    return table


def layers_of(disk: Volume) -> tuple[dict[str, Volume | Layer], Partitions]:
    """Everything that a table leads to, by address, and that it is accounted for."""
    result = divide(disk, table_of(disk))
    everything: list[Volume | Layer] = [*result.volumes, *result.layers]
    by_address = {each.address: each for each in everything}
    assert len(by_address) == len(everything)
    return by_address, result


def rows(result: Partitions) -> list[tuple[str, str, int | None, int]]:
    """Address, parent, offset in the parent and size, in sectors of 512 bytes."""
    everything: list[Volume | Layer] = [*result.volumes, *result.layers]
    return sorted(
        (each.address, each.parents[0], (each.offset or 0) // 512, each.size // 512)
        for each in everything
    )


def tiles(result: Partitions, parent: str, size: int, *, but: set[str] | None = None) -> bool:
    """Whether what is in `parent` covers it without a hole or an overlap."""
    found = [
        (offset, offset + length)
        for address, above, offset, length in rows(result)
        if above == parent and address not in (but or set())
    ]
    ends = [(0, 0), *sorted(found), (size, size)]
    return all(left[1] == right[0] for left, right in pairwise(ends))


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.severity.value, finding.code) for finding in findings]


def by_sfdisk(path: Path) -> dict[int, tuple[int, int, str]]:
    """Number -> start, size and type, as sfdisk prints them."""
    table = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    return {
        int(re.findall(r"\d+$", row["node"])[0]): (row["start"], row["size"], row["type"].lower())
        for row in table["partitions"]
    }


def by_libblkid(disk: Volume, kind: str) -> dict[int, tuple[int, int, str]]:
    table = table_of(disk)
    assert table.type == kind
    return {
        entry.number: (entry.start // 512, entry.size // 512, entry.type.removeprefix("0x"))
        for entry in table.entries
    }


def entry(number: int, start: int, size: int, kind: int, parent: int | None = None) -> Entry:
    """One of libblkid's, in sectors of 512 bytes."""
    table = "dos" if parent is None else "freebsd"
    values = (f"0x{kind:02x}", None, None, 0, False, False, table, parent)
    return Entry(number, start * 512, size * 512, *values)


# --- GPT ----------------------------------------------------------------------------------------

GPT_ROWS = [Row(1, 256, 1255, EFI, "first"), Row(3, 2048, 3047, name="third")]


def gpt(folder: Path, sector: int, **options: int) -> Path:
    return make_gpt(folder / "disk", 4096 * sector, GPT_ROWS, sector=sector, **options)


def extents(table: PartitionTable, sector: int) -> list[tuple[int, int, int]]:
    """In sectors of the disk."""
    for entry in table.entries:
        assert entry.start % sector == entry.size % sector == 0
    return sorted((e.number, e.start // sector, e.size // sector) for e in table.entries)


TWO = [(1, 256, 1000), (3, 2048, 1000)]


@SIZES
def test_gpt(tmp_path: Path, volume: Open, sector: int) -> None:
    disk = volume(gpt(tmp_path, sector), sector)
    table = table_of(disk)
    assert (table.type, table.uuid) == ("gpt", DISK_UUID)
    assert extents(table, sector) == TWO
    assert check(disk, table) == []
    layers, result = layers_of(disk)
    first = layers["disk0/p1"]
    assert (first.offset, first.size) == (256 * sector, 1000 * sector)
    assert first.partition is not None
    assert (first.partition.type_name, first.partition.name) == ("EFI system", "first")
    assert tiles(result, "disk0", 4096 * sector // 512)


@SIZES
@pytest.mark.parametrize("sealed", [False, True])
def test_libblkid_takes_the_backup(tmp_path: Path, volume: Open, sector: int, sealed: bool) -> None:
    """Damage that a checksum shows, and a header that is right in itself but not in its place."""
    path = gpt(tmp_path, sector)
    set_row(path, "backup", Row(3, 2048, 2999), sector=sector)
    set_field(path, "primary", 24, b"\7", sector=sector, sealed=sealed)
    disk = volume(path, sector)
    table = find_partitions(disk.device.fd, disk.size, sector)
    assert table is not None
    assert extents(table, sector) == [(1, 256, 1000), (3, 2048, 952)]
    assert codes(check(disk, table)) == [("error", "gpt-primary-damaged")]
    assert "is good and was used" in check(disk, table)[0].message


@SIZES
def test_the_primary_copy_is_shown_where_both_are_good(
    tmp_path: Path, volume: Open, sector: int
) -> None:
    path = gpt(tmp_path, sector)
    set_row(path, "backup", Row(3, 2048, 2999), sector=sector)
    disk = volume(path, sector)
    table = table_of(disk)
    assert extents(table, sector) == TWO
    (finding,) = check(disk, table)
    assert finding.code == "gpt-copies-differ"
    assert "partitions 3; the first one is shown" in finding.message


@SIZES
def test_gpt_whose_end_is_missing(tmp_path: Path, volume: Open, sector: int) -> None:
    """libblkid refuses it, since its usable sectors are not all there."""
    path = gpt(tmp_path, sector)
    os.truncate(path, 3000 * sector)
    disk = volume(path, sector)
    assert find_partitions(disk.device.fd, disk.size, sector) is None
    table = table_of(disk)
    assert (table.type, table.uuid) == ("gpt", DISK_UUID)
    assert extents(table, sector) == TWO
    assert [entry.name for entry in table.entries] == ["first", "third"]
    assert codes(check(disk, table)) == [("warning", "gpt-backup-misplaced")]
    layers, result = layers_of(disk)
    assert layers["disk0/p3"].size == 952 * sector
    assert codes(result.findings) == [("error", "beyond-end")]


@pytest.mark.parametrize("options", [{"entry_size": 256}, {"count": 2048}])
def test_gpt_that_libblkid_may_not_read(
    tmp_path: Path, volume: Open, options: dict[str, int]
) -> None:
    """Some versions of it do; the result is the same."""
    rows = [Row(1, 600, 700, EFI, "first"), Row(3, 2048, 3047, name="third")]
    path = make_gpt(tmp_path / "disk", 4096 * 512, rows, **options)
    disk = volume(path)
    table = table_of(disk)
    assert extents(table, 512) == [(1, 600, 101), (3, 2048, 1000)]
    assert {n: row[:2] for n, row in by_sfdisk(path).items()} == {1: (600, 101), 3: (2048, 1000)}
    assert check(disk, table) == []


@SIZES
def test_entry_that_libblkid_leaves_out(tmp_path: Path, volume: Open, sector: int) -> None:
    path = gpt(tmp_path, sector)
    for copy in ("primary", "backup"):
        set_row(path, copy, Row(7, 4093, 4095), sector=sector)  # type: ignore[arg-type]
    disk = volume(path, sector)
    known = find_partitions(disk.device.fd, disk.size, sector)
    assert known is not None
    assert extents(known, sector) == TWO
    table = table_of(disk)
    assert extents(table, sector) == [*TWO, (7, 4093, 3)]
    assert codes(check(disk, table)) == [("warning", "gpt-outside-usable")]


@SIZES
@pytest.mark.parametrize(
    ("first", "last"), [(300, 200), (300, 299), (2**63, 2**63 + 5), (2**64 - 1, 2**64 - 1)]
)
def test_entry_that_makes_no_sense(
    tmp_path: Path, volume: Open, sector: int, first: int, last: int
) -> None:
    path = gpt(tmp_path, sector)
    for copy in ("primary", "backup"):
        set_row(path, copy, Row(2, first, last), sector=sector)  # type: ignore[arg-type]
    disk = volume(path, sector)
    layers, result = layers_of(disk)
    second = layers["disk0/p2"]
    assert isinstance(second, Layer)
    assert (second.status, second.size) == (Status.DAMAGED, 0)
    assert second.offset is not None
    assert second.offset <= MAX_BYTES
    (finding,) = result.findings
    assert finding.code == ("impossible" if first == 300 else "beyond-end")
    assert tiles(result, "disk0", 4096 * sector // 512, but={"disk0/p2"})


@SIZES
def test_gpt_in_the_middle_of_a_device(tmp_path: Path, volume: Open, sector: int) -> None:
    inner = gpt(tmp_path, sector).read_bytes()
    path = make_sparse(tmp_path / "device", 3 * MIB + len(inner))
    poke(path, MIB, inner)
    disk = volume(path, sector, MIB, len(inner))
    assert find_partitions(disk.device.fd, disk.size, sector) is None
    table = find_partitions(disk.device.fd, disk.size, sector, MIB)
    assert table is not None
    assert extents(table, sector) == TWO
    assert check(disk, table_of(disk)) == []
    layers, _ = layers_of(disk)
    first = layers["disk0/p1"]
    assert isinstance(first, Volume)
    assert (first.offset, first.start, first.node) == (256 * sector, MIB + 256 * sector, None)
    # And with the first copy damaged, whose place is from the start of the volume, too.
    poke(path, MIB + sector + 60, b"\xff")
    assert extents(table_of(disk), sector) == TWO
    assert codes(check(disk, table_of(disk))) == [("error", "gpt-primary-damaged")]


@pytest.mark.parametrize(("made", "seen"), [(512, 4096), (4096, 512)])
def test_gpt_for_another_sector_size(tmp_path: Path, volume: Open, made: int, seen: int) -> None:
    disk = volume(gpt(tmp_path, made), seen)
    assert read_table(disk) is None
    (finding,) = check(disk, None)
    assert (finding.code, finding.layer) == ("sector-size", "disk0")
    assert f"--sector-size {made}" in finding.message


@SIZES
def test_more_partitions_than_are_shown(tmp_path: Path, volume: Open, sector: int) -> None:
    rows = [Row(n, 1000 + n, 1000 + n) for n in range(1, 1101)]
    disk = volume(
        make_gpt(tmp_path / "disk", 4096 * sector, rows, sector=sector, count=1100), sector
    )
    table = table_of(disk)
    assert len(table.entries) == 1024
    assert codes(check(disk, table)) == [("error", "limit")]


# --- MBR beside a GPT ---------------------------------------------------------------------------


@SIZES
def test_hybrid(tmp_path: Path, volume: Open, sector: int) -> None:
    path = gpt(tmp_path, sector)
    add_mbr_row(path, 2, 0x83, 2048, 1000)
    add_mbr_row(path, 4, 0x07, 3100, 50)
    disk = volume(path, sector)
    table = table_of(disk)
    assert extents(table, sector) == TWO
    (finding,) = check(disk, table)
    assert codes([finding]) == [("warning", "hybrid-mbr")]
    assert (
        f"row 2, type 0x83 (Linux), {1000 * sector} bytes at byte {2048 * sector}, "
        "the same as disk0/p3; "
        f"row 4, type 0x07 (NTFS/exFAT/HPFS), {50 * sector} bytes at byte {3100 * sector}, "
        "not a partition of the GPT"
    ) in finding.message


@SIZES
@pytest.mark.parametrize("hybrid", [False, True])
def test_protective_mbr_without_gpt(
    tmp_path: Path, volume: Open, sector: int, hybrid: bool
) -> None:
    path = make_sparse(tmp_path / "disk", SIZE)
    poke(path, 0, protective_mbr(SIZE // sector - 1))
    if hybrid:
        add_mbr_row(path, 3, 0xAF, 40, 60)
    disk = volume(path, sector)
    assert read_table(disk) is None
    (finding,) = check(disk, None)
    assert codes([finding]) == [("error", "gpt-missing")]
    row = f"row 3, type 0xaf (HFS+), {60 * sector} bytes at byte {40 * sector}"
    assert (row in finding.message) is hybrid


def test_protective_mbr_with_a_damaged_gpt(tmp_path: Path, volume: Open) -> None:
    path = gpt(tmp_path, 512)
    for copy in ("primary", "backup"):
        set_field(path, copy, 60, b"\xff", sealed=False)  # type: ignore[arg-type]
    disk = volume(path)
    assert read_table(disk) is None
    assert codes(check(disk, None)) == [("error", "gpt-damaged")]
    add_mbr_row(path, 3, 0xAF, 40, 60)
    assert codes(check(disk, None)) == [("error", "gpt-damaged"), ("error", "gpt-missing")]


@SIZES
@pytest.mark.parametrize("wiped", [(446, 64), (510, 2), (0, 512)])
def test_gpt_without_a_protective_mbr(
    tmp_path: Path, volume: Open, sector: int, wiped: tuple[int, int]
) -> None:
    path = gpt(tmp_path, sector)
    poke(path, wiped[0], bytes(wiped[1]))
    disk = volume(path, sector)
    table = table_of(disk)
    assert extents(table, sector) == TWO
    assert codes(check(disk, table)) == [("warning", "no-protective-mbr")]


@SIZES
def test_mbr_in_place_of_the_protective_one(tmp_path: Path, volume: Open, sector: int) -> None:
    """libblkid and Linux go by the MBR then."""
    path = gpt(tmp_path, sector)
    poke(path, 446, bytes(64))
    add_mbr_row(path, 1, 0x83, 300, 100)
    disk = volume(path, sector)
    table = table_of(disk)
    assert table.type == "dos"
    assert extents(table, sector) == [(1, 300, 100)]
    (finding,) = check(disk, table)
    assert codes([finding]) == [("warning", "gpt-unused")]
    assert "with 2 partitions" in finding.message
    set_field(path, "primary", 0, b"x", sector=sector, sealed=False)
    assert codes(check(disk, table)) == [("info", "gpt-unused")]
    set_field(path, "backup", 0, b"x", sector=sector, sealed=False)
    assert check(disk, table) == []


@pytest.mark.parametrize("content", [b"", b"\xeb\x58\x90mkfs.fat", os.urandom(446)])
def test_nothing_to_check(tmp_path: Path, volume: Open, content: bytes) -> None:
    """A file system's boot sector, with text where an MBR has its rows."""
    path = make_sparse(tmp_path / "disk", SIZE)
    poke(path, 0, (content + 20 * b"This is not a bootable disk. ")[:510] + b"\x55\xaa")
    poke(path, 446 + 4, b"\xee")
    disk = volume(path)
    assert check(disk, None) == []
    assert check(volume(make_sparse(tmp_path / "small", 512)), None) == []


# --- MBR with large sectors ---------------------------------------------------------------------


@pytest.fixture
def large_mbr(tmp_path: Path) -> Path:
    """Sectors of 4096: p1 100–199, extended 1000–1999 with p5 1010–1059 and p6 1110–1209."""
    path = make_sparse(tmp_path / "disk", 4096 * 4096)
    poke(path, 440, struct.pack("<I", 0x12345678))
    for at, rows in (
        (0, [(0x83, 100, 100), (0x05, 1000, 1000)]),
        (1000, [(0x82, 10, 50), (0x05, 100, 110)]),
        (1100, [(0x83, 10, 100)]),
    ):
        for index, (kind, first, sectors) in enumerate(rows):
            row = bytes([0, 0, 2, 0, kind, 0, 0, 0]) + struct.pack("<II", first, sectors)
            poke(path, at * 4096 + 446 + 16 * index, row)
        poke(path, at * 4096 + 510, b"\x55\xaa")
    return path


def test_mbr_with_large_sectors(large_mbr: Path, volume: Open) -> None:
    disk = volume(large_mbr, 4096)
    layers, result = layers_of(disk)
    places = {
        address: ((each.offset or 0) // 4096, each.size // 4096)
        for address, each in layers.items()
        if each.partition
    }
    assert places == {
        "disk0/p1": (100, 100),
        "disk0/p2": (1000, 1000),
        "disk0/p5": (1010, 50),
        "disk0/p6": (1110, 100),
    }
    extended = layers["disk0/p2"].partition
    assert extended is not None
    assert extended.extended
    logical = layers["disk0/p5"].partition
    assert logical is not None
    assert logical.logical
    assert tiles(result, "disk0", SIZE // 512, but={"disk0/p2"})
    assert check(disk, table_of(disk)) == []
    lines = run("fdisk", "-b", "4096", "-l", large_mbr).decode().splitlines()
    theirs = [line.split()[:4] for line in lines if line.startswith(str(large_mbr))]
    assert [[row[0][-1], *row[1:]] for row in theirs] == [
        ["1", "100", "199", "100"],
        ["2", "1000", "1999", "1000"],
        ["5", "1010", "1059", "50"],
        ["6", "1110", "1209", "100"],
    ]


def test_extended_partition_in_the_middle_of_a_device(
    large_mbr: Path, tmp_path: Path, volume: Open
) -> None:
    inner = large_mbr.read_bytes()
    path = make_sparse(tmp_path / "device", 2 * MIB + len(inner))
    poke(path, MIB, inner)
    layers, _ = layers_of(volume(path, 4096, MIB, len(inner)))
    assert (layers["disk0/p2"].offset, layers["disk0/p2"].size) == (1000 * 4096, 1000 * 4096)
    last = layers["disk0/p6"]
    assert isinstance(last, Volume)
    assert last.start == MIB + 1110 * 4096


# --- MBR whose end is missing -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["82", "a5", "a6", "a9", "81", "63"])
def test_cut_off_in_a_partition_that_may_hold_a_table(
    tmp_path: Path, volume: Open, kind: str
) -> None:
    """Type 82 is both Solaris and Linux's swap: libblkid finds nothing on such a disk."""
    parts = [
        Partition(2048, 4096, "83", bootable=True),
        Partition(8192, 4096, "f"),
        Partition(8200, 100, "83"),
        Partition(9000, 200, "7"),
        Partition(20480, 12000, kind),
        Partition(10000, 2000, "8e"),
    ]
    path = make_disk(tmp_path / "disk", SIZE, "dos", parts, "0x12345678")
    whole = table_of(volume(path))
    os.truncate(path, 24000 * 512)
    disk = volume(path)
    assert find_partitions(disk.device.fd, disk.size, 512) is None
    table = table_of(disk)
    assert (table.type, table.uuid) == ("dos", "12345678")
    assert [row for row in table.entries if not row.extended] == [
        row for row in whole.entries if not row.extended
    ]
    layers, result = layers_of(disk)
    assert set(layers) >= {f"disk0/p{number}" for number in (1, 2, 3, 5, 6, 7)}
    assert layers["disk0/p2"].size == 4096 * 512
    assert [(each.layer, each.code) for each in result.findings] == [("disk0/p3", "beyond-end")]
    assert tiles(result, "disk0", 24000, but={"disk0/p2"})
    theirs = by_sfdisk(path)
    assert {n: row[:2] for n, row in theirs.items()} == {
        1: (2048, 4096), 2: (8192, 4096), 3: (20480, 12000),
        5: (8200, 100), 6: (9000, 200), 7: (10000, 2000),
    }  # fmt: skip


def test_endless_chain_on_a_cut_off_disk(tmp_path: Path, volume: Open) -> None:
    rows = [Partition(2048, 8192, "5"), Partition(4096, 512, "83"), Partition(20480, 12000, "82")]
    path = make_disk(tmp_path / "disk", SIZE, "dos", rows, "0x12345678")
    row = bytes([0, 0, 0, 0, 5, 0, 0, 0]) + struct.pack("<II", 0, 4096)
    poke(path, 2048 * 512 + 446 + 16, row)
    os.truncate(path, 24000 * 512)
    table = table_of(volume(path))
    assert [each.number for each in table.entries] == [1, 2, 5]


def test_whole_file_system_is_no_table(tmp_path: Path, volume: Open) -> None:
    """The rows of read_cut_table must all be possible ones."""
    path = make_sparse(tmp_path / "disk", SIZE)
    add_mbr_row(path, 1, 0x82, 100, SECTORS)
    assert table_of(volume(path)).type == "dos"
    poke(path, 446 + 48, b"x")
    assert read_table(volume(path)) is None


# --- BSD ----------------------------------------------------------------------------------------

MBR_ROWS = [
    Partition(2048, 16384, "a5"), Partition(20480, 2048, "83"), Partition(22528, 10240, "5"),
    Partition(22600, 1000, "83"),
]  # fmt: skip


def bsd_in_mbr(folder: Path, kind: str, base: int, **changes: Slice) -> Path:
    """A BSD label in p1. `base` is where its sectors count from: 0 the container, 2048 the disk."""
    rows = [Partition(2048, 16384, kind), *MBR_ROWS[1:]]
    path = make_disk(folder / "disk", SIZE, "dos", rows, "0x12345678")
    slices = {
        "a": Slice(base + 16, 4000),
        "b": Slice(base + 4096, 2000, SWAP),
        "c": Slice(base, 16384, UNUSED),
        "e": Slice(base + 8192, 8192),
    } | changes
    put_disklabel(path, slices, at=2048 * 512, sectors=16384)
    return path


@pytest.mark.parametrize(
    ("kind", "table", "base"),
    [
        ("a5", "freebsd", 0),
        ("a5", "freebsd", 2048),
        ("a6", "openbsd", 2048),
        ("a9", "netbsd", 2048),
    ],
)
def test_bsd_in_a_partition(tmp_path: Path, volume: Open, kind: str, table: str, base: int) -> None:
    """FreeBSD counts from the container since version 10, all others from the disk's start."""
    disk = volume(bsd_in_mbr(tmp_path, kind, base))
    layers, result = layers_of(disk)
    assert rows(result) == [
        ("disk0/gap0", "disk0", 0, 2048),
        ("disk0/gap1", "disk0", 18432, 2048),
        ("disk0/gap2", "disk0", 22528, 72),
        ("disk0/gap3", "disk0", 23600, 9168),
        ("disk0/p1", "disk0", 2048, 16384),
        ("disk0/p1/gap0", "disk0/p1", 0, 16),
        ("disk0/p1/gap1", "disk0/p1", 4016, 80),
        ("disk0/p1/gap2", "disk0/p1", 6096, 2096),
        ("disk0/p2", "disk0", 20480, 2048),
        ("disk0/p3", "disk0", 22528, 10240),
        ("disk0/p5", "disk0", 22600, 1000),
        ("disk0/p6", "disk0/p1", 16, 4000),
        ("disk0/p7", "disk0/p1", 4096, 2000),
        ("disk0/p8", "disk0/p1", 8192, 8192),
    ]
    assert result.findings == []
    assert tiles(result, "disk0", SECTORS, but={"disk0/p3"})
    assert tiles(result, "disk0/p1", 16384)
    container = layers["disk0/p1"]
    assert isinstance(container, Layer)
    assert container.status is Status.MAPPED
    assert container.table is not None
    assert (container.table.type, container.table.sector_size) == (table, 512)
    swap = layers["disk0/p7"]
    assert isinstance(swap, Volume)
    assert swap.start == (2048 + 4096) * 512
    assert swap.partition is not None
    assert (swap.partition.type, swap.partition.type_name) == ("0x01", "BSD swap")
    assert not swap.partition.logical


def test_bsd_label_is_right_for_fdisk(tmp_path: Path) -> None:
    path = bsd_in_mbr(tmp_path, "a5", 2048)
    lines = run("fdisk", path, stdin=b"b\np\nr\nq\n").decode().splitlines()
    assert b"incorrect checksum" not in execute("fdisk", path, stdin=b"b\np\nr\nq\n").stderr
    slices = {line.split()[0]: line.split()[1:6] for line in lines if re.match(r"[a-h] +\d", line)}
    assert {letter: [row[0], row[2], row[4]] for letter, row in slices.items()} == {
        "a": ["2064", "4000", "4.2BSD"],
        "b": ["6144", "2000", "swap"],
        "c": ["2048", "16384", "unused"],
        "e": ["10240", "8192", "4.2BSD"],
    }


def test_bsd_and_logical_partitions_share_no_number(tmp_path: Path, volume: Open) -> None:
    table = table_of(volume(bsd_in_mbr(tmp_path, "a5", 0)))
    assert [(entry.number, entry.parent, entry.table_type) for entry in table.entries] == [
        (1, None, "dos"), (2, None, "dos"), (3, None, "dos"), (5, None, "dos"),
        (6, 1, "freebsd"), (7, 1, "freebsd"), (8, 1, "freebsd"),
    ]  # fmt: skip


def test_bsd_slice_of_the_whole_partition(tmp_path: Path, volume: Open) -> None:
    """Slice c with a type: libblkid leaves it out. Slice d over nearly all of it: an overlap."""
    changes = {"c": Slice(0, 16384, UFS), "d": Slice(0, 16000, UFS)}
    _, result = layers_of(volume(bsd_in_mbr(tmp_path, "a5", 0, **changes)))
    slices = [row for row in rows(result) if row[1] == "disk0/p1" and "gap" not in row[0]]
    assert [row[2:] for row in slices] == [(16, 4000), (4096, 2000), (0, 16000), (8192, 8192)]
    assert codes(result.findings) == [("error", "overlap")] * 3
    assert "begins at byte 8192, inside disk0/p8 (until 8192000)" in result.findings[0].message


def test_bsd_container_that_is_cut_off(tmp_path: Path, volume: Open) -> None:
    """libblkid finds no table at all then, and nobody looks for the label."""
    path = bsd_in_mbr(tmp_path, "a5", 0)
    whole = table_of(volume(path)).entries
    os.truncate(path, (2048 + 5000) * 512)
    disk = volume(path)
    assert find_partitions(disk.device.fd, disk.size, 512) is None
    assert [each.number for each in table_of(disk).entries] == [1, 2, 3]
    layers, result = layers_of(disk)
    assert layers["disk0/p1"].size == 5000 * 512
    assert table_of(disk).entries[0] == whole[0]
    assert [(each.layer, each.code) for each in result.findings] == [
        (f"disk0/p{number}", "beyond-end") for number in (1, 2)
    ]


def test_nested_entries_that_are_cut_off(volume: Open, bsd_disk: Path) -> None:
    """Places are told from where the containing partition begins."""
    parts = [entry(1, 2048, 5000, 0xA5), entry(6, 6144, 2000, 7, parent=1)]
    parts.append(entry(7, 10240, 8192, 7, parent=1))
    result = divide(volume(bsd_disk), PartitionTable("dos", None, parts))
    layers: dict[str, Volume | Layer] = {each.address: each for each in result.volumes}
    layers |= {each.address: each for each in result.layers}
    assert layers["disk0/p6"].size == 904 * 512
    last = layers["disk0/p7"]
    assert isinstance(last, Layer)
    assert (last.status, last.offset, last.size) == (Status.DAMAGED, 8192 * 512, 0)
    words = {each.layer: each.message for each in result.findings}
    assert set(words) == {"disk0/p6", "disk0/p7"}
    assert f"at byte {6096 * 512}, but disk0/p1 has only {5000 * 512} bytes" in words["disk0/p6"]


def test_partition_for_bsd_without_a_label(tmp_path: Path, volume: Open) -> None:
    """It is a partition like all others then."""
    path = make_disk(tmp_path / "disk", SIZE, "dos", MBR_ROWS, "0x12345678")
    layers, _ = layers_of(volume(path))
    assert isinstance(layers["disk0/p1"], Volume)


@pytest.fixture
def bsd_disk(tmp_path: Path) -> Path:
    path = make_sparse(tmp_path / "disk", SIZE)
    slices = {
        "a": Slice(16, 4000),
        "b": Slice(4096, 2000, SWAP),
        "c": Slice(0, SECTORS, UFS),
        "e": Slice(8192, 8192, EXT2),
    }
    put_disklabel(path, slices, sectors=SECTORS)
    return path


def test_bsd_on_the_whole_disk(bsd_disk: Path, volume: Open) -> None:
    disk = volume(bsd_disk)
    layers, result = layers_of(disk)
    assert rows(result) == [
        ("disk0/gap0", "disk0", 0, 16),
        ("disk0/gap1", "disk0", 4016, 80),
        ("disk0/gap2", "disk0", 6096, 2096),
        ("disk0/gap3", "disk0", 16384, 16384),
        ("disk0/p1", "disk0", 16, 4000),
        ("disk0/p2", "disk0", 4096, 2000),
        ("disk0/p3", "disk0", 0, 32768),
        ("disk0/p4", "disk0", 8192, 8192),
    ]
    assert result.findings == []
    assert tiles(result, "disk0", SECTORS, but={"disk0/p3"})
    whole = layers["disk0/p3"]
    assert isinstance(whole, Layer), "nothing is looked for in it"
    assert whole.status is Status.MAPPED
    names = [each.partition.type_name for each in result.volumes if each.partition]
    # What NetBSD calls ext2 FreeBSD does not know, and the label does not say whose it is.
    assert names == ["4.2BSD (UFS)", "BSD swap", None]
    theirs = by_sfdisk(bsd_disk)
    assert {row[:2] for row in theirs.values()} == {
        (16, 4000), (4096, 2000), (0, 32768), (8192, 8192),
    }  # fmt: skip


def test_one_slice_is_looked_into(tmp_path: Path, volume: Open) -> None:
    """Where there is nothing but slice c, its content is the disk's."""
    path = make_sparse(tmp_path / "disk", SIZE)
    put_disklabel(path, {"c": Slice(0, SECTORS, UFS)}, sectors=SECTORS)
    layers, _ = layers_of(volume(path))
    assert isinstance(layers["disk0/p1"], Volume)


# --- Sun and SGI --------------------------------------------------------------------------------

SUN_SLICES = {
    1: sun.Slice(0, 6400, sun.SUN_ROOT),
    2: sun.Slice(6400, 6400, sun.SUN_SWAP),
    3: sun.Slice(0, SECTORS, sun.SUN_WHOLE),
    8: sun.Slice(12800, 19904, sun.SUN_LINUX),
}


def test_sun(tmp_path: Path, volume: Open) -> None:
    path = sun.make_sun(tmp_path / "disk", SIZE, SUN_SLICES)
    disk = volume(path)
    theirs = by_sfdisk(path)
    assert theirs == {
        1: (0, 6400, "2"), 2: (6400, 6400, "3"), 3: (0, 32768, "5"), 8: (12800, 19904, "83"),
    }  # fmt: skip
    ours = by_libblkid(disk, "sun")
    # libblkid leaves the slice for the whole disk out.
    assert ours == {1: (0, 6400, "02"), 2: (6400, 6400, "03"), 8: (12800, 19904, "83")}
    _, result = layers_of(disk)
    assert result.findings == []
    assert tiles(result, "disk0", SECTORS)
    names = [each.partition.type_name for each in result.volumes if each.partition]
    assert names == ["Solaris root", "Solaris swap", "Linux"]
    assert check(disk, table_of(disk)) == []


def test_sun_whole_disk_by_another_name(tmp_path: Path, volume: Open) -> None:
    slices = {**SUN_SLICES, 3: sun.Slice(0, SECTORS, sun.SUN_USR)}
    layers, result = layers_of(volume(sun.make_sun(tmp_path / "disk", SIZE, slices)))
    assert isinstance(layers["disk0/p3"], Layer)
    assert layers["disk0/p3"].size == SIZE
    assert result.findings == []
    assert [each.address for each in result.volumes] == ["disk0/p1", "disk0/p2", "disk0/p8"]


def test_sgi(tmp_path: Path, volume: Open) -> None:
    slices = {
        1: sun.Slice(4096, 20000, sun.SGI_XFS),
        2: sun.Slice(24096, 4000, sun.SGI_RAW),
        9: sun.Slice(0, 4096, sun.SGI_HEADER),
        11: sun.Slice(0, SECTORS, sun.SGI_VOLUME),
    }
    path = sun.make_sgi(tmp_path / "disk", SIZE, slices)
    disk = volume(path)
    theirs = by_sfdisk(path)
    assert theirs == {
        1: (4096, 20000, "a"), 2: (24096, 4000, "3"), 9: (0, 4096, "0"), 11: (0, 32768, "6"),
    }  # fmt: skip
    ours = by_libblkid(disk, "sgi")
    assert {number: (*row[:2], row[2].lstrip("0") or "0") for number, row in ours.items()} == theirs
    layers, result = layers_of(disk)
    assert result.findings == []
    assert tiles(result, "disk0", SECTORS, but={"disk0/p11"})
    assert isinstance(layers["disk0/p11"], Layer)
    header = layers["disk0/p9"]
    assert isinstance(header, Volume)
    assert needs_no_content(header)
    assert not any(needs_no_content(each) for each in result.volumes if each is not header)
    names = {each.address: each.partition.type_name for each in layers.values() if each.partition}
    assert names == {
        "disk0/p1": "SGI XFS",
        "disk0/p2": "SGI raw",
        "disk0/p9": "SGI volume header",
        "disk0/p11": "SGI entire volume",
    }


# --- Apple --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [512, 2048, 4096])
@SIZES
def test_apple(tmp_path: Path, volume: Open, block: int, sector: int) -> None:
    """The map's blocks count, whatever the disk's sectors are."""
    scale = block // 512
    parts = [
        MacPart(1, 63, "Apple_partition_map", "Apple"),
        MacPart(64, 1000, "Apple_HFS", "Macintosh HD ü"),
        MacPart(1064, SECTORS // scale - 1064, "Apple_Free"),
    ]
    path = make_apm(tmp_path / "disk", SIZE, parts, block=block)
    disk = volume(path, sector)
    _, result = layers_of(disk)
    assert rows(result) == [
        ("disk0/gap0", "disk0", 0, scale),
        ("disk0/p1", "disk0", scale, 63 * scale),
        ("disk0/p2", "disk0", 64 * scale, 1000 * scale),
        ("disk0/p3", "disk0", 1064 * scale, SECTORS - 1064 * scale),
    ]
    assert result.findings == []
    facts = [each.partition for each in result.volumes if each.partition]
    assert [each.type for each in facts] == ["Apple_partition_map", "Apple_HFS", "Apple_Free"]
    assert [each.type_name for each in facts] == [
        "Apple partition map", "Apple HFS/HFS+", "Apple free space",
    ]  # fmt: skip
    assert (facts[0].name, facts[2].name) == ("Apple", None)
    assert [needs_no_content(each) for each in result.volumes] == [True, False, True]
    assert not any(each.bootable for each in facts)
    assert check(disk, table_of(disk)) == []


def test_apple_map_is_right_for_parted(tmp_path: Path) -> None:
    parts = [
        MacPart(1, 63, "Apple_partition_map", "Apple"),
        MacPart(64, 4000, "Apple_HFS", "disk"),
        MacPart(4064, 28704, "Apple_Free"),
    ]
    path = make_apm(tmp_path / "disk", SIZE, parts)
    lines = run("parted", "--script", "--machine", path, "unit", "s", "print").decode().splitlines()
    assert lines[1].split(":")[1:6] == ["32768s", "file", "512", "512", "mac"]
    # It does not list free space.
    assert [line.rstrip(";").split(":")[:4] for line in lines[2:]] == [
        ["1", "1s", "63s", "63s"],
        ["2", "64s", "4063s", "4000s"],
    ]


@pytest.mark.parametrize("kind", ["dos", "gpt", "freebsd", "sun", "mac"])
def test_the_same_as_blkid(tmp_path: Path, kind: str, volume: Open) -> None:
    """The program's low-level probe names the same table."""
    path = {
        "dos": lambda: make_disk(tmp_path / "disk", SIZE, "dos", MBR_ROWS),
        "gpt": lambda: gpt(tmp_path, 512),
        "freebsd": lambda: bsd_in_mbr(tmp_path, "a5", 0),
        "sun": lambda: sun.make_sun(tmp_path / "disk", SIZE, SUN_SLICES),
        "mac": lambda: make_apm(tmp_path / "disk", SIZE, [MacPart(1, 63, "Apple_partition_map")]),
    }[kind]()
    theirs = run("blkid", "-p", "-o", "value", "-s", "PTTYPE", path).decode().strip()
    assert table_of(volume(path)).type == theirs
