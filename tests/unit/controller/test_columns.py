"""Numbers and columns for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.columns import Column, cells, cut, fit, pack, padded
from controller.sizes import count, duration, human, moment, sectors


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (100 << 20, "100 MiB"),
        ((2 << 30) - (1 << 20), "2.0 GiB"),
        (2**63 - 1, "8.0 EiB"),
        (2**70, "1024 EiB"),
    ],
)
def test_human_sizes(size: int, text: str) -> None:
    assert human(size) == text


@pytest.mark.parametrize(
    ("offset", "size", "sector_size", "text"),
    [
        (1 << 20, 100 << 20, 512, "2048-206847"),
        (0, 512, 512, "0-0"),
        (4096, 0, 512, "8"),
        (4096, 4096, 4096, "1-1"),
        (512, 513, 512, "1-2"),
    ],
)
def test_sectors(offset: int, size: int, sector_size: int, text: str) -> None:
    assert sectors(offset, size, sector_size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_711_357_920, "2024-03-25T09:12:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (2**40, "1099511627776 seconds after 1970"),
        (-(2**63), "-9223372036854775808 seconds after 1970"),
    ],
)
def test_moments(seconds: int, text: str) -> None:
    assert moment(seconds) == text


def test_counts_and_durations() -> None:
    assert [count(1, "file"), count(2, "entry", "entries")] == ["1 file", "2 entries"]
    assert [duration(each) for each in (-3, 7.9, 125, 3725)] == ["0 s", "7 s", "2:05", "1:02:05"]


def test_cells_of_wide_and_combining_characters() -> None:
    assert [cells(text) for text in ("abc", "文件", "e\u0301")] == [3, 4, 1]
    assert padded("文", 4, right=True) == "  文"


@given(st.text(), st.integers(1, 30))
def test_cut_fits(text: str, width: int) -> None:
    assert cells(cut(text, width, "…")) <= width


def test_cut_keeps_both_ends() -> None:
    assert cut("abcdefghij", 7, "…") == "abc…hij"
    assert cut("abcdefg", 7, "…") == "abcdefg"


@given(st.lists(st.text(st.characters(codec="ascii"), min_size=1)), st.integers(8, 40))
def test_packed_lines_fit_and_lose_nothing(items: list[str], width: int) -> None:
    lines = pack(items, ";", width)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines) == ";".join(items)
    assert pack(items, ";", None) == ([";".join(items)] if items else [])


COLUMNS = (Column("NAME", least=4, most=10), Column("SIZE", True), Column("UUID", rank=2))


def test_columns_that_do_not_fit_are_moved_then_cut() -> None:
    rows = [["a" * 8, "1", "u" * 20], ["b", "", ""]]
    assert fit(COLUMNS, rows, None).shown == [(0, 8), (1, 4), (2, 20)]
    assert fit(COLUMNS, rows, 36).moved == []
    narrow = fit(COLUMNS, rows, 11)
    assert (narrow.shown, narrow.moved) == ([(0, 5), (1, 4)], [2])


def test_columns_without_values_are_dropped() -> None:
    assert fit(COLUMNS, [["a", "", "u"]], None).shown == [(0, 4), (2, 4)]
    assert fit(COLUMNS, [], 80).shown == []
