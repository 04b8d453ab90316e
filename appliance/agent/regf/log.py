"""The transaction logs of a hive that was being written, laid over it in memory.

Source: github.com/msuhanov/regf, "Format of transaction log files": the old format holds one set
of pages, the new one (Windows 8.1 and later) a row of entries with hashes. A log that does not fit
to its hive is left alone, and so is everything behind the first entry that is not whole.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from appliance.agent.regf.marvin import marvin32
from appliance.agent.regf.record import has_good_checksum, sealed
from appliance.agent.regf.sectors import SECTOR, Sectors

MAX_REPLAYED = 16 * 1024 * 1024
"""Bytes of pages from the logs of one hive: they are held in memory, and hashed in Python."""

_BASE_BLOCK = 4096
_OLD, _OLDER, _NEW = 1, 2, 6
_SEED = 0xC5554E7A884DEF82
_ENTRY = struct.Struct("<4sIIIIIQQ")
_HASHED_HEAD = 32

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Log:
    """A log file: `read(offset, length)` returns less only at its end. May raise OSError."""

    read: Read
    size: int


@dataclass(frozen=True, slots=True)
class _Head:
    """What a base block says, of a hive or at the start of a log."""

    block: bytes
    primary: int
    secondary: int
    written: bytes
    type: int
    bins_size: int
    sector: int
    is_good: bool

    @classmethod
    def of(cls, untrusted_block: bytes) -> _Head:
        block = untrusted_block[:SECTOR].ljust(SECTOR, b"\0")
        primary, secondary = struct.unpack_from("<II", block, 4)
        kind, _, _, bins_size, factor = struct.unpack_from("<IIIII", block, 28)
        is_good = block[:4] == b"regf" and has_good_checksum(block)
        sector = SECTOR * factor if factor in range(1, 9) else SECTOR
        return cls(block, primary, secondary, block[12:20], kind, bins_size, sector, is_good)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A hive as it is after its logs: `sectors` were taken from them."""

    read: Read
    size: int
    sectors: int


def replayed(read: Read, size: int, logs: list[Log]) -> Replayed | None:
    """The hive behind `read` with its logs applied; None where it is clean, or none of them fits.
    Raises OSError."""
    hive = _Head.of(read(0, SECTOR))
    if hive.is_good and hive.primary == hive.secondary:
        return None
    heads = [(log, _Head.of(log.read(0, SECTOR))) for log in logs]
    good = [(log, head) for log, head in heads if head.is_good]
    sectors = Sectors(read, size)
    old = [(log, head) for log, head in good if head.type in {_OLD, _OLDER}]
    new = [(log, head) for log, head in good if head.type == _NEW]
    base = _replay_new(hive, new, sectors) or _replay_old(hive, read, old, sectors)
    if base is None:
        return None
    count = sectors.count
    sectors.put(0, base)
    return Replayed(sectors.read, sectors.size, count)


# --- the new format -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    bins_size: int
    pages: list[tuple[int, bytes]]


def _replay_new(hive: _Head, logs: list[tuple[Log, _Head]], sectors: Sectors) -> bytes | None:
    """Put the entries that follow the hive onto it; return the base block that belongs to them."""
    if not logs:
        return None
    base = hive if hive.is_good else logs[0][1]
    following = base.secondary
    bins_size, was_applied, room = base.bins_size, False, MAX_REPLAYED
    # Either log can be the first; an entry that is missing in both ends it.
    for log, head in [*logs, *logs]:
        for entry in _entries(log, head.sector, following):
            room -= sum(len(data) for _, data in entry.pages)
            if room < 0:
                break
            for at, data in entry.pages:
                sectors.put(_BASE_BLOCK + at, data)
            following, bins_size, was_applied = entry.number + 1, entry.bins_size, True
    if not was_applied:
        return None
    return _clean(base.block, following - 1, bins_size)


def _entries(log: Log, at: int, following: int) -> Iterator[_Entry]:
    """The whole entries from number `following` on, without a gap."""
    while at + _ENTRY.size <= log.size:
        untrusted_head = log.read(at, _ENTRY.size)
        if len(untrusted_head) < _ENTRY.size:
            return
        signature, size, _, number, bins_size, count, hash_1, hash_2 = _ENTRY.unpack(untrusted_head)
        fits = _ENTRY.size + 8 * count <= size <= min(log.size - at, 2 * MAX_REPLAYED)
        if signature != b"HvLE" or not fits or size % SECTOR or bins_size % 4096:
            return
        if marvin32(_SEED, untrusted_head[:_HASHED_HEAD]) != hash_2 or number > following:
            return
        if number == following:
            untrusted_body = log.read(at + _ENTRY.size, size - _ENTRY.size)
            if marvin32(_SEED, untrusted_body) != hash_1:
                return
            pages = _pages(untrusted_body, count, bins_size)
            if pages is None:
                return
            yield _Entry(number, bins_size, pages)
            following += 1
        at += size


def _pages(untrusted_body: bytes, count: int, bins_size: int) -> list[tuple[int, bytes]] | None:
    """Offsets in the hive's bins, and data; None where one does not fit."""
    found: list[tuple[int, bytes]] = []
    start = 8 * count
    for offset, length in struct.iter_unpack("<II", untrusted_body[:start]):
        data = untrusted_body[start : start + length]
        if offset % SECTOR or length % SECTOR or len(data) < length or offset + length > bins_size:
            return None
        found.append((offset, data))
        start += length
    return found


# --- the old format -----------------------------------------------------------------------------


def _replay_old(
    hive: _Head, read: Read, logs: list[tuple[Log, _Head]], sectors: Sectors
) -> bytes | None:
    """Put the pages of the log that was written together with the hive onto it."""
    written = hive.written if hive.is_good else read(_BASE_BLOCK + 20, 8)
    for log, head in logs:
        if head.primary != head.secondary or head.written != written or head.bins_size % 4096:
            continue
        length = head.bins_size // SECTOR // 8
        untrusted_vector = log.read(head.sector, 4 + length)
        if untrusted_vector[:4] != b"DIRT" or len(untrusted_vector) < 4 + length:
            continue
        dirty = [
            8 * index + bit
            for index, byte in enumerate(untrusted_vector[4:])
            if byte
            for bit in range(8)
            if byte >> bit & 1
        ]
        start = head.sector + (4 + length + head.sector - 1) // head.sector * head.sector
        if len(dirty) * SECTOR > MAX_REPLAYED or start + len(dirty) * SECTOR > log.size:
            continue
        for index, page in enumerate(dirty):
            sectors.put(_BASE_BLOCK + page * SECTOR, log.read(start + index * SECTOR, SECTOR))
        return _clean(head.block, head.primary, head.bins_size)
    return None


def _clean(block: bytes, number: int, bins_size: int) -> bytes:
    """The base block of a hive whose last write was number `number`, and ended."""
    head = bytearray(block)
    struct.pack_into("<II", head, 4, number & 0xFFFFFFFF, number & 0xFFFFFFFF)
    struct.pack_into("<I", head, 28, 0)
    struct.pack_into("<I", head, 40, bins_size)
    return sealed(bytes(head))
