"""How many clusters a file allocation table says are free.

Source: Microsoft's "FAT: General Overview of On-Disk Format" 1.03: an entry of 12, 16 or 28 (of
32) bits is zero for a free cluster; the first two entries stand for no cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.agent.filesystem.reading import KIB, MAX_MAP, BadSuperblock, Volume

PIECE = 96 * KIB
"""Bytes taken at once: a whole number of entries of any width, small enough for the caches."""

SHIFTS = {12: (6, 3, 1, 1), 16: (8, 4, 2, 1), 32: (16, 8, 4, 2, 1)}
"""They add up to one less than the width, so that no bit of a neighbour reaches bit 0."""

LOWEST_BIT = {12: b"\x01\x10\x00", 16: b"\x01\x00", 32: b"\x01\x00\x00\x00"}
WITHOUT_RESERVED = b"\xff\xff\xff\x0f"
RESERVED_ENTRIES = 2


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table at byte `offset` with entries of `bits` bits for `clusters` clusters."""

    offset: int
    bits: int
    clusters: int


def count_free(volume: Volume, shape: TableShape) -> int:
    """In clusters."""
    entries = shape.clusters + RESERVED_ENTRIES
    if entries * shape.bits > MAX_MAP * 8:
        raise BadSuperblock(f"a table of {entries} entries is larger than is counted")
    per_piece = PIECE * 8 // shape.bits
    free = 0
    for start in range(0, entries, per_piece):
        here = min(per_piece, entries - start)
        offset = shape.offset + start * shape.bits // 8
        untrusted_piece = volume.bytes_at(offset, -(-here * shape.bits // 8))
        skipped = RESERVED_ENTRIES if start == 0 else 0
        free += here - skipped - count_used(untrusted_piece, shape.bits, skipped, here)
    return free


def count_used(untrusted_piece: bytes, bits: int, first: int, end: int) -> int:
    """How many of the entries first … end - 1 are not zero.

    All entries at once, as one big integer: each is folded onto its lowest bit, and those are
    counted. A loop over millions of entries would take minutes in an emulated guest.
    """
    number = int.from_bytes(untrusted_piece, "little")
    repeats = -(-end * bits // 8) // len(LOWEST_BIT[bits]) + 1
    if bits == 32:
        number &= int.from_bytes(WITHOUT_RESERVED * repeats, "little")
    for shift in SHIFTS[bits]:
        number |= number >> shift
    number &= int.from_bytes(LOWEST_BIT[bits] * repeats, "little")
    return (number & ((1 << end * bits) - 1) & ~((1 << first * bits) - 1)).bit_count()
