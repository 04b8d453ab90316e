"""Processes end with their context, and output has a bound."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from images import process
from images.quoting import shown


def test_run_feeds_input_and_keeps_both_streams():
    done = process.run(["sh", "-c", "cat; echo bad >&2; exit 3"], timeout=5, input=b"x" * 300_000)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"x" * 300_000, b"bad\n")
    assert not done.truncated


def test_output_is_bounded_but_drained():
    done = process.run(["sh", "-c", "seq 1 200000"], timeout=20, output_limit=1000)
    assert done.returncode == 0
    assert len(done.stdout) == 1000
    assert done.truncated


def test_input_that_nobody_reads():
    assert process.run(["true"], timeout=5, input=b"x" * 1_000_000).returncode == 0


def test_timeout_kills():
    begin = time.monotonic()
    with pytest.raises(process.ProcessTimeout, match="sleep"):
        process.run(["sleep", "60"], timeout=0.1)
    with pytest.raises(process.ProcessTimeout):
        process.run(["sh", "-c", "trap '' TERM; exec 1>&- 2>&-; exec sleep 60"], timeout=0.1)
    assert time.monotonic() - begin < 5


def test_missing_program():
    with pytest.raises(process.ProcessMissing, match="/nothing"):
        process.run(["/nothing"], timeout=1)


def test_environment_is_fixed(monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    done = process.run(["env"], timeout=5, env={"EXTRA": "2"})
    assert sorted(line.split(b"=")[0] for line in done.stdout.split()) == [
        b"EXTRA",
        b"HOME",
        b"LANG",
        b"PATH",
    ]


@pytest.mark.parametrize("grace", [0, 0.2])
def test_context_ends_even_what_ignores_signals(grace):
    with process.started(["sh", "-c", "trap '' TERM; exec sleep 60"], grace=grace) as child:
        assert child.poll() is None
        Path(f"/proc/{child.pid}").stat()
    assert child.returncode is not None
    assert not Path(f"/proc/{child.pid}").exists()


def test_context_ends_on_an_exception():
    with pytest.raises(RuntimeError), process.started(["sleep", "60"]) as child:
        raise RuntimeError
    assert child.returncode is not None


def test_limits_are_applied():
    argv = process.Limits(open_files=50, file_size=0).argv()
    done = process.run([*argv, "sh", "-c", "ulimit -n; ulimit -f; ulimit -c"], timeout=5)
    assert done.stdout.split() == [b"50", b"0", b"0"]


def test_shown_escapes_and_can_be_reversed():
    assert shown("Müller.img") == "Müller.img"
    assert shown(b"a\xff\x1b\n") == r"a\xff\x1b\x0a"
    assert shown("\u202e\x9b\\") == r"\u{202e}\u{9b}" + "\\\\"
