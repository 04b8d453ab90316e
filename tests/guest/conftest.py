"""Tests with a real guest. They share the caller's appliance and prove that the host is clean."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.domain_xml import Accelerator
from controller.provide import provide
from controller.settings import Settings
from controller.store import Store

ROOT = Path(__file__).resolve().parents[2]
FORENSIC = ROOT / ".venv/bin/forensic"
OFFICE = ROOT / "docs/samples/office.vmdk"
_PR_SET_CHILD_SUBREAPER = 36


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder boots a guest."""
    for item in items:
        if Path(item.path).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.guest)


def pytest_configure() -> None:
    """What a killed command leaves behind becomes a child of ours, and so is found."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass
class Run:
    """A finished command."""

    status: int
    stdout: bytes
    stderr: str
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout)

    def layers(self) -> dict[str, dict[str, Any]]:
        return {layer["address"]: layer for layer in self.json["layers"]}


def forensic(*arguments: str | Path, timeout: float = 120, **options: Any) -> Run:
    """Run the command to its end."""
    begin = time.monotonic()
    done = subprocess.run(
        [FORENSIC, *arguments], capture_output=True, timeout=timeout, check=False, **options
    )
    return Run(done.returncode, done.stdout, done.stderr.decode(), time.monotonic() - begin)


def inspect(*images: str | Path, **options: Any) -> Run:
    """`forensic inspect --json` with emulation, whatever the host offers."""
    return forensic("inspect", "--json", "--accel", "tcg", *images, **options)


def started(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command and leave it running."""
    return subprocess.Popen(
        [FORENSIC, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def descendants(pid: int) -> list[int]:
    """All processes below one, as the host sees them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = [int(word) for word in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def command_of(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


def wait_for(pid: int, program: str, timeout: float = 60) -> int:
    """Wait until a descendant of `pid` runs `program`; return its pid."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for each in descendants(pid):
            if program in command_of(each):
                return each
        time.sleep(0.01)
    pytest.fail(f"no {program} below {pid}")


def left_over() -> list[str]:
    """Processes that outlived the command that started them."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "Z":
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        else:
            found.append(f"{pid} {command_of(pid)}")
    return found


@pytest.fixture(autouse=True)
def clean_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test: no process, no socket, no temporary file, no mount."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(temporary))
    mounts = Path("/proc/self/mounts").read_text()
    yield
    deadline = time.monotonic() + 2
    while left_over() and time.monotonic() < deadline:
        time.sleep(0.02)
    leftovers = left_over()
    for line in leftovers:
        with suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    assert not leftovers
    assert list(temporary.iterdir()) == []
    assert "/run/forensic" not in Path("/proc/net/unix").read_text()
    assert Path("/proc/self/mounts").read_text() == mounts
    assert not list(Store().root.glob("building-*"))


@pytest.fixture(scope="session", autouse=True)
def appliance() -> Any:
    """The appliance and its saved state, built here if this is the first use."""
    accelerator: Accelerator = "tcg"
    return provide(Settings(accelerator=accelerator), lambda step: print(step, file=sys.stderr))
