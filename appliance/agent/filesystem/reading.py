"""The bounded way from a volume's bytes to numbers.

Everything that a reader learns from a hostile volume passes through the two classes here, so
their limits hold for every file system type: a `Volume` gives out only so many bytes in so many
reads, and a `Block` gives integers of a known width from offsets that exist. Where either cannot,
it raises BadSuperblock, which `read_usage` turns into a problem to report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

KIB = 1024
MIB = 1024 * KIB

MAX_READ = MIB
"""Bytes asked for in any one read."""

MAX_READS = 16384
"""Reads for one volume; the largest honest need is one per XFS allocation group or NTFS run."""

MAX_TOTAL = 384 * MIB
"""Bytes read from one volume, so that a lying header cannot keep a slow guest busy for long."""

MAX_MAP = 256 * MIB
"""Bytes of one allocation bitmap or file allocation table that are counted."""


class BadSuperblock(Exception):
    """What the volume says about itself cannot be true, or leads outside of the volume."""


class Volume:
    """A volume of `size` bytes, read through `read(offset, length)` within fixed limits."""

    __slots__ = ("_bytes_left", "_read", "_reads_left", "size")

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        self._reads_left = MAX_READS
        self._bytes_left = MAX_TOTAL
        self.size = size

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes at `offset`; OSError of the device below passes through."""
        if not 0 <= length <= MAX_READ:
            raise BadSuperblock(f"a structure of {length} bytes is too large")
        if not 0 <= offset <= self.size - length:
            raise BadSuperblock(f"a structure at byte {offset} lies outside of the volume")
        if length == 0:
            return b""
        if self._reads_left < 1 or self._bytes_left < length:
            raise BadSuperblock("there is more to read than the limit allows")
        self._reads_left -= 1
        self._bytes_left -= length
        untrusted_bytes = self._read(offset, length)
        if len(untrusted_bytes) != length:
            raise BadSuperblock(f"the volume ends before byte {offset + length}")
        return untrusted_bytes

    def block(self, offset: int, length: int, order: Literal["little", "big"]) -> Block:
        """The same bytes, to be read as integers of one byte order."""
        return Block(self.bytes_at(offset, length), order)

    def set_bits(self, offset: int, bits: int) -> int:
        """How many of the first `bits` bits of a bitmap at `offset` are 1, least bit first."""
        if bits > MAX_MAP * 8:
            raise BadSuperblock(f"a bitmap of {bits} bits is larger than is counted")
        found = 0
        for start in range(0, bits, MAX_READ * 8):
            in_piece = min(bits - start, MAX_READ * 8)
            untrusted_piece = self.bytes_at(offset + start // 8, (in_piece + 7) // 8)
            found += count_set_bits(untrusted_piece, in_piece)
        return found


def count_set_bits(untrusted_bitmap: bytes, bits: int) -> int:
    """How many of the first `bits` bits are 1, least bit of each byte first.

    One big integer, because a Python loop over the bytes takes minutes in an emulated guest.
    """
    number = int.from_bytes(untrusted_bitmap, "little")
    if bits < len(untrusted_bitmap) * 8:
        number &= (1 << bits) - 1
    return number.bit_count()


class Block:
    """Bytes from the volume, read as unsigned integers at byte offsets."""

    __slots__ = ("_order", "_untrusted")

    def __init__(self, untrusted: bytes, order: Literal["little", "big"]) -> None:
        self._untrusted = untrusted
        self._order = order

    def __len__(self) -> int:
        return len(self._untrusted)

    def raw(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`, still untrusted."""
        if offset < 0 or length < 0 or offset + length > len(self._untrusted):
            raise BadSuperblock(f"a field at byte {offset} lies outside of its structure")
        return self._untrusted[offset : offset + length]

    def u8(self, offset: int) -> int:
        """The byte at `offset`."""
        return self._integer(offset, 1)

    def u16(self, offset: int) -> int:
        """The two bytes at `offset`."""
        return self._integer(offset, 2)

    def u32(self, offset: int) -> int:
        """The four bytes at `offset`."""
        return self._integer(offset, 4)

    def u64(self, offset: int) -> int:
        """The eight bytes at `offset`."""
        return self._integer(offset, 8)

    def _integer(self, offset: int, width: int) -> int:
        return int.from_bytes(self.raw(offset, width), self._order)


def power_of_two(value: int, low: int, high: int, what: str) -> int:
    """`value` if it is a power of two within low … high, in whatever unit `what` has."""
    if not low <= value <= high or value & (value - 1):
        raise BadSuperblock(f"{what} cannot be {value}")
    return value


def shifted(exponent: int, low: int, high: int, what: str) -> int:
    """2 to the power of `exponent`, where low … high are the exponents that the format allows."""
    if not low <= exponent <= high:
        raise BadSuperblock(f"{what} cannot be 2^{exponent}")
    return 1 << exponent
