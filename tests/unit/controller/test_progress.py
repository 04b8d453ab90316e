"""What appears on standard error while something is being done."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.progress import Progress

ROOT = Path(__file__).parents[3]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def terminal_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_a_pipe_gets_a_line_for_each_new_operation(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.step("restore the guest")
        progress.step("recognise", "disk0")
        progress.step("recognise", "disk0/p1")
        progress.step("activate", "lvg1")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "restore the guest\nrecognise disk0\nactivate lvg1\n"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for stream in (None, Terminal()):
        with Progress(quiet=True, stream=stream) as progress:
            progress.step("restore")
            progress.note("a note")
        assert (stream.getvalue() if stream else "") == ""
    assert capsys.readouterr() == ("", "")


def test_a_terminal_is_left_clean(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Terminal()
    with Progress(stream=stream) as progress:
        progress.step("recognise", "disk0")
        progress.note("stays")
    text = stream.getvalue()
    assert "\x1b[?25l" in text
    assert text.endswith("\x1b[?25h")
    assert text.rindex("stays") < text.rindex("recognise disk0") < text.rindex("\x1b[2K")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_it_is_left_clean_whatever_happens(error: type[BaseException]) -> None:
    stream = Terminal()
    with contextlib.suppress(error), Progress(stream=stream) as progress:
        progress.step("recognise")
        raise error
    assert stream.getvalue().endswith("\x1b[?25h")


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(stream=stream) as progress:
        progress.step("recognise")
    assert stream.getvalue() == "recognise\n"


def test_rate_and_time_left() -> None:
    clock = Clock()
    progress = Progress(stream=io.StringIO(), clock=clock)
    assert progress.status() == "  0 s  starting"
    progress.step("hash", "disk0", 0, 100 << 20)
    assert progress.status() == "  0 s  hash disk0, 0% of 100 MiB"
    clock.now += 4
    progress.step("hash", "disk0", 40 << 20, 100 << 20)
    assert progress.status() == "  4 s  hash disk0, 40% of 100 MiB, 10 MiB/s, 6 s left"
    clock.now += 90
    progress.step("unpack", "", 12, 300, unit="packages")
    assert progress.status() == " 1:34  unpack, 4% of 300 packages"
    progress.step("copy", "", 5 << 20)
    assert progress.status() == " 1:34  copy, 5 MiB"


@pytest.mark.parametrize(("done", "total"), [(5, 0), (9, 3), (-4, 3), (None, 3), (0, 2**80)])
def test_numbers_that_make_no_sense(done: int | None, total: int) -> None:
    clock = Clock()
    progress = Progress(stream=io.StringIO(), clock=clock)
    progress.step("hash", "", 0, 3)
    clock.now += 10
    progress.step("hash", "", done, total)
    assert progress.status().startswith(" 10 s  hash")


@given(st.text(st.characters()), st.text(st.characters()))
def test_nothing_from_the_guest_acts_on_the_terminal(operation: str, detail: str) -> None:
    for stream in (io.StringIO(), Terminal()):
        with Progress(stream=stream) as progress:
            progress.step(operation, detail)
            progress.note(detail)
        for character in CONTROL.sub("", stream.getvalue()):
            assert character == "\n" or unicodedata.category(character)[0] in "LMNPSZ"


def test_markup_is_not_interpreted() -> None:
    stream = Terminal()
    with Progress(stream=stream) as progress:
        progress.step("[red]x[/red]", "[/]")
        progress.note("[bold]n")
    assert "[red]x[/red] [/]" in stream.getvalue()
    assert "[bold]n" in stream.getvalue()


class Broken(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("terminal", [False, True])
def test_a_closed_standard_error_stops_nothing(terminal: bool) -> None:
    with Progress(stream=Broken(terminal=terminal)) as progress:
        progress.step("recognise")
        progress.note("x")
    closed = io.StringIO()
    closed.close()
    with Progress(stream=closed) as progress:
        progress.step("recognise")


def test_a_real_terminal_is_one_line() -> None:
    program = (
        "import time\n"
        "from controller.progress import Progress\n"
        "with Progress() as progress:\n"
        "    progress.step('recognise', 'x' * 500)\n"
        "    time.sleep(0.6)\n"
        "    print('result')\n"
    )
    leader, follower = pty.openpty()
    run = subprocess.run(
        [sys.executable, "-c", program],
        stderr=follower,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "80"},
        check=True,
    )
    os.close(follower)
    seen = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert run.stdout == b"result\n"
    lines = [part for part in re.split(r"[\r\n]+", CONTROL.sub("\r", seen)) if part]
    assert lines
    assert all(len(line) <= 80 and line.endswith("…") for line in lines)
