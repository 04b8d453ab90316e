"""Run a command as a whole process and measure its wall time, or the memory of all it starts."""

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.05
TIMEOUT_SECONDS = 900
QUIET = 0.1
"""Processors that may be busy elsewhere on a machine that counts as quiet."""
_LEFT_OVER_SECONDS = 5.0
_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")
_FOREIGN_SETTINGS = ("LIBGUESTFS_", "PYTHON")
"""Settings of the caller that would change what is measured: a user has none of them."""


class BenchError(Exception):
    """The benchmark cannot be run or a measured command did not do its work."""


@dataclass(frozen=True, slots=True)
class Run:
    """One finished command; `peak_pss` is bytes, 0 where memory was not sampled."""

    seconds: float
    output: bytes
    peak_pss: int = 0
    peak_parts: dict[str, int] | None = None


def adopt_orphans() -> None:
    """Make this process the parent of every descendant that loses its own.

    A program that puts itself into the background stays in the measured tree that way, wherever
    its process namespace is.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise BenchError(f"prctl: {os.strerror(ctypes.get_errno())}")


def busy_processors(seconds: float = 0.5) -> float:
    """How many processors are busy while this program only waits.

    Well above 0, the times say more about the machine's other work than about the commands.
    """
    before = _busy_seconds()
    time.sleep(seconds)
    return (_busy_seconds() - before) / seconds


def settle(seconds: float) -> float:
    """Wait until nothing else runs, at most so long; return what is busy then."""
    deadline = time.monotonic() + seconds
    while (busy := busy_processors()) > QUIET and time.monotonic() < deadline:
        pass
    return busy


def _busy_seconds() -> float:
    # proc(5): user nice system idle iowait irq softirq steal, in ticks, of all processors.
    ticks = [int(word) for word in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    return float(sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def timed(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Run:
    """Run to the end with nothing beside it. Raises BenchError unless it ends with status 0."""
    begin = time.perf_counter()
    process = _start(argv, env)
    output, errors = _finish(process, argv)
    seconds = time.perf_counter() - begin
    _judge(process, argv, errors)
    return Run(seconds, output)


def sampled(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Run:
    """Run to the end and sample the memory of all its processes. Raises BenchError.

    The time is not to be compared with that of `timed`: sampling takes some.
    """
    begin = time.perf_counter()
    process = _start(argv, env)
    sampler = _Sampler()
    sampler.start()
    try:
        output, errors = _finish(process, argv)
    finally:
        sampler.stop()
    seconds = time.perf_counter() - begin
    _judge(process, argv, errors)
    if sampler.trouble:
        raise BenchError(f"memory could not be read: {sampler.trouble}")
    return Run(seconds, output, peak_pss=sum(sampler.peak.values()), peak_parts=sampler.peak)


def _start(argv: Sequence[str], env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_SETTINGS)
    }
    try:
        return subprocess.Popen(
            argv,
            env={**clean, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise BenchError(f"{argv[0]} cannot be started: {error.strerror}") from error


def _finish(process: subprocess.Popen[bytes], argv: Sequence[str]) -> tuple[bytes, bytes]:
    try:
        return process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{argv[0]} did not end within {TIMEOUT_SECONDS} seconds") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _judge(process: subprocess.Popen[bytes], argv: Sequence[str], errors: bytes) -> None:
    """Raise BenchError if the command failed or left something running."""
    left = _reap()
    if process.returncode != 0:
        text = errors.decode(errors="replace").strip()
        raise BenchError(f"{' '.join(argv)} ended with {process.returncode}:\n{text}")
    if left:
        raise BenchError(f"{argv[0]} left processes running: {', '.join(left)}")


def _reap() -> list[str]:
    """Collect orphans that have ended; names of those that go on after a grace time."""
    deadline = time.monotonic() + _LEFT_OVER_SECONDS
    while True:
        try:
            number, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if number == 0:
            if time.monotonic() > deadline:
                return sorted(_name(each) for each in _descendants(os.getpid()))
            time.sleep(0.02)


class _Sampler:
    """Adds up the PSS of this process's descendants in a thread; keeps the highest sum."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="memory")
        self.peak: dict[str, int] = {}
        self.trouble = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        due = time.monotonic()
        try:
            while not self._ended.is_set():
                parts = self._sample()
                if sum(parts.values()) > sum(self.peak.values()):
                    self.peak = parts
                due = max(due + SAMPLE_SECONDS, time.monotonic())
                self._ended.wait(due - time.monotonic())
        except PermissionError as error:
            # A process that is left out would make a figure too good.
            self.trouble = str(error)

    @staticmethod
    def _sample() -> dict[str, int]:
        """Bytes by name of program."""
        parts: dict[str, int] = {}
        for number in _descendants(os.getpid()):
            try:
                text = (_PROC / str(number) / "smaps_rollup").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended between the two looks at it
            pss = next((line for line in text.splitlines() if line.startswith(b"Pss:")), None)
            if pss is not None:
                name = _name(number)
                parts[name] = parts.get(name, 0) + int(pss.split()[1]) * 1024
        return parts


def _descendants(root: int) -> list[int]:
    """Numbers of all processes below `root`, in every namespace below this one."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            try:
                # The name, in parentheses, may contain anything; the rest does not.
                rest = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(rest[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _name(number: int) -> str:
    try:
        return (_PROC / str(number) / "comm").read_text(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return "(ended)"
