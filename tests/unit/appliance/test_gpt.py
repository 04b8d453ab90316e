"""Both copies of a GPT: what is wrong with each, and where they differ.

Disks are of 4096 sectors. With 128 entries of 128 bytes the backup's header is in the last sector;
its entries are in the 32 sectors (of 512 bytes) or 4 sectors (of 4096) before that.
"""

from __future__ import annotations

import errno
import json
import os
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.agent import gpt_findings
from appliance.agent.gpt import MAX_TABLE, Gpt, GptEntry, Read, read_gpt
from appliance.layer import MAX_TEXT, Severity
from tests.builders.command import execute, run
from tests.builders.gpt_table import (
    ALTERNATE,
    COUNT,
    DISK_UUID,
    EFI,
    ENTRIES_LBA,
    ENTRY_SIZE,
    LINUX,
    MY_LBA,
    Copy,
    Row,
    make_gpt,
    poke,
    set_field,
    set_row,
)

SECTORS = 4096
ROWS = [Row(1, 256, 1255, EFI, "EFI Übung"), Row(3, 2048, 3047, attributes=4), Row(128, 3048, 3048)]
SIZES = pytest.mark.parametrize("sector", [512, 4096])

FIRST = GptEntry(1, EFI, "9a470000-0000-4000-8000-000000000001", 256, 1255, 0, "EFI Übung")
THIRD = GptEntry(3, LINUX, "9a470000-0000-4000-8000-000000000003", 2048, 3047, 4, "")
LAST = GptEntry(128, LINUX, "9a470000-0000-4000-8000-000000000128", 3048, 3048, 0, "")


def reader(content: bytes) -> Read:
    return lambda offset, length: content[offset : offset + length]


def parsed(content: bytes, sector: int) -> Gpt:
    return read_gpt(reader(content), len(content), sector)


def disk(folder: Path, sector: int, **options: int) -> Path:
    return make_gpt(folder / "disk", SECTORS * sector, ROWS, sector=sector, **options)


def found(path: Path, sector: int) -> Gpt:
    return parsed(path.read_bytes(), sector)


def told(gpt: Gpt) -> list[tuple[str, str]]:
    findings = gpt_findings.findings("disk0", gpt, gpt.best)
    assert all(finding.layer == "disk0" for finding in findings)
    return [(finding.severity.value, finding.code) for finding in findings]


def messages(gpt: Gpt) -> str:
    return "\n".join(each.message for each in gpt_findings.findings("disk0", gpt, gpt.best))


def number(value: int, length: int) -> bytes:
    return value.to_bytes(length, "little")


# --- a good one ---------------------------------------------------------------------------------


@SIZES
def test_good(tmp_path: Path, sector: int) -> None:
    gpt = found(disk(tmp_path, sector), sector)
    assert (gpt.primary.lba, gpt.backup.lba) == (1, 4095)
    for copy in (gpt.primary, gpt.backup):
        assert copy.is_good
        assert (copy.problems, copy.remarks) == ([], [])
        assert copy.entries == {1: FIRST, 3: THIRD, 128: LAST}
        assert copy.header is not None
        assert copy.header.disk_uuid == DISK_UUID
    assert gpt.best is gpt.primary
    assert (gpt.differing, gpt.disk_uuids_differ, gpt.stray, gpt.other_sector) == (
        [], False, None, None,
    )  # fmt: skip
    assert told(gpt) == []


@SIZES
def test_builder_is_right_for_fdisk(tmp_path: Path, sector: int) -> None:
    path = disk(tmp_path, sector)
    lines = run("fdisk", "-b", str(sector), "-l", path).decode().splitlines()
    assert "Disklabel type: gpt" in lines
    assert f"Disk identifier: {DISK_UUID.upper()}" in lines
    rows = [line.split()[:4] for line in lines if line.startswith(str(path))]
    assert rows == [
        [f"{path}1", "256", "1255", "1000"],
        [f"{path}3", "2048", "3047", "1000"],
        [f"{path}128", "3048", "3048", "1"],
    ]


@pytest.mark.parametrize("options", [{}, {"entry_size": 256}, {"count": 256}])
def test_the_same_as_sfdisk(tmp_path: Path, options: dict[str, int]) -> None:
    path = disk(tmp_path, 512, **options)
    assert b"No errors detected" in execute("sfdisk", "--verify", path).stdout
    theirs = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    best = found(path, 512).best
    assert best is not None
    assert best.header is not None
    assert (best.header.first_usable, best.header.last_usable) == (
        theirs["firstlba"],
        theirs["lastlba"],
    )
    ours = [
        (e.first, e.last - e.first + 1, e.type.upper(), e.uuid.upper(), e.name)
        for e in best.entries.values()
    ]
    assert ours == [
        (row["start"], row["size"], row["type"], row["uuid"], row.get("name", ""))
        for row in theirs["partitions"]
    ]


def test_what_sfdisk_writes(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SECTORS * 512))
    script = f'label: gpt\nlabel-id: {DISK_UUID}\n2 : start=2048, size=100, name="x"\n'
    run("sfdisk", "--quiet", path, stdin=script.encode())
    gpt = found(path, 512)
    assert told(gpt) == []
    (entry,) = gpt.backup.entries.values()
    assert (entry.number, entry.type, entry.first, entry.last) == (2, LINUX, 2048, 2147)
    assert entry.name == "x"


# --- damage -------------------------------------------------------------------------------------


def flip(path: Path, offset: int, bit: int = 1) -> None:
    poke(path, offset, bytes([path.read_bytes()[offset] ^ bit]))


def offset_of(copy: Copy, sector: int) -> int:
    return sector if copy == "primary" else 4095 * sector


def entries_of(copy: Copy, sector: int) -> int:
    return 2 * sector if copy == "primary" else 4095 * sector - 128 * 128


Damage = Callable[[Path, Copy, int], None]


def header_bit(offset: int) -> Damage:
    return lambda path, copy, sector: flip(path, offset_of(copy, sector) + offset)


def entry_bit(offset: int) -> Damage:
    return lambda path, copy, sector: flip(path, entries_of(copy, sector) + offset)


def fields(*values: tuple[int, bytes], sealed: bool = True) -> Damage:
    def change(path: Path, copy: Copy, sector: int) -> None:
        for offset, value in values:
            set_field(path, copy, offset, value, sector=sector, sealed=sealed)

    return change


DAMAGE: dict[str, tuple[Damage, str]] = {
    "no signature": (fields((0, b"EFI_PART"), sealed=False), "there is no header"),
    "a bit of the header": (header_bit(60), "header's checksum"),
    "the last byte of the header": (header_bit(91), "header's checksum"),
    "the first bit of the entries": (entry_bit(0), "the checksum of its entries"),
    "the last byte of the entries": (entry_bit(128 * 128 - 1), "the checksum of its entries"),
    "length below the smallest": (fields((12, number(91, 4)), sealed=False), "of 91 bytes"),
    "length above the sector": (fields((12, number(4097, 4)), sealed=False), "of 4097 bytes"),
    "another place": (fields((MY_LBA, number(7, 8))), "says that it is in 7"),
    "usable backwards": (fields((40, number(4000, 8)), (48, number(3999, 8))), "is behind its"),
    "entries outside": (fields((ENTRIES_LBA, number(4096, 8))), "outside of the disk"),
    "entries nowhere": (fields((ENTRIES_LBA, number(0, 8))), "outside of the disk"),
    "entries over the end": (fields((ENTRIES_LBA, number(4095, 8))), "beyond the end"),
    "odd size of entries": (fields((ENTRY_SIZE, number(192, 4))), "192 bytes each"),
    "small entries": (fields((ENTRY_SIZE, number(64, 4))), "64 bytes each"),
    "no entries": (fields((COUNT, number(0, 4))), "it has 0 entries"),
}


@SIZES
@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_primary(tmp_path: Path, sector: int, case: str) -> None:
    path = disk(tmp_path, sector)
    damage, words = DAMAGE[case]
    damage(path, "primary", sector)
    gpt = found(path, sector)
    assert not gpt.primary.is_good
    assert gpt.primary.entries == {}
    assert words in " ".join(gpt.primary.problems)
    assert gpt.best is gpt.backup
    assert gpt.backup.entries == {1: FIRST, 3: THIRD, 128: LAST}
    assert told(gpt) == [("error", "gpt-primary-damaged")]
    assert words in messages(gpt)
    assert "in sector 4095, is good and was used" in messages(gpt)


@SIZES
@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_backup(tmp_path: Path, sector: int, case: str) -> None:
    path = disk(tmp_path, sector)
    damage, words = DAMAGE[case]
    damage(path, "backup", sector)
    gpt = found(path, sector)
    assert gpt.best is gpt.primary
    assert words in " ".join(gpt.backup.problems)
    assert told(gpt) == [("warning", "gpt-backup-damaged")]
    assert words in messages(gpt)


@SIZES
def test_both_damaged(tmp_path: Path, sector: int) -> None:
    path = disk(tmp_path, sector)
    flip(path, sector + 60)
    flip(path, entries_of("backup", sector))
    gpt = found(path, sector)
    assert gpt.best is None
    assert gpt.is_present
    assert told(gpt) == [("error", "gpt-damaged")]
    assert "of the first one its header's checksum" in messages(gpt)
    assert "of the second one the checksum of its entries" in messages(gpt)


def test_checksums_are_named(tmp_path: Path) -> None:
    path = disk(tmp_path, 512)
    stored = path.read_bytes()[512 + 16 : 512 + 20][::-1].hex()
    flip(path, 512 + 60)
    assert f"checksum is {stored}, but the content's " in messages(found(path, 512))


def test_too_many_entries(tmp_path: Path) -> None:
    path = disk(tmp_path, 512)
    for size, count in ((128, 32769), (4096, 1025)):
        set_field(path, "primary", ENTRY_SIZE, number(size, 4), sealed=False)
        set_field(path, "primary", COUNT, number(count, 4))
        asked: list[int] = []
        content = path.read_bytes()

        def read(offset: int, length: int, content: bytes = content) -> bytes:
            asked.append(length)  # noqa: B023
            return content[offset : offset + length]

        gpt = read_gpt(read, len(content), 512)
        assert gpt.primary.problems == [
            f"it has {count} entries; up to {MAX_TABLE // size} are read"
        ]
        assert max(asked) <= 128 * 128


@SIZES
def test_revision_is_odd_but_harmless(tmp_path: Path, sector: int) -> None:
    path = disk(tmp_path, sector)
    set_field(path, "backup", 8, number(0x20000, 4), sector=sector)
    gpt = found(path, sector)
    assert gpt.backup.is_good
    assert told(gpt) == [("warning", "gpt-odd")]
    assert "second copy" in messages(gpt)
    assert "0x00020000" in messages(gpt)


@SIZES
def test_sectors_that_cannot_be_read(tmp_path: Path, sector: int) -> None:
    content = disk(tmp_path, sector).read_bytes()

    def bad(start: int, end: int) -> Read:
        def read(offset: int, length: int) -> bytes:
            if offset < end and offset + length > start:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return content[offset : offset + length]

        return read

    header = read_gpt(bad(sector, sector + 1), len(content), sector)
    assert header.primary.problems == ["its header cannot be read: Input/output error"]
    assert header.best is header.backup
    assert not header.primary.header
    assert told(header) == [("error", "gpt-primary-damaged")]
    entries = read_gpt(bad(3 * sector, 3 * sector + 1), len(content), sector)
    assert entries.primary.problems == ["its entries cannot be read: Input/output error"]
    nothing = read_gpt(bad(0, len(content)), len(content), sector)
    assert nothing.best is None
    assert told(nothing) == []


# --- copies that differ -------------------------------------------------------------------------


@SIZES
@pytest.mark.parametrize(
    "row",
    [
        Row(3, 2048, 3046, attributes=4),
        Row(3, 2047, 3047, attributes=4),
        Row(3, 2048, 3047, EFI, attributes=4),
        Row(3, 2048, 3047, name="x", attributes=4),
        Row(3, 2048, 3047),
    ],
)
def test_copies_differ(tmp_path: Path, sector: int, row: Row) -> None:
    path = disk(tmp_path, sector)
    set_row(path, "backup", row, sector=sector)
    gpt = found(path, sector)
    assert gpt.primary.is_good
    assert gpt.backup.is_good
    assert gpt.differing == [3]
    assert told(gpt) == [("error", "gpt-copies-differ")]
    assert "in the partitions 3; the first one is shown" in messages(gpt)


@SIZES
def test_partitions_of_one_copy_alone(tmp_path: Path, sector: int) -> None:
    path = disk(tmp_path, sector)
    set_row(path, "backup", Row(2, 1300, 1400), sector=sector)
    unused = "00000000-0000-0000-0000-000000000000"
    set_row(path, "backup", Row(128, 0, 0, unused), sector=sector)
    set_row(path, "primary", Row(9, 1500, 1600), sector=sector)
    gpt = found(path, sector)
    assert gpt.differing == [2, 9, 128]
    assert "in the partitions 2, 9, 128" in messages(gpt)


def test_which_copy_is_shown(tmp_path: Path) -> None:
    path = disk(tmp_path, 512)
    set_row(path, "backup", Row(2, 1300, 1400))
    gpt = found(path, 512)
    for shown, words in ((gpt.primary, "first one"), (gpt.backup, "second one"), (None, "")):
        (finding,) = gpt_findings.findings("disk0", gpt, shown)
        assert ("is shown" in finding.message) is bool(words)
        assert words in finding.message


def test_disk_guids_differ(tmp_path: Path) -> None:
    path = disk(tmp_path, 512)
    set_field(path, "backup", 56, bytes(16))
    gpt = found(path, 512)
    assert gpt.disk_uuids_differ
    assert gpt.differing == []
    assert told(gpt) == [("error", "gpt-copies-differ")]
    assert "differ in the disk's GUID" in messages(gpt)


def test_very_many_differences(tmp_path: Path) -> None:
    rows = [Row(n, 1100 + n, 1100 + n) for n in range(1, 1501)]
    path = make_gpt(tmp_path / "disk", SECTORS * 512, rows, count=2048)
    content = bytearray(path.read_bytes())
    backup = 4095 * 512 - 2048 * 128
    content[backup : backup + 2048 * 128] = bytes(2048 * 128)
    path.write_bytes(content)
    set_field(path, "backup", 56, bytes(16))
    gpt = found(path, 512)
    assert len(gpt.differing) == 1500
    (finding,) = gpt_findings.findings("disk0", gpt, gpt.best)
    assert "and 1468 more" in finding.message
    assert len(finding.message) < MAX_TEXT


# --- places -------------------------------------------------------------------------------------


@SIZES
def test_grown(tmp_path: Path, sector: int) -> None:
    path = disk(tmp_path, sector)
    os.truncate(path, 5000 * sector)
    gpt = found(path, sector)
    assert gpt.backup.lba == 4095
    assert gpt.backup.is_good
    assert gpt.stray is None
    assert told(gpt) == [("warning", "gpt-backup-misplaced")]
    assert "is in sector 4095 and not in the last one, 4999" in messages(gpt)


@SIZES
def test_grown_and_repaired_without_the_primary(tmp_path: Path, sector: int) -> None:
    """Two backups: the one that the primary copy names counts, the other is told."""
    path = disk(tmp_path, sector)
    content = path.read_bytes()
    os.truncate(path, 5000 * sector)
    poke(path, 4999 * sector, content[4095 * sector :])
    gpt = found(path, sector)
    assert gpt.backup.lba == 4095
    assert gpt.stray is not None
    assert gpt.stray.lba == 4999
    assert told(gpt) == [("warning", "gpt-backup-misplaced")]
    assert "the last sector has a header too" in messages(gpt)


@SIZES
def test_grown_with_a_damaged_primary(tmp_path: Path, sector: int) -> None:
    """What a damaged header says of the backup's place is tried."""
    path = disk(tmp_path, sector)
    os.truncate(path, 5000 * sector)
    flip(path, sector + 60)
    gpt = found(path, sector)
    assert gpt.best is gpt.backup
    assert gpt.backup.lba == 4095
    assert told(gpt) == [("error", "gpt-primary-damaged")]


@SIZES
def test_cut_off(tmp_path: Path, sector: int) -> None:
    path = disk(tmp_path, sector)
    os.truncate(path, 4000 * sector)
    gpt = found(path, sector)
    assert gpt.best is gpt.primary
    assert gpt.primary.entries == {1: FIRST, 3: THIRD, 128: LAST}
    assert told(gpt) == [("warning", "gpt-backup-misplaced")]
    assert "belongs in sector 4095, but the disk ends with sector 3999" in messages(gpt)
    assert "the end of the disk is missing" in messages(gpt)


@SIZES
def test_backup_elsewhere_is_damaged(tmp_path: Path, sector: int) -> None:
    path = disk(tmp_path, sector)
    set_field(path, "primary", ALTERNATE, number(3500, 8), sector=sector)
    gpt = found(path, sector)
    assert gpt.primary.is_good
    # The good copy at the end is taken, though the primary one does not name it.
    assert gpt.backup.lba == 4095
    assert told(gpt) == [("warning", "gpt-backup-misplaced")]
    flip(path, 4095 * sector + 60)
    gpt = found(path, sector)
    assert gpt.backup.lba == 3500
    assert told(gpt) == [("warning", "gpt-backup-damaged"), ("warning", "gpt-backup-misplaced")]


@SIZES
@pytest.mark.parametrize("ends", [(1, 40), (1, 1), (4000, 4095), (3000, 2**64 - 1)])
def test_entry_outside_of_the_usable_sectors(
    tmp_path: Path, sector: int, ends: tuple[int, int]
) -> None:
    path = disk(tmp_path, sector)
    usable = (34, 4062) if sector == 512 else (6, 4090)
    for copy in ("primary", "backup"):
        set_row(path, copy, Row(5, *ends), sector=sector)  # type: ignore[arg-type]
    gpt = found(path, sector)
    assert told(gpt) == [("warning", "gpt-outside-usable")]
    assert f"{usable[0]} to {usable[1]}: partitions 5" in messages(gpt)


# --- sector sizes -------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "seen"), [(512, 4096), (4096, 512)])
def test_made_for_another_sector_size(tmp_path: Path, made: int, seen: int) -> None:
    path = disk(tmp_path, made)
    gpt = found(path, seen)
    assert gpt.best is None
    assert gpt.other_sector == made
    assert told(gpt) == [("error", "sector-size")]
    assert f"--sector-size {made}" in messages(gpt)
    assert found(path, made).other_sector is None


@pytest.mark.parametrize(("made", "seen"), [(512, 4096), (4096, 512)])
def test_made_for_another_sector_size_and_damaged(tmp_path: Path, made: int, seen: int) -> None:
    path = disk(tmp_path, made)
    flip(path, made + 60)
    gpt = found(path, seen)
    assert told(gpt) == [("error", "sector-size")]


def test_one_for_each_sector_size(tmp_path: Path) -> None:
    """A disk that shows other partitions to those who take its sectors for larger ones."""
    path = make_gpt(tmp_path / "disk", SECTORS * 4096, ROWS[:2], count=40)
    # The entries for the small sectors make room for the header for the large ones at byte 4096.
    poke(path, 200 * 512, path.read_bytes()[1024 : 1024 + 40 * 128])
    set_field(path, "primary", ENTRIES_LBA, number(200, 8))
    other = make_gpt(tmp_path / "other", SECTORS * 4096, ROWS[:1], sector=4096).read_bytes()
    poke(path, 4096, other[4096 : 6 * 4096])
    small, large = found(path, 512), found(path, 4096)
    assert small.best is small.primary
    assert small.best.entries == {1: FIRST, 3: THIRD}
    assert told(small) == [("warning", "gpt-twice")]
    assert "for sectors of 4096 bytes too" in messages(small)
    assert large.best is large.primary
    assert large.best.entries == {1: FIRST}
    assert ("warning", "gpt-twice") in told(large)


# --- anything -----------------------------------------------------------------------------------


def test_nothing() -> None:
    for size in (0, 1, 512, 1024, 1536, 4096, 8192, 1 << 20):
        for sector in (512, 4096):
            gpt = parsed(bytes(size), sector)
            assert not gpt.is_present
            assert (gpt.best, gpt.other_sector, gpt.stray) == (None, None, None)
            assert told(gpt) == []


def test_name_that_is_not_text(tmp_path: Path) -> None:
    path = disk(tmp_path, 512)
    poke(path, 1024 + 56, b"a\0\x00\xd8b\0\x1b\0" + b"\xff" * 64)
    set_field(path, "primary", 8, number(0x10000, 4))
    name = found(path, 512).primary.entries[1].name
    assert name.startswith("a\ufffdb\x1b")


@cache
def good_disk(sector: int) -> bytes:
    with TemporaryDirectory() as folder:
        return disk(Path(folder), sector).read_bytes()


def survives(content: bytes, sector: int) -> None:
    begin = time.monotonic()
    gpt = parsed(content, sector)
    for shown in (gpt.best, None):
        for finding in gpt_findings.findings("disk0", gpt, shown):
            assert finding.severity in Severity
            assert finding.message.isprintable()
    assert time.monotonic() - begin < 2
    if gpt.best:
        assert len(gpt.best.entries) <= MAX_TABLE // 128
        assert not gpt.best.problems


@given(st.binary(max_size=20000), st.sampled_from([512, 4096]))
@settings(max_examples=200, deadline=None)
def test_random_bytes(content: bytes, sector: int) -> None:
    survives(content, sector)


@given(st.binary(max_size=512), st.sampled_from([512, 4096]), st.integers(3, 40))
@settings(max_examples=200, deadline=None)
def test_random_header(header: bytes, sector: int, sectors: int) -> None:
    content = bytearray(sectors * sector)
    content[sector : sector + 8 + len(header)] = b"EFI PART" + header
    survives(bytes(content[: sectors * sector]), sector)


PLACES = st.one_of(st.integers(0, 107), st.integers(512, 512 * 6))


@given(
    st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=8),
    st.sampled_from([512, 4096]),
    st.sampled_from(["primary", "backup"]),
)
@settings(max_examples=300, deadline=None)
@example([(16, 0)], 512, "primary")
def test_damaged_bytes(changes: list[tuple[int, int]], sector: int, copy: Copy) -> None:
    """A changed byte within a copy makes it bad; the other one stays good."""
    content = bytearray(good_disk(sector))
    header = sector if copy == "primary" else 4095 * sector
    entries = entries_of(copy, sector)
    before = bytes(content)
    for place, value in changes:
        at = header + place if place < 108 else entries + place - 512
        content[at] = value
    survives(bytes(content), sector)
    gpt = parsed(bytes(content), sector)
    ours, other = gpt.primary, gpt.backup
    if copy == "backup":
        ours, other = other, ours
    assert other.is_good
    # Behind the header's 92 bytes, and behind its 128 entries, nothing is checked.
    same = content[header : header + 92] == before[header : header + 92]
    same = same and content[entries : entries + 16384] == before[entries : entries + 16384]
    assert ours.is_good is same


@given(st.dictionaries(st.integers(8, 91), st.integers(0, 255), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_fields_with_a_right_checksum(fields: dict[int, int]) -> None:
    """The header says anything, and its checksum fits: what hostile images do."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "disk"
        path.write_bytes(good_disk(512))
        for offset, value in fields.items():
            poke(path, 512 + offset, bytes([value]))
        content = bytearray(path.read_bytes())
    length = int.from_bytes(content[524:528], "little")
    content[528:532] = bytes(4)
    content[528:532] = number(zlib.crc32(content[512 : 512 + min(length, 512)]), 4)
    survives(bytes(content), 512)
