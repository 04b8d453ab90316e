"""Both copies of a GUID partition table, read and checked: UEFI 2.10, chapter 5.3.

libblkid tells neither that it took the second copy nor that the two differ, and it leaves out
entries that it does not like; all of that matters in evidence.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

SECTOR_SIZES = (512, 4096)
MAX_TABLE = 1024 * 4096
"""Bytes of entries that are read; the usual table has 16 KiB."""

Read = Callable[[int, int], bytes]
"""Gives up to so many bytes (second) at an offset (first) of the volume, or raises OSError."""

_MAGIC = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_REVISION = 0x00010000
_CRC = slice(16, 20)
_UNUSED = bytes(16)


@dataclass(frozen=True, slots=True)
class GptEntry:
    """An entry that is in use. `first` and `last` are sectors, both included, as they are stored:
    `last` can be the smaller one. GUIDs are in small letters."""

    number: int
    type: str
    uuid: str
    first: int
    last: int
    attributes: int
    name: str


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a header; places are in sectors."""

    revision: int
    length: int
    checksum: int
    mine: int
    alternate: int
    first_usable: int
    last_usable: int
    disk_uuid: str
    table: int
    count: int
    entry_size: int
    table_checksum: int


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy: the header in sector `lba` and its entries.

    `problems` are what is wrong with it in plain words, `remarks` what is odd but harmless. There
    is a `header` where the signature is, and `entries` only where nothing is wrong.
    """

    lba: int
    header: Header | None = None
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    entries: dict[int, GptEntry] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether both checksums are right, and all places possible."""
        return self.header is not None and not self.problems


@dataclass(frozen=True, slots=True)
class Gpt:
    """Both copies, good or not, on a volume of `sectors` sectors.

    `stray` is a further header in the last sector where the primary copy says that the backup is
    elsewhere. `other_sector` is the sector size for which there is a good GPT, if not this one.
    """

    sector: int
    sectors: int
    primary: Copy
    backup: Copy
    stray: Copy | None = None
    other_sector: int | None = None

    @property
    def is_present(self) -> bool:
        """Whether there is a header at all, however damaged."""
        return any(copy.header for copy in (self.primary, self.backup))

    @property
    def best(self) -> Copy | None:
        """The copy to go by: the primary one if it is good, else the backup if that is."""
        return next((copy for copy in (self.primary, self.backup) if copy.is_good), None)

    @property
    def differing(self) -> list[int]:
        """Numbers of the partitions in which two good copies differ."""
        if not (self.primary.is_good and self.backup.is_good):
            return []
        ours, theirs = self.primary.entries, self.backup.entries
        return sorted(n for n in {*ours, *theirs} if ours.get(n) != theirs.get(n))

    @property
    def disk_uuids_differ(self) -> bool:
        """Whether two good copies name the disk differently."""
        ours, theirs = self.primary.header, self.backup.header
        both = self.primary.is_good and self.backup.is_good and ours and theirs
        return bool(both and ours and theirs and ours.disk_uuid != theirs.disk_uuid)


def read_gpt(read: Read, size: int, sector: int) -> Gpt:
    """Read both copies from a volume of `size` bytes. Bad sectors are problems, not errors."""
    sectors = size // sector
    last = max(sectors - 1, 0)
    primary = read_copy(read, sectors, sector, 1)
    small = Copy(last, problems=["the disk is too small for it"])
    at_end = read_copy(read, sectors, sector, last) if last > 1 else small
    backup, stray = at_end, None
    # Also of a damaged header: what it says is tried, and believed only if all of it fits.
    if primary.header and primary.header.alternate != last:
        named = read_copy(read, sectors, sector, primary.header.alternate)
        if named.is_good or (primary.is_good and not at_end.is_good):
            backup, stray = named, at_end if at_end.header else None
    other = next((each for each in SECTOR_SIZES if each != sector), sector)
    found = _has_good_copy(read, size, other)
    return Gpt(sector, sectors, primary, backup, stray, other if found else None)


def _has_good_copy(read: Read, size: int, sector: int) -> bool:
    sectors = size // sector
    return any(read_copy(read, sectors, sector, lba).is_good for lba in (1, sectors - 1))


def read_copy(read: Read, sectors: int, sector: int, lba: int) -> Copy:
    """Read and check the copy whose header is in sector `lba`."""
    if not 1 <= lba < sectors:
        return Copy(lba, problems=[f"its header would be in sector {lba}, outside of the disk"])
    try:
        untrusted_header = read(lba * sector, sector)
    except OSError as error:
        return Copy(lba, problems=[f"its header cannot be read: {error.strerror}"])
    if len(untrusted_header) < sector or not untrusted_header.startswith(_MAGIC):
        return Copy(lba, problems=[f"there is no header in sector {lba}"])
    header = _parse_header(untrusted_header)
    copy = Copy(lba, header, _header_problems(untrusted_header, header, lba, sectors))
    if header.revision != _REVISION:
        copy.remarks.append(f"its revision is {header.revision:#010x} instead of {_REVISION:#010x}")
    if not copy.problems:
        _read_entries(copy, header, read, sector)
    return copy


def _parse_header(untrusted: bytes) -> Header:
    (_, revision, length, checksum, _, mine, alternate, first, last, disk, table, count, size,
     table_checksum) = _HEADER.unpack_from(untrusted)  # fmt: skip
    return Header(
        revision, length, checksum, mine, alternate, first, last, _guid(disk), table, count, size,
        table_checksum,
    )  # fmt: skip


def _header_problems(untrusted: bytes, header: Header, lba: int, sectors: int) -> list[str]:
    if not _HEADER.size <= header.length <= len(untrusted):
        return [f"its header claims a length of {header.length} bytes"]
    content = bytearray(untrusted[: header.length])
    content[_CRC] = bytes(4)
    if (actual := zlib.crc32(content)) != header.checksum:
        return [f"its header's checksum is {header.checksum:08x}, but the content's {actual:08x}"]
    problems = []
    if header.mine != lba:
        problems.append(f"its header is in sector {lba} and says that it is in {header.mine}")
    if header.first_usable > header.last_usable:
        problems.append("its first usable sector is behind its last one")
    size = header.entry_size
    if size < _ENTRY.size or size > 4096 or size & (size - 1):
        problems.append(f"its entries have {size} bytes each, which is not allowed")
    elif not 0 < header.count * size <= MAX_TABLE:
        problems.append(f"it has {header.count} entries; up to {MAX_TABLE // size} are read")
    elif not 0 < header.table < sectors:
        problems.append(f"its entries begin in sector {header.table}, outside of the disk")
    return problems


def _read_entries(copy: Copy, header: Header, read: Read, sector: int) -> None:
    length = header.count * header.entry_size
    try:
        untrusted = read(header.table * sector, length)
    except OSError as error:
        copy.problems.append(f"its entries cannot be read: {error.strerror}")
        return
    if len(untrusted) < length:
        copy.problems.append("its entries reach beyond the end of the disk")
    elif (actual := zlib.crc32(untrusted)) != header.table_checksum:
        copy.problems.append(
            f"the checksum of its entries is {header.table_checksum:08x}, but their content's "
            f"{actual:08x}"
        )
    else:
        for index in range(header.count):
            start = index * header.entry_size
            if untrusted[start : start + 16] != _UNUSED:
                copy.entries[index + 1] = _parse_entry(index + 1, untrusted, start)


def _parse_entry(number: int, untrusted: bytes, start: int) -> GptEntry:
    kind, identity, first, last, attributes, name = _ENTRY.unpack_from(untrusted, start)
    text = name.decode("utf-16-le", "replace").split("\0", 1)[0]
    return GptEntry(number, _guid(kind), _guid(identity), first, last, attributes, text)


def _guid(data: bytes) -> str:
    """Appendix A: the first three fields are little-endian."""
    return str(uuid.UUID(bytes_le=data))
