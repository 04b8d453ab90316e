"""Registry hives: what libhivex reads in them, what is known by hand, and what is hostile."""

from __future__ import annotations

import errno
import json
import struct
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.agent.regf import hive as module
from appliance.agent.regf.hive import MAX_CELLS, MAX_DAMAGES, MAX_READ, MAX_SUBKEYS, Hive
from appliance.agent.regf.record import HiveError
from appliance.agent.regf.record import Key as ReadKey
from appliance.agent.regf.values import seconds_of, values_at
from appliance.layer import MAX_TEXT
from tests.builders.command import run
from tests.builders.regf import (
    DWORD_BE,
    MULTI_SZ,
    QWORD,
    SEGMENT,
    SZ,
    Key,
    Value,
    binary,
    dword,
    expand_sz,
    hive,
    multi_sz,
    qword,
    sealed,
    sz,
    utf16,
)
from tests.builders.windows import sam_hive, software_hive, system_hive

LONG = bytes(range(256)) * 200
"""Four pieces: 51200 bytes."""

DUMP = """
import base64, hivex, json, sys
h = hivex.Hivex(sys.argv[1])
found = []
def walk(node, path):
    found.append([path, None, None, None])
    for value in h.node_values(node):
        kind, data = h.value_value(value)
        found.append([path, h.value_key(value), kind, base64.b16encode(data).decode()])
    for child in h.node_children(node):
        walk(child, path + "\\\\" + h.node_name(child))
walk(h.root(), "")
json.dump(found, sys.stdout)
"""


def opened(data: bytes) -> Hive:
    return Hive(lambda offset, length: data[offset : offset + length], len(data))


def rich() -> Key:
    """Every kind of list, of value and of name."""
    root = Key("ROOT")
    root.put(
        r"Some\Deep Key",
        sz("text", "Windows"),
        sz("", "the default"),
        expand_sz("path", r"%SystemRoot%\x"),
        multi_sz("list", "one", "zwei ü"),
        dword("number", 0xFEDCBA98),
        qword("long", 2**63 + 5),
        Value("backwards", DWORD_BE, b"\0\0\1\2"),
        binary("nothing", b""),
        binary("three", b"abc"),
        binary("five", b"abcde"),
        binary("whole", bytes(SEGMENT)),
        binary("pieces", LONG),
        sz("ünï €", "name"),
        sz("lone", "a\ud800b\U0001f600"),
    )
    for kind in ("lf", "lh", "li", "ri"):
        root.at(kind).lists = kind
        for number in range(40):
            root.put(f"{kind}\\Sub{number:02}", dword("number", number))
    root.at("Ünicode €").at("inner")
    return root


def by_hivex(path: Path) -> list[tuple[str, str | None, int | None, str | None]]:
    dumped = json.loads(run("/usr/bin/python3", "-c", DUMP, path))
    return sorted([tuple(each) for each in dumped], key=str)


def by_us(found: Hive) -> list[tuple[str, str | None, int | None, str | None]]:
    rows: list[tuple[str, str | None, int | None, str | None]] = []
    waiting: list[tuple[ReadKey, str]] = [(found.root, "")]
    while waiting:
        key, path = waiting.pop()
        rows.append((path, None, None, None))
        values = found.values(key).values()
        rows += [(path, each.name, each.type, found.data(each).hex().upper()) for each in values]
        waiting += [(each, f"{path}\\{each.name}") for each in found.subkeys(key)]
    return sorted(rows, key=str)


# --- compared with libhivex ---------------------------------------------------------------------


@pytest.mark.parametrize("minor", [3, 5, 6])
def test_same_as_libhivex(tmp_path: Path, minor: int) -> None:
    path = tmp_path / "hive"
    path.write_bytes(hive(rich(), minor=minor))
    ours = opened(path.read_bytes())
    assert by_us(ours) == by_hivex(path)
    assert ours.damages == []


@pytest.mark.parametrize("root", [system_hive({}), software_hive(), sam_hive()])
def test_same_as_libhivex_for_windows(tmp_path: Path, root: Key) -> None:
    path = tmp_path / "hive"
    path.write_bytes(hive(root))
    assert by_us(opened(path.read_bytes())) == by_hivex(path)


def test_written_by_libhivex(tmp_path: Path) -> None:
    """Its lists, bins and free cells are not those of our builder."""
    path, text = tmp_path / "hive", tmp_path / "text.reg"
    path.write_bytes(hive(Key("ROOT")))
    lines = ["Windows Registry Editor Version 5.00", "", "[\\Many]", ""]
    for number in range(200):
        lines += [f"[\\Many\\Key{number}]", f'"n"=dword:{number:08x}', '"t"="text"', ""]
    text.write_text("\n".join(lines))
    run("hivexregedit", "--merge", path, text)
    ours = opened(path.read_bytes())
    many = ours.find("many")
    assert many is not None
    assert {each.name for each in ours.subkeys(many)} == {f"Key{number}" for number in range(200)}
    assert values_at(ours, r"MANY\KEY137").number("N") == 137
    assert values_at(ours, r"Many\Key9").text("t") == "text"
    assert by_us(ours) == by_hivex(path)


def test_before_there_were_pieces(tmp_path: Path) -> None:
    """Version 1.3 keeps all data in one record; what begins with "db" is no list of pieces."""
    root = Key("ROOT", values=[binary("data", b"db\1\0" + LONG)])
    path = tmp_path / "hive"
    path.write_bytes(hive(root, minor=3))
    found = opened(path.read_bytes())
    assert found.data(found.values(found.root)["DATA"]) == b"db\1\0" + LONG


# --- known by hand ------------------------------------------------------------------------------


def test_values() -> None:
    values = values_at(opened(hive(rich())), r"some\DEEP key")
    assert values.text("TEXT") == "Windows"
    assert values.text("") == "the default"
    assert values.text("path") == r"%SystemRoot%\x"
    assert values.texts("list") == ["one", "zwei ü"]
    assert values.texts("text") == ["Windows"]
    assert values.number("number") == 0xFEDCBA98
    assert values.number("backwards") == 258
    assert values.data("nothing", 9) == b""
    assert values.data("three", 9) == b"abc"
    assert values.data("five", 9) == b"abcde"
    assert values.data("whole", 1 << 20) == bytes(SEGMENT)
    assert values.data("pieces", 1 << 20) == LONG
    assert values.data("pieces", 20000) == LONG[:20000]
    assert values.data("pieces", 3) == LONG[:3]
    assert values.text("ÜNÏ €") == "name"
    assert values.text("lone") == "a\ufffdb\U0001f600"


def test_what_is_not_there() -> None:
    found = opened(hive(rich()))
    assert found.find(r"Some\Other") is None
    assert found.find(r"Nowhere\At\All") is None
    values = values_at(found, r"Nowhere\At\All")
    assert (values.text("x"), values.texts("x"), values.number("x")) == (None, [], None)
    assert (values.data("x", 9), values.filetime("x")) == (b"", None)
    assert found.damages == []


def test_another_type_is_not_taken_for_it() -> None:
    root = Key("ROOT")
    root.put(
        "k",
        dword("number", 1),
        sz("text", "1"),
        Value("short", 4, b"\1"),
        Value("long", 4, bytes(8)),
        Value("odd", SZ, utf16("ab")[:3]),
        Value("long time", QWORD, bytes(9)),
        Value("unended", MULTI_SZ, utf16("a\0b")),
        sz("huge", "x" * 9000),
    )
    values = values_at(opened(hive(root)), "k")
    assert values.text("number") is None
    assert values.number("text") is values.number("short") is values.number("long") is None
    assert values.filetime("long time") is values.filetime("text") is None
    assert values.text("odd") == "a\ufffd"
    assert values.texts("unended") == ["a", "b"]
    assert values.text("huge") == "x" * MAX_TEXT


def test_filetimes() -> None:
    # 1601-01-01 and 2000-01-01 in `date -u -d @…`; 0 and the highest number stand for never.
    assert seconds_of(1) == -11644473600
    assert seconds_of(125911584000000000) == 946684800
    for never in (0, None, 2**63 - 1, 2**64 - 1):
        assert seconds_of(never) is None


@pytest.mark.parametrize("kind", ["lf", "lh", "li", "ri"])
def test_lists(kind: str) -> None:
    found = opened(hive(rich()))
    key = found.find(kind)
    assert key is not None
    assert [each.name for each in found.subkeys(key)] == [f"Sub{n:02}" for n in range(40)]
    assert values_at(found, f"{kind}\\sub39").number("number") == 39


def test_dirty() -> None:
    clean, dirty = hive(rich()), hive(rich(), dirty=True)
    assert not opened(clean).base.is_dirty
    assert opened(dirty).base.is_dirty
    assert opened(dirty).base.has_good_checksum
    broken = opened(clean[:508] + bytes(4) + clean[512:])
    assert broken.base.is_dirty
    assert not broken.base.has_good_checksum


# --- damaged and hostile ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"regf",
        bytes(8192),
        hive(Key("R"))[:4096],
        hive(Key("R"))[:4100],
        sealed(b"regf" + hive(Key("R"))[4:28] + b"\1\0\0\0" + hive(Key("R"))[32:4096]),
    ],
)
def test_no_hive(data: bytes) -> None:
    with pytest.raises(HiveError):
        opened(data)


def test_cut_off() -> None:
    root = rich()
    root.values.append(binary("last", bytes(16000)))
    data = hive(root)
    found = opened(data[: len(data) - 8192])
    assert by_us(found) == by_us(opened(hive(rich())))
    assert "the file ends 8192 bytes too early" in found.damages[0]


def test_unreadable_place() -> None:
    """A bad sector under one key hides that key alone."""
    root = Key("ROOT")
    for name in ("a", "b"):
        root.put(name, binary("data", name.encode() * 5000))
    data = hive(root)
    bad = data.index(b"b" * 5000)

    def read(offset: int, length: int) -> bytes:
        if offset < bad + 5000 and offset + length > bad:
            raise OSError(errno.EIO, "Input/output error")
        return data[offset : offset + length]

    found = Hive(read, len(data))
    assert values_at(found, "a").data("data", 5000) == b"a" * 5000
    assert values_at(found, "b").data("data", 5000) == b""
    assert any("Input/output error" in each for each in found.damages)


def list_of(data: bytes, signature: bytes) -> int:
    """Where the only list with that signature is in the file."""
    at = data.index(signature + struct.pack("<H", 2))
    assert data.count(signature + struct.pack("<H", 2)) == 1
    return at


def two_children(kind: str) -> bytes:
    root = Key("ROOT", lists=kind)
    root.at("a").values.append(dword("n", 1))
    root.at("b").values.append(dword("n", 2))
    return hive(root)


def test_key_that_is_its_own_child() -> None:
    data = bytearray(two_children("li"))
    at = list_of(data, b"li")
    root = int.from_bytes(data[36:40], "little")
    data[at + 4 : at + 8] = struct.pack("<I", root)
    found = opened(bytes(data))
    assert [each.name for each in found.subkeys(found.root)] == ["ROOT", "b"]
    assert found.find("\\".join(["root"] * 500)) is not None
    assert found.find(r"root\root\b") is not None


def test_one_key_many_times() -> None:
    data = bytearray(two_children("li"))
    at = list_of(data, b"li")
    data[at + 8 : at + 12] = data[at + 4 : at + 8]
    found = opened(bytes(data))
    assert [each.name for each in found.subkeys(found.root)] == ["a"]
    assert "twice" in found.damages[0]


@pytest.mark.parametrize("target", ["itself", "root", "nowhere"])
def test_list_of_lists_that_leads_elsewhere(target: str) -> None:
    data = bytearray(two_children("ri"))
    at = list_of(data, b"ri")
    goal = {"itself": at - 4096 - 4, "root": int.from_bytes(data[36:40], "little"), "nowhere": 1}
    data[at + 4 : at + 8] = struct.pack("<I", goal[target])
    found = opened(bytes(data))
    assert [each.name for each in found.subkeys(found.root)] == ["b"]
    assert found.damages


def wide(lists: int, elements: int) -> bytes:
    """A list of `lists` lists; they overlap, so that each has `elements` times the same key."""
    small = hive(Key("ROOT"))
    root = int.from_bytes(small[36:40], "little")
    bins = bytearray(small[4096:])
    start = len(bins)
    length = (4 * lists + 8 + 7) // 8 * 8
    offsets = (start + length + 8 * index for index in range(lists))
    bins += struct.pack(f"<i2sH{lists}I", -length, b"ri", lists, *offsets).ljust(length, b"\0")
    bins += struct.pack("<i2sH", -(8 + 4 * elements), b"li", elements) * lists
    bins += struct.pack("<I", root) * elements
    bins += bytes(-len(bins) % 4096)
    bins[root + 4 + 20 : root + 4 + 24] = struct.pack("<I", 0xFFFFFFFF)
    bins[root + 4 + 28 : root + 4 + 32] = struct.pack("<I", start)
    return sealed(small[:40] + struct.pack("<I", len(bins)) + small[44:4096]) + bytes(bins)


def test_a_billion_subkeys_in_a_small_file() -> None:
    data = wide(8000, 60000)
    assert len(data) < 1 << 20
    reads = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += length
        return data[offset : offset + length]

    found = Hive(read, len(data))
    begin = time.monotonic()
    assert len(list(found.subkeys(found.root))) <= MAX_SUBKEYS
    assert found.is_exhausted
    assert found.find("nothing") is None
    assert time.monotonic() - begin < 20
    assert reads < MAX_READ + (1 << 20)
    assert any("were to be read" in each or "twice" in each for each in found.damages)


def test_counts_that_are_lies() -> None:
    data = bytearray(two_children("lh"))
    root = int.from_bytes(data[36:40], "little") + 4096 + 4
    data[root + 20 : root + 24] = b"\xff" * 4
    data[root + 36 : root + 40] = b"\xff" * 4
    data[root + 40 : root + 44] = struct.pack("<I", list_of(data, b"lh") - 4100)
    found = opened(bytes(data))
    assert [each.name for each in found.subkeys(found.root)] == ["a", "b"]
    assert found.values(found.root) == {}
    assert found.damages


def touch_everything(data: bytes) -> None:
    """Read all that can be read; nothing but HiveError, and within bounds."""
    asked = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal asked
        assert offset >= 0
        assert 0 <= length <= 1 << 20
        asked += length
        return data[offset : offset + length]

    try:
        found = Hive(read, len(data))
    except HiveError:
        return
    waiting, seen = [found.root], set()
    while waiting:
        key = waiting.pop()
        if key.at in seen:
            continue
        seen.add(key.at)
        assert len(key.name) <= MAX_TEXT
        values = found.values(key)
        for value in values.values():
            assert len(value.name) <= MAX_TEXT
            assert len(found.data(value, 70000)) <= 70000
        waiting += found.subkeys(key)
    assert asked <= MAX_READ + (1 << 20)
    assert len(found.damages) <= MAX_DAMAGES
    assert len(seen) <= MAX_CELLS


PATTERN = hive(rich())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=9000))
@example(PATTERN[:4096] + b"\xff" * 4096)
def test_any_bytes(data: bytes) -> None:
    touch_everything(data)
    touch_everything(PATTERN[:4096] + data)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(PATTERN) - 1),
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"ri", b"db"]),
                st.integers(0, len(PATTERN) // 8).map(lambda at: struct.pack("<I", at * 8)),
            ),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(4096, len(PATTERN)),
)
def test_changed_hives(changes: list[tuple[int, bytes]], length: int) -> None:
    data = bytearray(PATTERN)
    for at, change in changes:
        data[at : at + len(change)] = change
    touch_everything(bytes(data[:length]))


def test_cells_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CELLS", 10)
    found = opened(hive(rich()))
    assert len(by_us(found)) < 12
    assert found.is_exhausted
    assert any("were to be read" in each for each in found.damages)
