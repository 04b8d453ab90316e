"""Parsers of a system's files: what they make of the ordinary, and that nothing upsets them."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.agent.system import (
    apk,
    dpkg,
    ebuild,
    elf,
    fstab,
    identity,
    kernels,
    network_ifcfg,
    network_interfaces,
    network_manager,
    network_netplan,
    network_networkd,
    pacman,
    passwd,
    rpm,
    rpm_ndb,
)
from appliance.agent.system.assignments import parse_assignments
from appliance.agent.system.logins import query_database
from appliance.agent.system.records import History, parse_wtmp
from appliance.agent.system.sections import parse_sections
from appliance.agent.system.yaml_subset import YamlError, parse_yaml
from tests.builders import systems


def test_assignments() -> None:
    lines = [
        'A="two words" # comment',
        "B='$HOME' ",
        "export C=\\$x",
        "# D=1",
        'E="a\\"b"',
        "F=",
        "bad name=1",
        "G=x y",
    ]
    expected = {"A": "two words", "B": "$HOME", "C": "$x", "E": 'a"b', "F": "", "G": "x"}
    assert parse_assignments(lines) == expected


def test_elf_headers() -> None:
    assert elf.parse_header(Path("/bin/true").read_bytes()[:20]) == "x86_64"
    head = b"\x7fELF\x02\x01" + bytes(10)
    assert elf.parse_header(head + struct.pack("<HH", 2, 183)) == "aarch64"
    assert elf.parse_header(head + struct.pack("<HH", 2, 21)) == "ppc64le"
    big = b"\x7fELF\x02\x02" + bytes(10)
    assert elf.parse_header(big + struct.pack(">HH", 2, 22)) == "s390x"
    assert elf.parse_header(b"#!/bin/sh\n" * 4) is None


def test_kernel_image() -> None:
    assert kernels.parse_image(systems.kernel_image("6.7.4-arch1-1")) == "6.7.4-arch1-1"
    assert kernels.parse_image(bytes(1024)) is None


def test_wtmp_as_utmpdump_writes_it() -> None:
    history = History()
    assert parse_wtmp(systems.wtmp(), "x86_64", history)
    assert (history.last_boot, history.last_shutdown) == (systems.BOOT_TIME, systems.SHUTDOWN_TIME)
    assert history.logins == {"anna": systems.LOGIN_TIME}


def test_wtmp_with_times_of_64_bits() -> None:
    """Of aarch64: session and time are long (<bits/utmp.h>, 400 bytes)."""
    record = struct.pack(
        "<h2xi32s4s32s256shhq4xq", 7, 1, b"", b"", b"eve", b"", 0, 0, 0, 5_000_000_000
    )
    record = record[:336] + struct.pack("<qqq", 0, 5_000_000_000, 0) + bytes(40)
    assert len(record) == 400
    history = History()
    assert parse_wtmp(record, "aarch64", history)
    assert history.logins == {"eve": 5_000_000_000}
    assert not parse_wtmp(b"\xff" * 4000, "aarch64", History())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: [x, 'y, z']\n", {"a": "1", "b": {"c": ["x", "y, z"]}}),
        ("- a\n- b: 1\n  c: 2\n-\n  - d\n", ["a", {"b": "1", "c": "2"}, ["d"]]),
        ("a:\n- 1\n- 2\nb: {c: d, e: [f]}\n", {"a": ["1", "2"], "b": {"c": "d", "e": ["f"]}}),
        ("# c\n'a b': x # y\n\"c: d\":\n  e: 'f # g'\n", {"a b": "x", "c: d": {"e": "f # g"}}),
        ("a:\n  - 2001:db8::1/64\n  - 10.0.0.1/8:\n      label: x\n",
         {"a": ["2001:db8::1/64", {"10.0.0.1/8": {"label": "x"}}]}),
        ("", {}),
    ],
)  # fmt: skip
def test_yaml(text: str, expected: object) -> None:
    assert parse_yaml(text.split("\n")) == expected


@pytest.mark.parametrize(
    "text",
    ["a: &x 1", "a: |\n  text", "\ta: 1", "a: [b", "just text", "a: 1\n   b: 2", "- a\nb: 1"],
)
def test_yaml_that_is_refused(text: str) -> None:
    with pytest.raises(YamlError):
        parse_yaml(text.split("\n"))


def test_yaml_is_not_recursive_without_end() -> None:
    with pytest.raises(YamlError):
        parse_yaml([" " * depth + "a:" for depth in range(100)])
    with pytest.raises(YamlError):
        parse_yaml(["a: " + "[" * 2000 + "]" * 2000])


def test_database() -> None:
    made = sqlite3.connect(":memory:")
    made.execute("CREATE TABLE t (x)")
    made.execute("INSERT INTO t VALUES (42)")
    made.commit()
    data = bytearray(made.serialize())
    data[18:20] = b"\x02\x02"  # as with a write-ahead log
    assert list(query_database(bytes(data), "SELECT x FROM t")) == [(42,)]
    made.execute("ALTER TABLE t RENAME TO u")
    endless = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x FROM r"
    made.execute(f"CREATE VIEW t AS SELECT max(x) AS x FROM ({endless})")
    made.commit()
    with pytest.raises(sqlite3.OperationalError):
        list(query_database(made.serialize(), "SELECT x FROM t"))
    with pytest.raises(sqlite3.Error):
        list(query_database(b"SQLite format 3\0" + b"\xff" * 4000, "SELECT x FROM t"))


def test_time_zone_of_a_file_of_rules() -> None:
    data = b"TZif2" + bytes(100) + b"\nCET-1CEST,M3.5.0,M10.5.0/3\n"
    assert identity.parse_tzfile(data) == "CET-1CEST,M3.5.0,M10.5.0/3"
    assert identity.parse_tzfile(b"TZif\0" + bytes(40)) is None
    assert identity.parse_pacman_log(b"[2024-01-15T10:00:00+0000] [PACMAN] x") == 1705312800
    assert identity.parse_pacman_log(b"[2024-01-15 10:00] x") == 1705312800


LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
    | st.text("iface =:[]{}-#,.\"'\\/09ax\t", max_size=60),
    max_size=12,
)
LINE_PARSERS: list[Callable[[list[str]], object]] = [
    parse_assignments,
    parse_sections,
    lambda lines: list(fstab.parse(lines)),
    lambda lines: list(passwd.parse_passwd(lines, passwd.parse_shadow(lines))),
    lambda lines: list(dpkg.parse_status("\n".join(lines))),
    lambda lines: list(apk.parse_installed("\n".join(lines))),
    lambda lines: pacman.parse_desc("\n".join(lines)),
    lambda lines: [ebuild.parse_name(line) for line in lines],
    lambda lines: list(rpm.parse_rows("\n".join(lines))),
    lambda lines: network_interfaces.parse(lines, "x"),
    lambda lines: network_manager.parse(parse_sections(lines), "x"),
    lambda lines: network_networkd.parse(parse_sections(lines), "x"),
    lambda lines: network_ifcfg.parse(parse_assignments(lines), "eth0", "x"),
]
WORDS = st.sampled_from(
    ["Package: a", "Version: 1", "%NAME%", "%VERSION%", "x", "", "[ipv4]", "address1=1,2", "P:a",
     "[connection]", "id=a", "V:1", "iface a inet static", "address 1", "netmask 255",
     "netmask 0.0.0.0",
     "a:x:1:1:::", "IPADDR=1", "PREFIX=9", "a b c d"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(LINES | st.lists(WORDS, max_size=12))
def test_lines_never_upset_a_parser(lines: list[str]) -> None:
    for parser in LINE_PARSERS:
        parser(lines)
    with contextlib.suppress(YamlError):
        network_netplan.parse(parse_yaml(lines), "x")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=900))
def test_bytes_never_upset_a_parser(data: bytes) -> None:
    elf.parse_header(data)
    kernels.parse_image(data + bytes(600))
    kernels.parse_image(data[:0x202].ljust(0x202, b"\0") + b"HdrS" + data)
    identity.parse_tzfile(b"TZif" + data)
    identity.parse_pacman_log(b"[" + data)
    for arch in ("x86_64", "aarch64", "s390x"):
        parse_wtmp(data, arch, History())
    with contextlib.suppress(rpm_ndb.NdbError):
        rpm_ndb.parse_header(data)
    with contextlib.suppress(sqlite3.Error):
        list(query_database(b"SQLite format 3\0" + data, "SELECT * FROM wtmp"))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.binary(min_size=1, max_size=8))
def test_damaged_headers(at: int, damage: bytes) -> None:
    """A header with one tag of each kind, damaged anywhere."""
    data = b"name\0" + b"\0" * 3 + (7).to_bytes(4, "big")
    entries = struct.pack(">8I", 1000, 6, 0, 1, 1003, 4, 8, 1)
    blob = bytearray(struct.pack(">2I", 2, len(data)) + entries + data)
    blob[at : at + len(damage)] = damage
    with contextlib.suppress(rpm_ndb.NdbError):
        rpm_ndb.parse_header(bytes(blob))
