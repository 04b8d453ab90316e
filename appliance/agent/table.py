"""A volume's partition table as libblkid reads it, completed and checked where it is a GPT."""

from __future__ import annotations

from appliance.agent import gpt_findings, mbr
from appliance.agent.blkid import MAX_PARTITIONS, Entry, PartitionTable, find_partitions
from appliance.agent.gpt import Copy, Gpt, read_gpt
from appliance.agent.volume import Volume
from appliance.layer import Finding, Severity


def read_table(disk: Volume) -> PartitionTable | None:
    """The volume's partition table, None where there is none. Raises BlkidError.

    libblkid leaves out what it does not like of a GPT: all of it where the disk's end is missing,
    an entry has not 128 bytes, or there is an empty MBR; and single entries outside of the usable
    sectors. These are added if a copy has good checksums.
    """
    sector = disk.device.sector_size
    table = find_partitions(disk.device.fd, disk.size, sector, disk.start)
    if table is None:
        table = mbr.read_cut_table(disk.read, disk.size, sector)
    if table is not None and table.type != "gpt" and table.entries:
        return table
    best = read_gpt(disk.read, disk.size, sector).best
    if best is None or best.header is None:
        return table
    known = table if table and table.type == "gpt" else None
    known = known or PartitionTable("gpt", best.header.disk_uuid, [])
    numbers = {entry.number for entry in known.entries}
    missing = [entry for entry in _gpt_entries(best, sector) if entry.number not in numbers]
    entries = [*known.entries, *missing][:MAX_PARTITIONS]
    return PartitionTable(known.type, known.uuid, entries)


def _gpt_entries(copy: Copy, sector: int) -> list[Entry]:
    return [
        Entry(
            number=entry.number,
            start=entry.first * sector,
            size=(entry.last - entry.first + 1) * sector,
            type=entry.type,
            name=entry.name or None,
            uuid=entry.uuid,
            flags=entry.attributes,
            extended=False,
            logical=False,
            table_type="gpt",
        )
        for entry in copy.entries.values()
    ]


def check(disk: Volume, table: PartitionTable | None) -> list[Finding]:
    """What is wrong with the GPT of a volume whose table `read_table` gave, and with its MBR."""
    sector = disk.device.sector_size
    found = read_gpt(disk.read, disk.size, sector)
    if table is not None and table.type != "gpt":
        return _unused_gpt(disk, found, table)
    shown = _shown(found, table) if table else None
    findings = gpt_findings.findings(disk.address, found, shown)
    rows = mbr.read_rows(disk.read, sector)
    if found.best:
        extents = [(e.number, e.start, e.size) for e in _gpt_entries(found.best, sector)]
        findings += mbr.findings(disk.address, rows, extents)
    elif not found.other_sector and (not found.is_present or mbr.unprotected(rows)):
        findings += mbr.findings(disk.address, rows, None)
    if len(found.best.entries if found.best else ()) > MAX_PARTITIONS:
        text = f"the GPT has more than {MAX_PARTITIONS} partitions; the rest is not shown"
        findings.append(Finding(Severity.ERROR, disk.address, "limit", text))
    return findings


def _shown(gpt: Gpt, table: PartitionTable) -> Copy | None:
    """The copy that the table's entries are from; libblkid does not tell."""
    entries = {(entry.number, entry.start, entry.size, entry.uuid) for entry in table.entries}
    for copy in (gpt.primary, gpt.backup):
        known = {(e.number, e.start, e.size, e.uuid) for e in _gpt_entries(copy, gpt.sector)}
        if copy.is_good and entries == known:
            return copy
    return None


def _unused_gpt(disk: Volume, found: Gpt, table: PartitionTable) -> list[Finding]:
    if found.best is None:
        return []
    # A backup alone is what is left when somebody made another table: no reason for alarm.
    severity = Severity.WARNING if found.best is found.primary else Severity.INFO
    text = (
        f"the partitions are those of the {table.type} table, but there is a good GPT too, with "
        f"{len(found.best.entries)} partitions; it is not shown"
    )
    return [Finding(severity, disk.address, "gpt-unused", text)]
