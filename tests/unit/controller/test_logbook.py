"""Where consoles are kept: private files, a bounded number, nothing overwritten."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controller import logbook
from controller.errors import EnvironmentFailed, ForensicError
from controller.logbook import KEPT, keep, last_lines, write

CONSOLE = b"boot\r\n\x1b[31mred\xff\r\nKernel panic\r\n"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A clock that moves a second per call."""
    calls: list[int] = []

    def strftime(_form: str, _time: object) -> str:
        calls.append(0)
        return f"20260101T{len(calls):06}"

    monkeypatch.setattr(logbook.time, "strftime", strftime)
    return calls


def test_keep() -> None:
    path = keep(CONSOLE)
    assert path.read_bytes() == CONSOLE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.parent.parts[-3:] == ("state", "forensic", "logs")


def test_only_the_last_ones_are_kept(clock: list[int]) -> None:
    paths = [keep(b"%d" % number) for number in range(KEPT + 7)]
    assert len(clock) == KEPT + 7
    assert sorted(paths[0].parent.iterdir()) == paths[-KEPT:]
    assert [path.read_bytes() for path in paths[-2:]] == [b"25", b"26"]


def test_other_files_are_left_alone(clock: list[int]) -> None:
    other = keep(b"").parent / "mine.txt"
    other.write_text("")
    for _ in range(KEPT + 3):
        keep(b"")
    assert other.exists()
    assert clock


def test_two_in_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook.time, "strftime", lambda *_: "20260101T000000")
    assert keep(b"1") != keep(b"2")


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """It happens while another error is being told: that one must not be lost in a traceback."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ForensicError):
        keep(CONSOLE)


def test_write(tmp_path: Path) -> None:
    write(tmp_path / "log", CONSOLE)
    assert (tmp_path / "log").read_bytes() == CONSOLE
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "folder", "missing"])
def test_nothing_is_overwritten(tmp_path: Path, kind: str) -> None:
    (tmp_path / "target").write_text("precious")
    path = tmp_path / "log"
    match kind:
        case "file":
            path.write_text("precious")
        case "link":
            path.symlink_to(tmp_path / "target")
        case "dangling":
            path.symlink_to(tmp_path / "new")
        case "folder":
            path.mkdir()
        case "missing":
            path = tmp_path / "missing" / "log"
    with pytest.raises(EnvironmentFailed, match="cannot be written") as caught:
        write(path, CONSOLE)
    assert caught.value.hint
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "new").exists()


def test_name_is_escaped(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed) as caught:
        write(tmp_path / "a\n\x1b[31m" / "log", CONSOLE)
    assert caught.value.message.isprintable()


def test_last_lines() -> None:
    assert last_lines(CONSOLE, 2) == ["\\x1b[31mred\\xff", "Kernel panic"]
    assert last_lines(b"", 8) == []
    assert last_lines(b"\n \r\n\t\n", 8) == []
    assert last_lines(b"x" * 100_000, 8) == ["x" * 300]
    assert len(last_lines(b"a\n" * 100_000, 8)) == 8
    assert all(line.isprintable() for line in last_lines(bytes(range(256)) * 9, 99))
