"""The four rows of a master boot record beside a GPT: protective, hybrid, or misleading.

UEFI 2.10, chapter 5.2. Hybrid ones follow no specification; rodsbooks.com/gdisk/hybrid.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.agent.blkid import MAX_PARTITIONS, Entry, PartitionTable
from appliance.agent.gpt import Read
from appliance.agent.partition_types import type_name
from appliance.layer import Finding, Severity

PROTECTIVE = 0xEE

_EXTENDED = {0x05, 0x0F, 0x85}
_WITH_TABLE = {0x63, 0x81, 0x82, 0xA5, 0xA6, 0xA9}
"""Types in which libblkid looks for another table: UnixWare, Minix, Solaris (which is also Linux's
swap), FreeBSD, OpenBSD, NetBSD."""

_ROWS = 446
_ROW = struct.Struct("<B3sB3sII")
_SIGNATURE = b"\x55\xaa"


@dataclass(frozen=True, slots=True)
class Row:
    """A row that is in use; `start` and `size` in bytes."""

    number: int
    type: int
    start: int
    size: int
    active: int


def read_rows(read: Read, sector: int, at: int = 0) -> list[Row] | None:
    """The rows of the MBR (or extended boot record) at byte `at`, None where there is none."""
    try:
        untrusted = read(at, 512)
    except OSError:
        return None
    if untrusted[510:512] != _SIGNATURE:
        return None
    rows = []
    for index in range(4):
        active, _, kind, _, first, count = _ROW.unpack_from(untrusted, _ROWS + index * _ROW.size)
        if active not in {0x00, 0x80}:
            return None  # boot code, or the text of a file system's boot sector
        if kind and count:
            rows.append(Row(index + 1, kind, first * sector, count * sector, active))
    return rows


def read_cut_table(read: Read, size: int, sector: int) -> PartitionTable | None:
    """The table of a disk whose end is missing, where libblkid gives up; None in all other cases.

    It does so (2.38 to 2.41) if a partition of a type in which there may be another table ends
    behind the disk's end: a swap partition at the end of an image that was cut off, for example.
    """
    rows = read_rows(read, sector) or []
    cut = any(row.type in _WITH_TABLE and row.start + row.size > size for row in rows)
    if not cut or any(row.type == PROTECTIVE for row in rows):
        return None
    try:
        identity = read(440, 4)[::-1].hex()
    except OSError:
        identity = ""
    entries = [_entry(row, row.number, 0, identity) for row in rows]
    for row in rows:
        if row.type in _EXTENDED:
            entries += _logical(read, sector, row, identity, 5 + len(entries) - len(rows))
    return PartitionTable("dos", identity or None, entries)


def _logical(read: Read, sector: int, extended: Row, identity: str, number: int) -> list[Entry]:
    """Each extended boot record has a partition, counted from itself, and leads to the next one,
    which is counted from the extended partition."""
    entries: list[Entry] = []
    seen: set[int] = set()
    at: int | None = extended.start
    while at is not None and at not in seen and len(seen) < MAX_PARTITIONS:
        seen.add(at)
        rows = read_rows(read, sector, at) or []
        for row in rows[:2]:
            if row.type not in _EXTENDED:
                entries.append(_entry(row, number + len(entries), at, identity))
        following = [row.start for row in rows if row.type in _EXTENDED]
        at = extended.start + following[0] if following else None
    return entries


def _entry(row: Row, number: int, base: int, identity: str) -> Entry:
    return Entry(
        number=number,
        start=base + row.start,
        size=row.size,
        type=f"0x{row.type:02x}",
        name=None,
        uuid=f"{identity}-{number:02x}" if identity else None,
        flags=row.active,
        extended=row.type in _EXTENDED,
        logical=number > 4,
        table_type="dos",
    )


def unprotected(rows: Sequence[Row] | None) -> list[Row]:
    """The rows that are not there to protect a GPT."""
    return [row for row in rows or [] if row.type != PROTECTIVE]


def findings(
    volume_address: str,
    rows: Sequence[Row] | None,
    gpt_extents: Iterable[tuple[int, int, int]] | None,
) -> list[Finding]:
    """What is to be said of the MBR of a disk that has a GPT, or claims to have one.

    `gpt_extents` are number, start and size in bytes of the GPT's partitions, None where there is
    no good GPT.
    """
    protective = any(row.type == PROTECTIVE for row in rows or [])
    others = unprotected(rows)
    if gpt_extents is None:
        return _without_gpt(volume_address, others) if protective else []
    if others:
        places = {(start, size): number for number, start, size in gpt_extents}
        listed = "; ".join(_describe(row, volume_address, places) for row in others)
        text = f"besides the GPT, the MBR lists partitions (a hybrid MBR): {listed}"
        return [Finding(Severity.WARNING, volume_address, "hybrid-mbr", text)]
    if not protective:
        text = "the GPT has no protective MBR: systems that know only MBRs take the disk for empty"
        return [Finding(Severity.WARNING, volume_address, "no-protective-mbr", text)]
    return []


def _without_gpt(volume_address: str, others: Sequence[Row]) -> list[Finding]:
    text = "the MBR says that this disk has a GPT (type 0xee), but there is no good copy of one"
    if others:
        text += "; it also lists: " + "; ".join(
            _describe(row, volume_address, {}) for row in others
        )
    return [Finding(Severity.ERROR, volume_address, "gpt-missing", text)]


def _describe(row: Row, volume_address: str, places: dict[tuple[int, int], int]) -> str:
    kind = f"0x{row.type:02x}"
    name = type_name("dos", kind)
    text = f"row {row.number}, type {kind}{f' ({name})' if name else ''}, {row.size} bytes "
    text += f"at byte {row.start}"
    if not places:
        return text
    number = places.get((row.start, row.size))
    same = f"the same as {volume_address}/p{number}" if number else "not a partition of the GPT"
    return f"{text}, {same}"
