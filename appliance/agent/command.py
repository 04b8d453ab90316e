"""The one place in the guest that starts processes."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin",
    "LANG": "C.UTF-8",
    "HOME": "/",
    "TZ": "UTC",
    "DM_DISABLE_UDEV": "1",
}
MAX_OUTPUT = 8 * 1024 * 1024
_DYING = 5.0


class CommandError(Exception):
    """A tool could not be started, did not end in time, or said too much."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a tool ended: exit status (negative: the signal) and its bounded output."""

    status: int
    stdout: bytes
    stderr: bytes


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: bytes | bytearray = b"",
    inherited: Sequence[int] = (),
    memory: int | None = None,
) -> Completed:
    """Run a tool to its end and return what it said. It gets SIGKILL after `timeout` seconds.

    It has the descriptors `inherited` too. Of `memory` bytes it may use no more for its data
    (RLIMIT_DATA, in force before it gets its input). Raises CommandError where it is missing, runs
    out of time, or writes more than MAX_OUTPUT.
    """
    process = start(argv, inherited)
    if memory is not None:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))
    return finish(process, argv, timeout=timeout, stdin=stdin)


def start(argv: Sequence[str], inherited: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a tool that waits for its standard input; `finish` must follow."""
    try:
        return subprocess.Popen(
            argv,
            pass_fds=inherited,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise CommandError(f"{argv[0]} could not be started: {error.strerror}") from error


def finish(
    process: subprocess.Popen[bytes],
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: bytes | bytearray = b"",
) -> Completed:
    """Give the started tool its input and wait for its end; see `run`."""
    try:
        # Any buffer will do, whatever typeshed says; a key is not copied for it.
        stdout, stderr = process.communicate(cast("bytes", stdin), timeout)
    except subprocess.TimeoutExpired as error:
        process.kill()
        # In the kernel for ever, it does not even die: the host will end the guest.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_DYING)
        raise CommandError(f"{argv[0]} did not end within {timeout:g} seconds") from error
    if len(stdout) + len(stderr) > MAX_OUTPUT:
        raise CommandError(f"{argv[0]} wrote more than {MAX_OUTPUT} bytes")
    return Completed(process.returncode, stdout, stderr)


def start_server(argv: Sequence[str], port: int) -> subprocess.Popen[bytes]:
    """Start a server whose standard input and output are the open `port`."""
    return subprocess.Popen(
        argv, stdin=port, stdout=port, stderr=subprocess.DEVNULL, env=ENVIRONMENT, cwd="/"
    )
