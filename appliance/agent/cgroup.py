"""A control group for a tool: memory and processes bounded, and all of it killed at once.

cgroup v2: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_RESERVED = 96 << 20
"""Memory that is left to the agent, the SSH server and the kernel."""

_PROCESSES = 64
_DYING = 5.0
_numbers = count()


def prepare() -> None:
    """Have memory and processes of groups bounded. Once, at boot."""
    (ROOT / "cgroup.subtree_control").write_text("+memory +pids")


class ControlGroup:
    """One tool's group."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, pid: int) -> None:
        """Move a process in; what it starts follows it."""
        with contextlib.suppress(ProcessLookupError):
            (self._folder / "cgroup.procs").write_text(str(pid))

    def kill(self) -> None:
        """SIGKILL for all that is in it."""
        (self._folder / "cgroup.kill").write_text("1")

    @property
    def peak(self) -> int:
        """The most memory that it had, in bytes."""
        return int((self._folder / "memory.peak").read_text())

    @property
    def is_starved(self) -> bool:
        """Whether the kernel killed something in it because its memory was used up."""
        events = dict(
            line.split() for line in (self._folder / "memory.events").read_text().splitlines()
        )
        return int(events["oom_kill"]) > 0


@contextmanager
def control_group() -> Iterator[ControlGroup]:
    """Yield a group that may use what memory the guest has to spare."""
    folder = ROOT / f"tool{next(_numbers)}"
    folder.mkdir()
    try:
        (folder / "memory.max").write_text(str(available()))
        (folder / "pids.max").write_text(str(_PROCESSES))
        (folder / "memory.oom.group").write_text("1")
        yield ControlGroup(folder)
    finally:
        _remove(folder)


def available() -> int:
    """Bytes of memory that a tool can have in this guest."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (amount,) = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return max(int(amount) * 1024 - _RESERVED, 16 << 20)


def _remove(folder: Path) -> None:
    """A process that hangs in the kernel keeps its group; the host ends the guest then."""
    (folder / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + _DYING
    while time.monotonic() < deadline:
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.01)
        else:
            return
