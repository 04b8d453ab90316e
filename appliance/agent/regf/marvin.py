"""Marvin32, the hash that registry logs are checked with (US patent 8,555,036; System.Marvin of
.NET). The result has 64 bits, as in the specification of the format."""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF


def marvin32(seed: int, data: bytes) -> int:
    """The hash of `data`; both seed and result have 64 bits."""
    low, high = seed & _MASK, seed >> 32
    whole = len(data) // 4 * 4
    last = int.from_bytes(data[whole:] + b"\x80", "little")
    for word in (*struct.unpack(f"<{whole // 4}I", data[:whole]), last, 0):
        low = (low + word) & _MASK
        high ^= low
        low = ((low << 20 | low >> 12) + high) & _MASK
        high = (high << 9 | high >> 23) & _MASK
        high ^= low
        low = ((low << 27 | low >> 5) + high) & _MASK
        high = (high << 19 | high >> 13) & _MASK
    return high << 32 | low
