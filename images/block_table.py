"""Tables that say where the blocks of a disk lie in its file, and what lies there already."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal

from images.errors import Unsupported
from images.evidence import Source, read_exactly, truncated

MAX_BYTES = 64 << 20
"""A table that QEMU reads as a whole when it opens an image: it takes that much memory there."""

_CHUNK = 1 << 20


def check_table(
    source: Source, offset: int, length: int, what: str, *, limit: int = MAX_BYTES
) -> None:
    """Bounds of a table, in bytes. Raises Unsupported when large, MalformedImage when cut."""
    if length > limit:
        raise Unsupported(
            f"{what} takes {length >> 20} MiB; at most {limit >> 20} MiB are accepted",
            path=source.path,
            hint="a hostile image can exhaust the memory in this way; if you know where it comes "
            "from, convert it with qemu-img to larger blocks",
        )
    if offset + length > source.size:
        raise truncated(source, offset + length, what)


def chunks(
    source: Source, offset: int, entries: int, form: Literal["<I", ">I", "<Q", ">Q"], what: str
) -> Iterator[tuple[int, array[int]]]:
    """(index of the first entry, entries) for one MiB of the table after the other.

    `offset` is in bytes, `form` as struct has it. Raises MalformedImage for a table that is cut.
    """
    width = 4 if form[1] == "I" else 8
    per_chunk = _CHUNK // width
    for first in range(0, entries, per_chunk):
        length = min(per_chunk, entries - first) * width
        values = array(form[1])
        values.frombytes(read_exactly(source, offset + first * width, length, what))
        if (form[0] == ">") != (sys.byteorder == "big"):
            values.byteswap()
        yield first, values


class Layout:
    """Which parts of a file are taken by something other than the disk's data."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._taken: list[tuple[int, str]] = []

    def add(self, start: int, length: int, what: str) -> str | None:
        """Take `length` bytes from `start`, unless they are taken: then the name of by what."""
        if length <= 0:
            return None
        other = self.at(start, length)
        if other is None:
            place = bisect_right(self._starts, start)
            self._starts.insert(place, start)
            self._taken.insert(place, (start + length, what))
        return other

    def at(self, start: int, length: int) -> str | None:
        """The name of something that lies in the `length` bytes from `start`."""
        place = bisect_right(self._starts, start)
        if place and self._taken[place - 1][0] > start:
            return self._taken[place - 1][1]
        if place < len(self._starts) and self._starts[place] < start + length:
            return self._taken[place][1]
        return None
