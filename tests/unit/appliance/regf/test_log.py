"""Transaction logs of hives: applied as the specification says, and not where they do not fit."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.agent.regf.hive import Hive
from appliance.agent.regf.log import Log, Replayed, replayed
from appliance.agent.regf.marvin import marvin32
from appliance.agent.regf.record import HiveError
from appliance.agent.regf.sectors import Sectors
from appliance.agent.regf.values import values_at
from tests.builders.regf import Key, binary, dword, hive, sealed, sz
from tests.builders.regf_log import dirty, entry, entry_of, new_log, old_log


@pytest.mark.parametrize(
    ("seed", "data", "expected"),
    [
        (0x004FB61A001BDBCC, "", 0x30ED35C100CD3C7D),
        (0x004FB61A001BDBCC, "af", 0x48E73FC77D75DDC1),
        (0x004FB61A001BDBCC, "e70f", 0xB5F6E1FC485DBFF8),
        (0x004FB61A001BDBCC, "37f495", 0xF0B07C789B8CF7E8),
        (0x004FB61A001BDBCC, "8642dc59", 0x7008F2E87E9CF556),
        (0x804FB61A001BDBCC, "153fb79826", 0x0A06114B13464DBD),
        (0x804FB61A001BDBCC, "0932e6246c47", 0xD6DD5E40AD1BC2ED),
        (0x804FB61A001BDBCC, "ab427ea8d10fc7", 0xE203987DBA252FB3),
        (0x804FB61A801BDBCC, "ff00ff", 0x9D8577C0FE0D30BF),
    ],
)
def test_marvin32(seed: int, data: str, expected: int) -> None:
    """The vectors of .NET (MarvinTests.cs)."""
    assert marvin32(seed, bytes.fromhex(data)) == expected


def state(name: str, filler: int = 0) -> bytes:
    """A hive that says `name`, in bins of the same size unless there is a filler."""
    root = Key("ROOT")
    root.put("first", binary("data", b"x" * 9000))
    root.put("key", sz("name", name), dword("size", len(name)))
    if filler:
        root.put("more", binary("data", b"y" * filler))
    return hive(root)


A, B, C = state("alpha"), state("bravo"), state("gamma", 30000)


def reading(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def after(data: bytes, *logs: bytes) -> Replayed | None:
    return replayed(reading(data), len(data), [Log(reading(each), len(each)) for each in logs])


def name_in(data: bytes, *logs: bytes) -> str | None:
    """The name after the logs; None where none was applied."""
    result = after(data, *logs)
    if result is None:
        return None
    found = Hive(result.read, result.size)
    assert not found.base.is_dirty
    name = values_at(found, "key").text("name")
    assert found.damages == []
    return name


DIRTY = dirty(A)
B_LOG = new_log(DIRTY, [entry(8, A, B)])


def test_new_log() -> None:
    assert name_in(DIRTY, B_LOG) == "bravo"


def test_grown_hive_and_several_entries() -> None:
    log = new_log(DIRTY, [entry(7, A, A), entry(8, A, B), entry(9, B, C)])
    assert name_in(DIRTY, log) == "gamma"
    result = after(DIRTY, log)
    assert result is not None
    found = Hive(result.read, result.size)
    assert values_at(found, "more").data("data", 40000) == b"y" * 30000
    assert result.size == len(C) > len(DIRTY)


def test_entries_in_two_logs() -> None:
    first, second = new_log(DIRTY, [entry(8, A, B)]), new_log(DIRTY, [entry(9, B, C)])
    assert name_in(DIRTY, first, second) == "gamma"
    assert name_in(DIRTY, second, first) == "gamma"


def test_old_entries_behind_new_ones() -> None:
    log = new_log(DIRTY, [entry(8, A, B), entry(5, A, C)])
    assert name_in(DIRTY, log) == "bravo"


def test_clean_hive_has_nothing_to_replay() -> None:
    assert after(A, B_LOG) is None


@pytest.mark.parametrize("log", [b"", bytes(5000), A, new_log(DIRTY, []), B_LOG[:600]])
def test_no_log(log: bytes) -> None:
    assert after(DIRTY, log) is None


def test_no_log_at_all() -> None:
    assert after(DIRTY) is None


def test_gap() -> None:
    assert after(DIRTY, new_log(DIRTY, [entry(9, A, B)])) is None
    log = new_log(DIRTY, [entry(8, A, B), entry(10, B, C)])
    assert name_in(DIRTY, log) == "bravo"


@pytest.mark.parametrize("at", [0, 4, 12, 16, 20, 24, 32, 40, 100, 4000])
def test_entry_with_a_changed_bit_ends_it(at: int) -> None:
    good, bad = entry(8, A, B), bytearray(entry(9, B, C))
    assert len(bad) > 5000
    bad[at] ^= 1
    assert name_in(DIRTY, new_log(DIRTY, [good, bytes(bad)])) == "bravo"
    worse = bytearray(entry(8, A, C))
    worse[at] ^= 1
    assert after(DIRTY, new_log(DIRTY, [bytes(worse)])) is None


@pytest.mark.parametrize(
    ("count", "body"),
    [
        (1, struct.pack("<II", 0, 4096)),  # no data
        (1, struct.pack("<II", 1 << 30, 512)),  # behind the bins
        (1, struct.pack("<II", 3, 512)),
        (1, struct.pack("<II", 0, 77)),
        (0xFFFFFFFF, b""),
    ],
)
def test_entry_that_is_wrong_and_hashed(count: int, body: bytes) -> None:
    wrong = entry_of(8, len(A) - 4096, count, body.ljust(1024 - 40, b"\1"))
    assert after(DIRTY, new_log(DIRTY, [wrong])) is None


def test_bad_base_block_comes_from_the_log() -> None:
    broken = DIRTY[:508] + b"\0\0\0\0" + DIRTY[512:]
    assert name_in(broken, B_LOG) == "bravo"
    assert name_in(bytes(4096) + DIRTY[4096:], B_LOG) == "bravo"


def test_old_log() -> None:
    assert name_in(DIRTY, old_log(DIRTY, A, B)) == "bravo"
    assert name_in(DIRTY, old_log(DIRTY, A, C)) == "gamma"


def test_old_log_of_another_time() -> None:
    log = bytearray(old_log(DIRTY, A, B))
    log[12] ^= 1
    assert after(DIRTY, sealed(bytes(log[:512])) + bytes(log[512:])) is None


def test_old_log_that_is_not_whole() -> None:
    log = old_log(DIRTY, A, B)
    assert after(DIRTY, log[:-512]) is None
    assert after(DIRTY, log[:512] + b"tird" + log[516:]) is None
    unended = sealed(log[:4] + b"\7\0\0\0" + log[8:512]) + log[512:]
    assert after(DIRTY, unended) is None


def test_sectors() -> None:
    base = bytes(range(256)) * 8
    sectors = Sectors(reading(base), len(base))
    sectors.put(512, b"a" * 512)
    sectors.put(3072, b"b" * 512)
    expected = bytearray(base.ljust(3584, b"\0"))
    expected[512:1024], expected[3072:3584] = b"a" * 512, b"b" * 512
    for offset, length in [(0, 4000), (500, 20), (600, 10), (1020, 10), (3000, 100), (3580, 9)]:
        assert sectors.read(offset, length) == bytes(expected[offset : offset + length])
    assert sectors.read(9999, 10) == b""


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20000), st.binary(min_size=1, max_size=8)), max_size=12),
    st.lists(st.tuples(st.integers(0, 60000), st.binary(min_size=1, max_size=8)), max_size=12),
    st.booleans(),
)
def test_changed_logs(
    in_hive: list[tuple[int, bytes]], in_log: list[tuple[int, bytes]], is_old: bool
) -> None:
    log = old_log(DIRTY, A, C) if is_old else new_log(DIRTY, [entry(8, A, B), entry(9, B, C)])
    data, changed = bytearray(DIRTY), bytearray(log)
    for target, changes in ((data, in_hive), (changed, in_log)):
        for at, change in changes:
            start = at % len(target)
            target[start : start + len(change)] = change
    changed[508:512] = sealed(bytes(changed[:512]))[508:512]
    result = after(bytes(data), bytes(changed))
    if result is None:
        return
    assert result.size < 1 << 32
    try:
        found = Hive(result.read, result.size)
    except HiveError:
        return
    values_at(found, "key").text("name")
