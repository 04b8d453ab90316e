"""The one place on the host that starts processes. Nothing outlives its context."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

Process = subprocess.Popen[bytes]
PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL

_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
}
_CHUNK = 65536


class ProcessError(Exception):
    """A program could not be run as asked."""


class ProcessMissing(ProcessError):
    """The program is not installed, or may not be executed."""


class ProcessTimeout(ProcessError):
    """The program did not finish within its time and was killed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished program; at most `output_limit` bytes of each stream were kept."""

    returncode: int
    stdout: bytes
    stderr: bytes
    truncated: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits, enforced by prlimit(1): no code of ours runs between fork and exec.

    Sizes in bytes, `cpu` in seconds; None leaves the caller's limit.
    """

    address_space: int | None = None
    open_files: int | None = None
    processes: int | None = None
    file_size: int | None = None
    core: int | None = 0
    cpu: int | None = None
    locked_memory: int | None = None
    message_queues: int | None = None

    def argv(self) -> list[str]:
        """The prefix that applies these limits to the command after it."""
        values = {
            "as": self.address_space,
            "nofile": self.open_files,
            "nproc": self.processes,
            "fsize": self.file_size,
            "core": self.core,
            "cpu": self.cpu,
            "memlock": self.locked_memory,
            "msgqueue": self.message_queues,
        }
        options = [f"--{name}={value}" for name, value in values.items() if value is not None]
        return ["/usr/bin/prlimit", *options, "--"]


@contextlib.contextmanager
def started(  # noqa: PLR0913 -- what a process has, has to be said somewhere
    argv: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    stdin: int | IO[bytes] = DEVNULL,
    stdout: int | IO[bytes] = DEVNULL,
    stderr: int | IO[bytes] = DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    grace: float = 2.0,
) -> Iterator[Process]:
    """Run `argv` for the length of the context; then SIGTERM, after `grace` seconds SIGKILL.

    `env` is added to a small fixed environment. `grace` of 0 kills at once. Raises ProcessMissing.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            pass_fds=tuple(pass_fds),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**_ENVIRONMENT, **(env or {})},
            cwd=cwd,
        )
    except OSError as error:
        raise ProcessMissing(
            f"could not start {argv[0]}: {error.strerror}; is it installed?"
        ) from error
    try:
        yield process
    finally:
        _end(process, grace)


def wait(process: Process, seconds: float) -> bool:
    """Whether the process has ended within that time."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _end(process: Process, grace: float) -> None:
    try:
        if process.poll() is None and grace > 0:
            process.terminate()
            wait(process, grace)
    finally:
        # Reached on Ctrl-C during the wait too: the child must be gone and reaped.
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def run(  # noqa: PLR0913
    argv: Sequence[str],
    *,
    timeout: float,
    input: bytes | None = None,
    output_limit: int = 1 << 20,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run to the end and keep the first `output_limit` bytes of each output stream.

    `timeout` is in seconds of wall-clock time. Raises ProcessMissing or ProcessTimeout.
    """
    with started(
        argv,
        stdin=DEVNULL if input is None else PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=env,
        cwd=cwd,
        pass_fds=pass_fds,
        grace=0.5,
    ) as process:
        streams = _Streams(process, input or b"", output_limit)
        deadline = time.monotonic() + timeout
        try:
            streams.pump(deadline)
            returncode = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise ProcessTimeout(f"{argv[0]} did not finish within {timeout:g} seconds") from error
    return Completed(returncode, bytes(streams.stdout), bytes(streams.stderr), streams.truncated)


class _Streams:
    """Feeds standard input and collects both outputs without ever blocking on one of them."""

    def __init__(self, process: Process, untaken_input: bytes, limit: int) -> None:
        self._process = process
        self._untaken_input = memoryview(untaken_input)
        self._limit = limit
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.truncated = False

    def pump(self, deadline: float) -> None:
        """Until both outputs are closed; TimeoutError at the deadline (monotonic seconds)."""
        process = self._process
        with selectors.DefaultSelector() as selector:
            for stream, target in ((process.stdout, self.stdout), (process.stderr, self.stderr)):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ, target)
            if process.stdin is not None:
                selector.register(process.stdin, selectors.EVENT_WRITE)
            while selector.get_map():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                for key, _ in selector.select(left):
                    self._serve(selector, key)

    def _serve(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        stream = key.fileobj
        if isinstance(stream, int) or not hasattr(stream, "close"):
            return
        done = self._take(key) if key.data is not None else self._give(key.fd)
        if done:
            selector.unregister(stream)
            with contextlib.suppress(OSError):
                stream.close()

    def _take(self, key: selectors.SelectorKey) -> bool:
        block = os.read(key.fd, _CHUNK)
        room = self._limit - len(key.data)
        key.data.extend(block[:room])
        self.truncated = self.truncated or len(block) > room
        return not block

    def _give(self, fd: int) -> bool:
        # At most PIPE_BUF bytes: a pipe that select called writable then takes them all.
        try:
            taken = os.write(fd, self._untaken_input[:4096])
        except BrokenPipeError:
            return True
        self._untaken_input = self._untaken_input[taken:]
        return not self._untaken_input
