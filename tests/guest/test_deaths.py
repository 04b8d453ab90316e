"""What dies, and what must not stay: signals to the command, killed guests, broken parts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from controller import state
from controller.base import find as find_base
from controller.state import Variant
from controller.store import Store
from tests.guest.conftest import (
    OFFICE,
    command_of,
    descendants,
    forensic,
    inspect,
    left_over,
    started,
    wait_for,
)

QEMU = "guest=forensic"
"""In the guest's command line, not in the exporters'."""


def _start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return started("inspect", "--accel", "tcg", "--json", *arguments, OFFICE)


def _gone_within(seconds: float) -> float:
    begin = time.monotonic()
    while left_over():
        assert time.monotonic() - begin < seconds, left_over()
        time.sleep(0.01)
    return time.monotonic() - begin


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4, 0.6, 0.9, 1.3, 1.8, 2.3])
def test_sigkill_at_any_moment_leaves_nothing(delay: float) -> None:
    process = _start()
    time.sleep(delay)
    process.kill()
    process.communicate()
    _gone_within(2)


def test_sigkill_while_the_guest_runs_leaves_nothing() -> None:
    process = _start()
    wait_for(process.pid, QEMU)
    process.kill()
    process.communicate()
    _gone_within(2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_other_signals_take_everything_down(number: signal.Signals) -> None:
    process = _start()
    wait_for(process.pid, QEMU)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == (130 if number == signal.SIGINT else 128 + number)
    assert stdout == b""
    assert b"Traceback" not in stderr
    _gone_within(0.5)


def test_killed_guest_is_an_error_with_a_reason() -> None:
    process = _start()
    os.kill(wait_for(process.pid, QEMU), signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=70)
    assert process.returncode == 4
    assert stdout == b""
    assert b"Traceback" not in stderr
    assert b"forensic: error: " in stderr


def test_killed_exporter_ends_in_an_error() -> None:
    process = _start("--timeout", "20")
    qemu = wait_for(process.pid, QEMU)
    exporters = [p for p in descendants(process.pid) if "-M none" in command_of(p) and p != qemu]
    for pid in exporters:
        if "bwrap" not in command_of(pid).split()[0]:
            os.kill(pid, signal.SIGKILL)
    _, stderr = process.communicate(timeout=90)
    assert process.returncode in {1, 4}, stderr
    assert b"Traceback" not in stderr


def test_evidence_that_changes_during_the_run(tmp_path: Path) -> None:
    image = tmp_path / "office.vmdk"
    shutil.copy(OFFICE, image)
    process = started("inspect", "--accel", "tcg", "--json", image)
    wait_for(process.pid, QEMU)
    with image.open("ab") as file:
        file.write(b"x")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 5, stderr
    assert b"changed during the run" in stderr
    assert b'"complete": false' in stdout
    assert b"evidence-changed" in stdout


def test_change_is_told_even_where_the_run_fails(tmp_path: Path) -> None:
    image = tmp_path / "office.vmdk"
    shutil.copy(OFFICE, image)
    process = started("inspect", "--accel", "tcg", "--json", image)
    qemu = wait_for(process.pid, QEMU)
    with image.open("ab") as file:
        file.write(b"x")
    os.kill(qemu, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=70)
    assert process.returncode == 5, stderr
    assert stdout == b""
    assert b"changed during the run" in stderr
    assert b"and the run failed" in stderr


def test_two_runs_at_once_on_the_same_image() -> None:
    first, second = _start(), _start()
    for process in (first, second):
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr


@pytest.fixture
def private_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of the caller's appliance that a test may damage."""
    cache = tmp_path / "cache"
    shutil.copytree(Store().root, cache / "forensic", copy_function=_copy)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return Store()


def _copy(source: str, target: str) -> None:
    shutil.copy2(source, target)
    os.chown(target, os.stat(source).st_uid, os.stat(source).st_gid)  # noqa: PTH116


@pytest.mark.parametrize("name", ["state", "rootfs.erofs", "vmlinux", "initramfs"])
@pytest.mark.parametrize("position", [0, 0.5, 1])
def test_damaged_appliance_is_refused_before_qemu(
    private_store: Store, name: str, position: float
) -> None:
    base = find_base(private_store)
    assert base
    folder = state.find(private_store, base, Variant("tcg", 512))
    assert folder
    file = next(path for path in (base / name, folder / name) if path.exists())
    with file.open("r+b") as stream:
        stream.seek(int((file.stat().st_size - 1) * position))
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))
    run = inspect(OFFICE)
    assert run.status == 4
    assert "not what was built" in run.stderr
    assert "forensic appliance build --force" in run.stderr
    assert forensic("appliance", "verify").status == 4


def test_truncated_and_empty_states_are_refused(private_store: Store) -> None:
    base = find_base(private_store)
    assert base
    folder = state.find(private_store, base, Variant("tcg", 512))
    assert folder
    for size in (1 << 20, 0):
        os.truncate(folder / "state", size)
        run = inspect(OFFICE)
        assert run.status == 4
        assert run.seconds < 5


def test_guest_that_gets_no_time_ends_in_exit_4() -> None:
    run = inspect("--timeout", "0.05", OFFICE)
    assert run.status == 4
    assert "did not" in run.stderr
    assert "Traceback" not in run.stderr


def test_killed_build_leaves_no_process_and_no_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    process = started("appliance", "build")
    wait_for(process.pid, "status-fd", timeout=120)
    process.kill()
    process.communicate()
    _gone_within(2)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    monkeypatch.undo()
