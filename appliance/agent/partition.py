"""Partition tables: MBR with logical partitions, GPT, and what else libblkid reads.

Every byte of the disk is in exactly one partition or gap; an extended partition is only the
container of its logical ones and owns nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.agent.blkid import Entry, PartitionTable
from appliance.agent.device import partition_node
from appliance.agent.volume import Volume
from appliance.layer import Finding, Kind, Layer, PartitionEntry, Severity, Status

# MBR: https://www.win.tue.nl/~aeb/partitions/partition_types-1.html; GPT: the UAPI Group's
# Discoverable Partitions Specification and Microsoft's PARTITION_INFORMATION_GPT.
TYPE_NAMES = {
    "0x01": "FAT12", "0x04": "FAT16 <32M", "0x05": "Extended", "0x06": "FAT16",
    "0x07": "NTFS/exFAT/HPFS", "0x0b": "FAT32", "0x0c": "FAT32 LBA", "0x0e": "FAT16 LBA",
    "0x0f": "Extended LBA", "0x27": "Windows recovery", "0x41": "PReP boot",
    "0x42": "Windows dynamic disk", "0x82": "Linux swap", "0x83": "Linux",
    "0x85": "Linux extended", "0x8e": "Linux LVM", "0xa5": "FreeBSD", "0xa6": "OpenBSD",
    "0xa8": "Darwin UFS", "0xa9": "NetBSD", "0xab": "Darwin boot", "0xaf": "HFS+",
    "0xbf": "Solaris", "0xda": "Data without file system", "0xee": "GPT protective",
    "0xef": "EFI system", "0xfb": "VMware VMFS", "0xfd": "Linux RAID",
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system",
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "PReP boot",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",
    "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Microsoft basic data",
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "Windows recovery",
    "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux filesystem",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root (x86-64)",
    "933ac7e1-2eb4-4f13-b844-0e14e2aef915": "Linux home",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux extended boot",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
    "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
    "ca7d7ccb-63ed-4c53-861c-1742536059cc": "Linux LUKS",
    "48465300-0000-11aa-aa11-00306543ecac": "Apple HFS/HFS+",
    "7c3457ef-0000-11aa-aa11-00306543ecac": "Apple APFS",
}  # fmt: skip

WITHOUT_CONTENT = {
    "0x41", "0xda", "21686148-6449-6e6f-744e-656564454649",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b", "e3c9e316-0b5c-4db8-817d-f92df00215ae",
}  # fmt: skip
"""Types that hold boot code or nothing by definition: no file system is missed in them."""


def needs_no_content(volume: Volume) -> bool:
    """Whether the partition's type says that there is nothing to recognise in it."""
    return volume.partition is not None and volume.partition.type in WITHOUT_CONTENT


_GPT_LEGACY_BOOTABLE = 1 << 2
_MBR_ACTIVE = 0x80


@dataclass(frozen=True, slots=True)
class Partitions:
    """What a table describes: volumes to look into, layers without content, and findings."""

    volumes: list[Volume]
    layers: list[Layer]
    findings: list[Finding]


def divide(disk: Volume, table: PartitionTable) -> Partitions:
    """Turn a disk's table into partitions and gaps that cover every byte of it once."""
    result = Partitions([], [], [])
    for entry in sorted(table.entries, key=lambda entry: (entry.start, entry.number)):
        address = f"{disk.address}/p{entry.number}"
        facts = _facts(entry, table.type)
        if entry.extended:
            result.layers.append(_container(disk, address, entry, facts))
        elif entry.start >= disk.size:
            result.layers.append(_outside(disk, address, entry, facts))
            result.findings.append(_beyond_end(address, entry, disk))
        else:
            result.volumes.append(_volume(disk, address, entry, facts))
            if entry.start + entry.size > disk.size:
                result.findings.append(_beyond_end(address, entry, disk))
    result.findings.extend(_overlaps(result.volumes))
    result.layers.extend(_gaps(disk, result.volumes))
    return result


def _facts(entry: Entry, table_type: str) -> PartitionEntry:
    active = _GPT_LEGACY_BOOTABLE if table_type == "gpt" else _MBR_ACTIVE
    kind = entry.type.lower()
    return PartitionEntry(
        number=entry.number,
        type=kind,
        type_name=TYPE_NAMES.get(kind),
        name=entry.name,
        uuid=entry.uuid,
        bootable=bool(entry.flags & active),
        extended=entry.extended,
        logical=entry.logical,
    )


def _volume(disk: Volume, address: str, entry: Entry, facts: PartitionEntry) -> Volume:
    return Volume(
        address=address,
        kind=Kind.PARTITION,
        parents=[disk.address],
        offset=entry.start,
        size=min(entry.size, disk.size - entry.start),
        device=disk.device,
        start=disk.start + entry.start,
        node=partition_node(disk.device, entry.number, entry.start),
        partition=facts,
    )


def _container(disk: Volume, address: str, entry: Entry, facts: PartitionEntry) -> Layer:
    return Layer(
        address,
        Kind.PARTITION,
        [disk.address],
        entry.start,
        _extended_size(disk, entry),
        Status.MAPPED,
        partition=facts,
    )


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


def _outside(disk: Volume, address: str, entry: Entry, facts: PartitionEntry) -> Layer:
    return Layer(
        address, Kind.PARTITION, [disk.address], entry.start, 0, Status.DAMAGED, partition=facts
    )


def _beyond_end(address: str, entry: Entry, disk: Volume) -> Finding:
    return Finding(
        Severity.ERROR,
        address,
        "beyond-end",
        f"the table says that this partition ends at byte {entry.start + entry.size}, but "
        f"{disk.address} has only {disk.size} bytes; the rest of it is missing",
    )


def _overlaps(volumes: list[Volume]) -> list[Finding]:
    findings = []
    end, owner = 0, ""
    for volume in volumes:
        offset = volume.offset or 0
        if offset < end:
            message = f"this partition begins at byte {offset}, inside {owner} (until {end})"
            findings.append(Finding(Severity.ERROR, volume.address, "overlap", message))
        if offset + volume.size > end:
            end, owner = offset + volume.size, volume.address
    return findings


def _gaps(disk: Volume, volumes: list[Volume]) -> list[Layer]:
    gaps: list[Layer] = []
    end = 0
    for start, size in [*((v.offset or 0, v.size) for v in volumes), (disk.size, 0)]:
        if start > end:
            gaps.append(
                Layer(
                    f"{disk.address}/gap{len(gaps)}", Kind.GAP, [disk.address], end, start - end,
                    Status.MAPPED,
                )
            )  # fmt: skip
        end = max(end, start + size)
    return gaps
