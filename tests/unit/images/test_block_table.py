"""Reading tables in pieces, and finding out what lies over what."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import block_table
from images.block_table import Layout
from images.errors import MalformedImage, Unsupported

MIB = 1 << 20
RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=12)


@pytest.mark.parametrize("form", ["<I", ">I", "<Q", ">Q"])
def test_chunks(form, bytes_source):
    numbers = [*range(300_000)]
    data = b"xyz" + struct.pack(f"{form[0]}{len(numbers)}{form[1]}", *numbers)
    chunks = list(block_table.chunks(bytes_source(data), 3, len(numbers), form, "the table"))
    assert [first for first, _ in chunks] == [*range(0, 300_000, MIB // (4 if "I" in form else 8))]
    assert [number for _, values in chunks for number in values] == numbers
    with pytest.raises(MalformedImage, match="truncated: the table"):
        list(block_table.chunks(bytes_source(data), 4, len(numbers), form, "the table"))


def test_bounds_of_a_table(bytes_source):
    source = bytes_source(bytes(100))
    block_table.check_table(source, 40, 60, "the table")
    with pytest.raises(MalformedImage, match="truncated: the table"):
        block_table.check_table(source, 40, 61, "the table")
    with pytest.raises(Unsupported, match="the table takes 64 MiB"):
        block_table.check_table(source, 40, 64 * MIB + 1, "the table")
    with pytest.raises(Unsupported, match="at most 1 MiB"):
        block_table.check_table(source, 40, MIB + 1, "the table", limit=MIB)


@given(taken=RANGES, asked=st.tuples(st.integers(0, 50), st.integers(1, 12)))
def test_layout(taken, asked):
    layout = Layout()
    names: dict[int, str] = {}
    for number, (start, length) in enumerate([*taken, asked]):
        covered = {names[byte] for byte in range(start, start + length) if byte in names}
        found = layout.add(start, length, str(number))
        assert found in covered if covered else found is None
        if not covered:
            names.update(dict.fromkeys(range(start, start + length), str(number)))
        elif length:
            assert layout.at(start, length) in covered
