"""The report for people: its text as a whole, and what must never be in it.

FORENSIC_REGENERATE=1 writes the texts in tests/golden/report anew; look at the difference.
"""

from __future__ import annotations

import io
import os
import re
import unicodedata
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.layer import Content, Kind, Layer, Status
from appliance.system import Application, MountEntry, System, User
from controller.columns import cells
from controller.report import render
from controller.results import EvidenceHeader, Inspection
from tests.unit.controller.generated import TEXT, inspections
from tests.unit.controller.inspections import (
    HOSTILE,
    SAMPLES,
    disk,
    ext4,
    inspection,
    many,
    office,
    two_disks,
)

GOLDEN = Path(__file__).parents[2] / "golden/report"
UNCHANGED = "evidence unchanged: 1 file compared by size, mtime, ctime and inode"
NOTICE = (
    "the guest's processor was emulated (there is no /dev/kvm): "
    "the cell, not the hypervisor, is the boundary around the guest"
)
STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool = False, encoding: str = "utf-8") -> None:
        super().__init__()
        self._terminal = terminal
        self._encoding = encoding

    @property
    def encoding(self) -> str:
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def printed(result: Inspection, stream: Stream | None = None, *, colour=None, verbose=False) -> str:
    stream = stream or Stream()
    render(
        result,
        file=stream,
        colour=colour,
        verbose=verbose,
        evidence_line=UNCHANGED,
        notice=NOTICE,
    )
    return stream.getvalue()


FORMS = {
    "pipe": (Stream, False),
    "verbose": (Stream, True),
    "80": (lambda: Stream(terminal=True), False),
    "ascii": (lambda: Stream(encoding="ascii"), False),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SAMPLES)
def test_golden(name: str, form: str) -> None:
    make_stream, verbose = FORMS[form]
    text = printed(SAMPLES[name](), make_stream(), colour=False, verbose=verbose)
    golden = GOLDEN / f"{name}.{form}.txt"
    if os.environ.get("FORENSIC_REGENERATE"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", ["office", "two_disks", "damaged", "many"])
@pytest.mark.parametrize("verbose", [False, True])
def test_a_wide_terminal_shows_what_a_pipe_gets(
    name: str, verbose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    coloured = printed(SAMPLES[name](), Stream(terminal=True), verbose=verbose)
    piped = printed(SAMPLES[name](), verbose=verbose)
    assert "\x1b[" in coloured
    assert "\x1b" not in piped
    assert STYLE.sub("", coloured) == piped


@pytest.mark.parametrize("name", SAMPLES)
def test_colours_change_nothing_else(name: str) -> None:
    coloured = printed(SAMPLES[name](), Stream(terminal=True))
    assert STYLE.sub("", coloured) == printed(SAMPLES[name](), Stream(terminal=True), colour=False)


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_not_wanted(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert "\x1b" not in printed(office(), Stream(terminal=True))


def test_colours_can_be_asked_for() -> None:
    assert "\x1b[" in printed(office(), colour=True)


@pytest.mark.parametrize("columns", [60, 72, 80, 100, 120, 160])
@pytest.mark.parametrize("name", SAMPLES)
def test_lines_fit_the_terminal(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for verbose in (False, True):
        text = printed(SAMPLES[name](), Stream(terminal=True), colour=False, verbose=verbose)
        assert max(cells(line) for line in text.splitlines()) <= columns


@pytest.mark.parametrize("columns", [20, 60, 80, 100, 120, 160])
def test_a_narrow_terminal_leaves_nothing_out(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = printed(two_disks(), Stream(terminal=True), colour=False)
    # A long word may be broken where a line is too short for it.
    text = re.sub(r"[\s│├└─]", "", text)
    for word in ("2048-4194303", "1048576", "WzG8bW-wG1n-6VlH-J1dV-uYxT-N0Vq-Rk2Lx3", "data/srv"):
        assert word in text


def test_a_long_name_is_cut_only_on_a_terminal() -> None:
    layer = Layer("disk0/p1", Kind.PARTITION, ["disk0"], 0, 512, Status.MAPPED)
    content = Content("ext4", label="begin" + "x" * 500 + "end")
    named = Layer("disk0/p2", Kind.PARTITION, ["disk0"], 512, 512, Status.MAPPED, content)
    result = inspection([disk(1024), layer, named])
    assert content.label in printed(result)
    cut = printed(result, Stream(terminal=True), colour=False)
    assert re.search(r"beginx+…x+end", cut)


def test_a_group_is_drawn_once_with_its_other_parents_named() -> None:
    text = printed(two_disks())
    assert len(re.findall(r"─ data +volume group", text)) == 1
    assert "also on disk1/p1" in text
    assert "part of data, shown under disk0/p1" in text


def test_every_layer_is_in_the_report() -> None:
    addresses = {layer.address for layer in many().layers}
    assert addresses <= set(printed(many()).split())


def test_what_the_encoding_lacks_is_escaped() -> None:
    layer = Layer("disk0", Kind.DISK, [], None, 1, Status.MAPPED, Content("ext4", label="Büro 文"))
    text = printed(inspection([layer]), Stream(encoding="latin-1"))
    assert r"Büro \u{6587}" in text
    text.encode("latin-1")


def test_ascii_only() -> None:
    for make in SAMPLES.values():
        printed(make(), Stream(encoding="ascii", terminal=True), colour=False).encode("ascii")


def test_own_lines_are_not_escaped_twice() -> None:
    stream = Stream()
    render(office(), file=stream, evidence_line="a\\x1b changed\nb\x1b", notice="")
    assert stream.getvalue().endswith("\na\\x1b changed\nb\\x1b\n")


def test_parents_in_a_circle_are_still_shown() -> None:
    layers = [
        Layer("a", Kind.PARTITION, ["b"], 0, 1, Status.MAPPED),
        Layer("b", Kind.PARTITION, ["a"], 0, 1, Status.MAPPED),
        Layer("c", Kind.PARTITION, ["nowhere"], 0, 1, Status.MAPPED),
        Layer("d", Kind.PARTITION, ["d"], 0, 1, Status.MAPPED),
    ]
    text = printed(inspection(layers))
    assert "Other layers" in text
    assert {"a", "b", "c", "d"} <= set(text.split())


def test_a_chain_of_4096_layers() -> None:
    layers = [disk(1 << 30)]
    layers += [
        Layer(f"x{n}", Kind.PARTITION, [layers[-1].address if n == 0 else f"x{n - 1}"], 0, 1,
              Status.MAPPED)
        for n in range(4095)
    ]  # fmt: skip
    text = printed(inspection(layers))
    assert "x4094 " in text
    assert max(map(len, text.splitlines())) < 200


def allowed(character: str) -> bool:
    """What a terminal only draws, one cell after the other."""
    return unicodedata.category(character) not in {
        "Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp",
    } and (character == " " or unicodedata.category(character) != "Zs")  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    inspections(TEXT), st.booleans(), st.booleans(), st.sampled_from(["utf-8", "ascii", "latin-1"])
)
def test_nothing_in_the_report_acts_on_the_terminal(
    result: Inspection, terminal: bool, verbose: bool, encoding: str
) -> None:
    stream = Stream(terminal=terminal, encoding=encoding)
    text = printed(result, stream, colour=False, verbose=verbose)
    bad = {character for character in text if character != "\n" and not allowed(character)}
    assert not bad
    text.encode(encoding)
    coloured = printed(
        result, Stream(terminal=terminal, encoding=encoding), colour=True, verbose=verbose
    )
    assert STYLE.sub("", coloured) == text


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_a_name_never_makes_a_line(name: str) -> None:
    layer = Layer("disk0", Kind.DISK, [], None, 1 << 30, Status.MAPPED, ext4(1 << 30, name, 4096))
    reference = Layer(
        "disk0", Kind.DISK, [], None, 1 << 30, Status.MAPPED, ext4(1 << 30, "x", 4096)
    )
    lines = printed(inspection([layer])).splitlines()
    assert len(lines) == len(printed(inspection([reference])).splitlines())
    assert len(printed(inspection([layer])).split("\n")) == len(lines) + 1


def test_a_detached_header_is_named_with_its_layer() -> None:
    header = EvidenceHeader("disk0/p1", "/cases/17/head\x1b[31mer", 4096, "ab" * 32)
    text = printed(msgspec.structs.replace(office(), headers=[header]))
    assert "head\\x1b[31mer\n  LUKS header of disk0/p1, 4096 bytes, SHA-256 abab" in text


def test_systems_are_shown_and_nothing_of_them_raw() -> None:
    hostile = System(
        "disk0/p1",
        "/@",
        "linux",
        product_name=HOSTILE[:-1],
        install_date=2**62,
        last_boot=1_711_972_800,
        users=[
            User("root", "0", shell="/bin/sh", last_login=1_711_972_800),
            User("daemon", "1", shell="/usr/sbin/nologin"),
            User("anna", "1000", locked=True),
        ],
        mountpoints=[MountEntry("/dev/sda1", "/", "ext4", None, "disk0/p1", "a guess")],
        applications=[Application("a", "1", "2", "3", "all")],
        package_format="deb",
    )
    result = msgspec.structs.replace(office(), systems=[hostile, System("disk1", "/", "unknown")])
    for verbose in (False, True):
        stream = Stream()
        render(result, file=stream, verbose=verbose, evidence_line=UNCHANGED, only_systems=True)
        text = stream.getvalue()
        assert all(each.isprintable() or each == "\n" for each in text)
        assert "2 operating systems" in text
        assert "disk0/p1:/@  \\x1b[31mred" in text
        assert "root (0, /bin/sh, last login 2024-04-01T12:00:00Z); " in text
        assert "anna (1000, locked)" in text
        assert "/ = disk0/p1" in text
        assert "disk1  unknown system (unknown)" in text
        assert "LAYER" not in text
        assert ("a 3:1-2 all" in text) is verbose
        assert ("daemon (1" in text) is verbose
    stream = Stream()
    render(office(), file=stream, evidence_line=UNCHANGED)
    assert "operating system" not in stream.getvalue()
