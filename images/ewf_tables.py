"""Where the chunks of an EWF image are: its sections `table`, and `table2`, their copies.

Layout: libewf's "Expert Witness Compression Format (EWF)", section "Table section", and its
ewf_table.h (base offset of EnCase 6). Only the headers are read here; entries when they are needed.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from images.evidence import Source, read_exactly
from images.ewf_sections import Section, bad, optional

_HEADER = struct.Struct("<I4xQ4x")
_HEADER_SIZE = _HEADER.size + 4
MAX_ENTRIES = (8 << 20) // 4 - 1
"""Of one table, so that it can be read in one piece; EnCase writes at most 65,534."""

_COMPRESSED = 1 << 31


@dataclass(frozen=True, slots=True)
class Copy:
    """A table's entries as they lie in a file: `offset` in bytes; SMART's have no checksum."""

    offset: int
    has_checksum: bool


@dataclass(frozen=True, slots=True)
class Table:
    """The places of `entries` chunks from number `first_chunk` on, all in segment `segment`.

    `base` in bytes is added to each entry. `copies` are tried in turn.
    """

    segment: int
    first_chunk: int
    entries: int
    base: int
    copies: tuple[Copy, ...]


def tables(segments: Iterable[tuple[Source, Sequence[Section]]], chunks: int) -> list[Table]:
    """All tables in the order of their chunks. Raises MalformedImage.

    Together they must have exactly as many entries as the disk has `chunks`.
    """
    found: list[Table] = []
    total = 0
    for number, (source, sections) in enumerate(segments):
        for group in _groups(source, sections):
            table = _table(source, number, total, group)
            found.append(table)
            total += table.entries
            if total > chunks:
                raise bad(source, f"its tables have more entries than the disk has chunks {chunks}")
    if total < chunks:
        # The last segment's name is the best that can be said of where the rest should be.
        raise bad(source, f"incomplete: its tables have {total} chunks, the disk has {chunks}")
    return found


def _groups(source: Source, sections: Sequence[Section]) -> list[list[Section]]:
    """Each table with the copy that follows it."""
    groups: list[list[Section]] = []
    for section in sections:
        if section.kind == "table":
            groups.append([section])
        elif section.kind == "table2":
            if not groups or len(groups[-1]) != 1:
                raise bad(source, "there is a copy of a table (table2) without a table")
            groups[-1].append(section)
    return groups


def _table(source: Source, segment: int, first: int, group: list[Section]) -> Table:
    headers: dict[tuple[int, int], list[Copy]] = {}
    for section in group:
        data = optional(source, section, _HEADER_SIZE)
        if data is None:
            continue
        entries, base = _HEADER.unpack(data)
        room = section.size - _HEADER_SIZE - entries * 4
        if room < 0 or not 0 < entries <= MAX_ENTRIES or base >= source.size:
            raise bad(source, f"a table of {entries} entries from {base} on is not possible")
        copy = Copy(section.offset + _HEADER_SIZE, has_checksum=room == 4)
        headers.setdefault((entries, base), []).append(copy)
    if not headers:
        raise bad(source, f"the table at {group[0].offset} has a wrong checksum")
    if len(headers) > 1:
        raise bad(source, f"the table at {group[0].offset} and its copy disagree")
    ((entries, base), copies) = next(iter(headers.items()))
    return Table(segment, first, entries, base, tuple(copies))


def entries(source: Source, table: Table) -> array[int]:
    """The table's entries, from the first copy whose checksum is right. Raises MalformedImage."""
    for copy in table.copies:
        length = table.entries * 4 + (4 if copy.has_checksum else 0)
        data = read_exactly(source, copy.offset, length, "a table of chunks")
        content = data[: table.entries * 4]
        if copy.has_checksum and zlib.adler32(content) != int.from_bytes(data[-4:], "little"):
            continue
        values = array("I")
        values.frombytes(content)
        return values
    raise bad(source, f"the entries of the table of chunk {table.first_chunk} are damaged")


def place(table: Table, values: array[int], index: int) -> tuple[int, int | None, bool]:
    """Of entry `index`: where its chunk begins, where the next one does, and if it is compressed.

    Offsets in bytes in the segment file; the next is None for the last entry of the table.
    """
    value = values[index]
    begin = table.base + (value & ~_COMPRESSED)
    end = None
    if index + 1 < len(values):
        end = table.base + (values[index + 1] & ~_COMPRESSED)
    return begin, end, bool(value & _COMPRESSED)
