"""Whether bytes look random, as those of an encrypted volume without a signature do."""

from __future__ import annotations

_LEAST = 16 << 10
_LIMIT = 400.0
"""Chi-square with 255 degrees of freedom: random bytes stay below 400 but for one case in 10^8.
Text, code and file systems are in the thousands, compressed data mostly above."""


def looks_random(data: bytes) -> bool:
    """Whether every value of a byte is about as frequent as the others; needs 16 KiB."""
    if len(data) < _LEAST:
        return False
    expected = len(data) / 256
    counts = [data.count(value) for value in range(256)]
    return sum((count - expected) ** 2 for count in counts) / expected < _LIMIT
