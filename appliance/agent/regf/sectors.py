"""Sectors that are laid over a file, without writing to it."""

from __future__ import annotations

from collections.abc import Callable

SECTOR = 512


class Sectors:
    """The file behind `read(offset, length)` of `size` bytes, with some sectors replaced."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._below = read
        self._sectors: dict[int, bytes] = {}
        self.size = size

    @property
    def count(self) -> int:
        """How many sectors are replaced."""
        return len(self._sectors)

    def put(self, offset: int, data: bytes) -> None:
        """Replace whole sectors; the file grows where they lie behind its end."""
        for at in range(0, len(data), SECTOR):
            self._sectors[(offset + at) // SECTOR] = data[at : at + SECTOR]
        self.size = max(self.size, offset + len(data))

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; where a grown file has none, zeros. Raises OSError."""
        length = max(0, min(length, self.size - offset))
        first, last = offset // SECTOR, (offset + length + SECTOR - 1) // SECTOR
        over = [index for index in range(first, last) if index in self._sectors]
        found = bytearray(self._below(offset, length).ljust(length, b"\0"))
        for index in over:
            data, at = self._sectors[index], index * SECTOR - offset
            begin, end = max(0, -at), min(SECTOR, length - at)
            found[at + begin : at + end] = data[begin:end]
        return bytes(found)
