"""How the exporter fails, and what is left of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from images import exporter
from images.errors import ExportFailed
from images.exporter import exported

from .conftest import descendants, listing, qemu_of


def test_crash_is_seen_by_the_client_and_leaves_nothing(variants, opened, run_folder):
    with exported(opened(variants["qcow2-v3"]).plan, run_folder, name="d") as export:
        os.kill(int(qemu_of(export).name), signal.SIGSEGV)
        deadline = time.monotonic() + 5
        while descendants(export.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(export.socket))
    assert not export.socket.exists()


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["/usr/bin/false"], "crashed or did not start"),
        (["/usr/bin/sleep", "60"], "did not answer in time"),
        (["/usr/bin/perl", "-e", 'die "bad \\x1b[31m"'], r"\x1b[31m"),
        (["/nothing"], "sandbox did not start"),
    ],
)
def test_broken_exporter_is_named(argv, reason, disk, opened, run_folder, monkeypatch):
    monkeypatch.setattr(exporter, "_argv", lambda monitor: argv)
    context = exported(opened(disk).plan, run_folder, name="disk0", timeout=0.5)
    with pytest.raises(ExportFailed) as failure, context:
        pass
    assert reason in str(failure.value)
    assert "\x1b" not in str(failure.value)
    assert failure.value.hint
    assert listing(run_folder) == []


def test_missing_program_is_named(disk, opened, run_folder, monkeypatch):
    monkeypatch.setattr(exporter.sandbox, "command", lambda argv, limits: ["/nothing/bwrap"])
    with (
        pytest.raises(ExportFailed, match="nothing/bwrap"),
        exported(opened(disk).plan, run_folder, name="disk0"),
    ):
        pass


def test_flood_on_standard_error_is_bounded(disk, opened, run_folder, monkeypatch):
    script = ["/usr/bin/perl", "-e", "print STDERR 'x' x 100 . qq(\\n) for 1..200000"]
    monkeypatch.setattr(exporter, "_argv", lambda monitor: script)
    with (
        pytest.raises(ExportFailed) as failure,
        exported(opened(disk).plan, run_folder, name="disk0", timeout=5),
    ):
        pass
    assert len(str(failure.value)) < 3000


def test_socket_problems_are_named(disk, opened, tmp_path, run_folder):
    with (
        pytest.raises(ExportFailed, match="too long"),
        exported(opened(disk).plan, tmp_path / ("x" * 100), name="disk0"),
    ):
        pass
    with (
        pytest.raises(ExportFailed, match="could not create the socket"),
        exported(opened(disk).plan, run_folder / "missing", name="disk0"),
    ):
        pass
    with (
        pytest.raises(ValueError, match="export name"),
        exported(opened(disk).plan, run_folder, name="../x"),
    ):
        pass


def test_image_in_use_by_a_writer_is_refused(variants, tmp_path, opened, run_folder):
    path = tmp_path / "live.qcow2"
    shutil.copy(variants["qcow2-v3"], path)
    path.chmod(0o600)
    command = ["qemu-io", "-f", "qcow2", str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as writer:
        writer.stdin.write(b"length\n")
        writer.stdin.flush()
        assert b"40 MiB" in writer.stdout.readline()
        with (
            pytest.raises(ExportFailed, match="lock") as failure,
            exported(opened(path).plan, run_folder, name="disk0"),
        ):
            pass
        writer.stdin.close()
    assert "another program" in failure.value.hint


ENDLESS = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from images.exporter import exported
from images.image import open_image
path, folder = map(Path, sys.argv[1:])
with ExitStack() as stack:
    with exported(open_image(path, stack=stack).plan, folder, name="d") as export:
        print(export.pid, flush=True)
        time.sleep(60)
"""


def test_killed_controller_takes_the_exporter_along(variants, run_folder):
    argv = [sys.executable, "-c", ENDLESS, str(variants["qcow2-v3"]), str(run_folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(exporter.__file__).parents[1])}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment) as controller:
        outer = int(controller.stdout.readline())
        processes = [Path(f"/proc/{pid}") for pid in (outer, *descendants(outer))]
        assert len(processes) == 3
        controller.kill()
        controller.wait()
    deadline = time.monotonic() + 5
    while any(map(running, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(running, processes))


def running(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
