"""Partition tables: MBR with logical partitions, GPT, and what else libblkid reads.

Every byte of the disk is in exactly one partition or gap; an extended partition is only the
container of its logical ones and owns nothing itself. A table in a partition (a BSD label, say)
divides that partition, which then has no content of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.agent.blkid import Entry, PartitionTable
from appliance.agent.device import partition_node
from appliance.agent.partition_types import (
    WITHOUT_CONTENT,
    is_whole_disk,
    may_have_whole_disk,
    type_name,
)
from appliance.agent.table import check, read_table
from appliance.agent.volume import Volume
from appliance.layer import (
    MAX_BYTES,
    Finding,
    Kind,
    Layer,
    PartitionEntry,
    Severity,
    Status,
    Table,
)

__all__ = ["Partitions", "check", "divide", "needs_no_content", "read_table"]

_ACTIVE = {"gpt": 1 << 2, "dos": 0x80, "minix": 0x80}


@dataclass(frozen=True, slots=True)
class Partitions:
    """What a table describes: volumes to look into, layers without content, and findings."""

    volumes: list[Volume]
    layers: list[Layer]
    findings: list[Finding]


@dataclass(frozen=True, slots=True)
class _Place:
    """What a table divides: `size` bytes at `start` of the disk."""

    address: str
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


def needs_no_content(volume: Volume) -> bool:
    """Whether the partition's type says that there is nothing to recognise in it."""
    return volume.partition is not None and volume.partition.type_name in WITHOUT_CONTENT


def divide(disk: Volume, table: PartitionTable) -> Partitions:
    """Turn a disk's table into partitions and gaps that cover every byte of it once."""
    result = Partitions([], [], [])
    # Tables are nested only once; whatever claims more is shown as part of the outer one.
    containers = {e.number for e in table.entries if e.parent is None and not e.extended}
    outer = [entry for entry in table.entries if entry.parent not in containers]
    nested = {
        number: [entry for entry in table.entries if entry.parent == number]
        for number in containers
    }
    _Division(disk, table.type, nested, result).fill(_Place(disk.address, 0, disk.size), outer)
    return result


@dataclass(frozen=True, slots=True)
class _Division:
    """`nested` are the entries of tables in partitions, by the partition's number."""

    disk: Volume
    table_type: str
    nested: dict[int, list[Entry]]
    result: Partitions

    def fill(self, place: _Place, entries: Sequence[Entry]) -> None:
        """Divide one place by its own entries, and what is nested in them."""
        taken: list[_Place] = []
        for entry in sorted(entries, key=lambda entry: (entry.start, entry.number)):
            if entry.extended:
                self._leaf(place, entry, _extended_size(self.disk, entry), Status.MAPPED)
            elif entry.size <= 0 or not place.start <= entry.start < place.end:
                self._leaf(place, entry, 0, Status.DAMAGED)
                self.result.findings.append(self._impossible(place, entry))
            elif _is_whole(self._table_of(entry), entry, entries, place):
                size = min(entry.size, place.end - entry.start)
                self._leaf(place, entry, size, Status.MAPPED)
            else:
                taken.append(self._take(place, entry))
        self.result.findings.extend(_overlaps(place, taken))
        self.result.layers.extend(_gaps(place, taken))

    def _take(self, place: _Place, entry: Entry) -> _Place:
        size = min(entry.size, place.end - entry.start)
        own = _Place(f"{self.disk.address}/p{entry.number}", entry.start, size)
        if entry.start + entry.size > place.end:
            self.result.findings.append(_beyond_end(own.address, entry, place))
        inner = self.nested.get(entry.number, []) if entry.parent is None else []
        if not inner:
            self.result.volumes.append(self._volume(place, entry, own))
            return own
        table = Table(inner[0].table_type, None, self.disk.device.sector_size)
        self._leaf(place, entry, size, Status.MAPPED, table)
        self.fill(own, inner)
        return own

    def _volume(self, place: _Place, entry: Entry, own: _Place) -> Volume:
        disk = self.disk
        # The kernel's nodes are those of the whole device's outer table.
        whole = disk.start == 0 and disk.size == disk.device.size and entry.parent is None
        return Volume(
            address=own.address,
            kind=Kind.PARTITION,
            parents=[place.address],
            offset=own.start - place.start,
            size=own.size,
            device=disk.device,
            start=disk.start + own.start,
            node=partition_node(disk.device, entry.number, own.start) if whole else None,
            partition=self._facts(entry),
        )

    def _leaf(
        self, place: _Place, entry: Entry, size: int, status: Status, table: Table | None = None
    ) -> None:
        self.result.layers.append(
            Layer(
                address=f"{self.disk.address}/p{entry.number}",
                kind=Kind.PARTITION,
                parents=[place.address],
                offset=min(max(entry.start - place.start, 0), MAX_BYTES),
                size=size,
                status=status,
                table=table,
                partition=self._facts(entry),
            )
        )

    def _facts(self, entry: Entry) -> PartitionEntry:
        table = self._table_of(entry)
        # Apple's types are words in mixed case, all others numbers and GUIDs.
        kind = entry.type if table == "mac" else entry.type.lower()
        return PartitionEntry(
            number=entry.number,
            type=kind,
            type_name=type_name(table, kind),
            name=entry.name,
            uuid=entry.uuid,
            bootable=bool(entry.flags & _ACTIVE.get(table, 0)),
            extended=entry.extended,
            # libblkid calls everything logical that is numbered after the primary partitions.
            logical=entry.logical and entry.parent is None,
        )

    def _table_of(self, entry: Entry) -> str:
        return self.table_type if entry.parent is None else entry.table_type

    def _impossible(self, place: _Place, entry: Entry) -> Finding:
        address = f"{self.disk.address}/p{entry.number}"
        if entry.size > 0 and entry.start >= place.end:
            return _beyond_end(address, entry, place)
        text = f"the table says that this partition has {entry.size} bytes at byte {entry.start}"
        return Finding(Severity.ERROR, address, "impossible", text)


def _is_whole(table: str, entry: Entry, entries: Sequence[Entry], place: _Place) -> bool:
    """Slice c and its like: it stands for all of the place, in which the others are."""
    if is_whole_disk(table, entry.type):
        return True
    return (
        may_have_whole_disk(table)
        and _covers(entry, place)
        and not all(_covers(each, place) for each in entries)
    )


def _covers(entry: Entry, place: _Place) -> bool:
    return entry.start <= place.start and entry.start + entry.size >= place.end


def _extended_size(disk: Volume, entry: Entry) -> int:
    """What the table says; libblkid gives an extended partition the size of its boot record.

    MBR: four rows of 16 bytes at 446, start and length in sectors at 8 and 12 of each.
    """
    try:
        untrusted_row = disk.read(446 + 16 * (entry.number - 1), 16)
    except OSError:
        return entry.size
    if not 1 <= entry.number <= 4 or len(untrusted_row) < 16:
        return entry.size
    sectors = int.from_bytes(untrusted_row[12:16], "little")
    return min(sectors * disk.device.sector_size, disk.size - min(entry.start, disk.size))


def _beyond_end(address: str, entry: Entry, place: _Place) -> Finding:
    return Finding(
        Severity.ERROR,
        address,
        "beyond-end",
        f"the table says that this partition ends at byte {entry.start + entry.size - place.start}"
        f", but {place.address} has only {place.size} bytes; the rest of it is missing",
    )


def _overlaps(place: _Place, taken: list[_Place]) -> list[Finding]:
    findings = []
    end, owner = place.start, ""
    for each in taken:
        if each.start < end:
            message = (
                f"this partition begins at byte {each.start - place.start}, "
                f"inside {owner} (until {end - place.start})"
            )
            findings.append(Finding(Severity.ERROR, each.address, "overlap", message))
        if each.end > end:
            end, owner = each.end, each.address
    return findings


def _gaps(place: _Place, taken: list[_Place]) -> list[Layer]:
    gaps: list[Layer] = []
    end = place.start
    for start, next_end in [*((each.start, each.end) for each in taken), (place.end, place.end)]:
        if start > end:
            gaps.append(
                Layer(
                    f"{place.address}/gap{len(gaps)}", Kind.GAP, [place.address],
                    end - place.start, start - end, Status.MAPPED,
                )
            )  # fmt: skip
        end = max(end, next_end)
    return gaps
