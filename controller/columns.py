"""Text in columns: what fits into a width, what is cut, and what moves to a line of its own."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2
"""Spaces between columns."""


def cells(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def cut(text: str, width: int, mark: str) -> str:
    """The text in at most `width` cells; `mark` stands for the middle where it is longer."""
    if cells(text) <= width:
        return text
    room = max(0, width - cells(mark))
    head = _take(text, room - room // 2)
    tail = _take(text[::-1], room // 2)[::-1]
    while tail and _cells_of(tail[0]) == 0:  # the mark's letter is not here
        tail = tail[1:]
    return head + mark + tail


def _take(text: str, width: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _cells_of(character)
        if taken > width:
            return text[:index]
    return text


def padded(text: str, width: int, *, right: bool) -> str:
    """The text with spaces to `width` cells, before it if it is to stand on the right."""
    spaces = " " * (width - cells(text))
    return spaces + text if right else text + spaces


def pack(items: Sequence[str], separator: str, width: int | None) -> list[str]:
    """Join the items into as few lines as fit into `width` cells, None for one line.

    Only an item that is alone too long for a line is broken.
    """
    if width is None:
        return [separator.join(items)] if items else []
    width = max(width, 8)
    end = separator.rstrip()
    lines: list[str] = []
    for item in items:
        joined = lines[-1] + separator + item if lines else item
        if lines and cells(joined + end) <= width:
            lines[-1] = joined
            continue
        if lines:
            lines[-1] += end
        lines.extend(_broken(item, width - len(end)))
    return lines


def _broken(item: str, width: int) -> list[str]:
    parts: list[str] = []
    while cells(item) > width:
        part = _take(item, width)
        parts.append(part)
        item = item[len(part) :]
    return [*parts, item]


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `least` and `most` bound its width in cells; equal to 0 where it is never cut.

    Columns with the highest `rank` are the first to leave a page that is too narrow; those of
    rank 0 stay.
    """

    name: str
    is_number: bool = False
    least: int = 0
    most: int = 0
    rank: int = 0

    @property
    def caption(self) -> str:
        """The name as it stands before a single value."""
        return self.name if self.name == "UUID" else self.name.lower()


@dataclass(frozen=True, slots=True)
class Fit:
    """How rows are printed: (column, width in cells) from left to right, and columns left out."""

    shown: list[tuple[int, int]]
    moved: list[int]


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Fit:
    """Choose widths so that a row takes at most `width` cells, None for as much as it needs.

    Columns without any value are dropped.
    """
    widths = {
        index: _natural(column, [row[index] for row in rows])
        for index, column in enumerate(columns)
        if any(row[index] for row in rows)
    }
    moved: list[int] = []
    while width is not None and _total(_least(columns, widths)) > width:
        rank = max((columns[index].rank for index in widths), default=0)
        if rank == 0:
            break
        leaving = [index for index in widths if columns[index].rank == rank]
        moved.extend(leaving)
        for index in leaving:
            del widths[index]
    if width is not None:
        _shrink(columns, widths, width)
    return Fit(list(widths.items()), sorted(moved))


def _natural(column: Column, values: list[str]) -> int:
    widest = max(cells(value) for value in [column.name, *values])
    return min(widest, column.most) if column.most else widest


def _least(columns: Sequence[Column], widths: dict[int, int]) -> dict[int, int]:
    return {index: min(width, columns[index].least or width) for index, width in widths.items()}


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + GAP * max(0, len(widths) - 1)


def _shrink(columns: Sequence[Column], widths: dict[int, int], width: int) -> None:
    """Take cells from the columns that may lose some, the last one first."""
    least = _least(columns, widths)
    for index in sorted(widths, reverse=True):
        excess = _total(widths) - width
        if excess > 0:
            widths[index] = max(least[index], widths[index] - excess)
