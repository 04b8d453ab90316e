"""The one place in the guest that starts processes."""

from __future__ import annotations

import contextlib
import os
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

PARSER_ACCOUNT = 65534
_CAPABILITY = "-all,+dac_read_search"
_UNPRIVILEGED = (
    *("setpriv", f"--reuid={PARSER_ACCOUNT}", f"--regid={PARSER_ACCOUNT}", "--clear-groups"),
    *(f"--bounding-set={_CAPABILITY}", f"--inh-caps={_CAPABILITY}"),
    *(f"--ambient-caps={_CAPABILITY}", "--no-new-privs", "--"),
)
_PARSER_LIMITS = {
    # As for the exporter on the host: QEMU reads with up to 64 threads (images/sandbox.py).
    resource.RLIMIT_AS: 6 << 30,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_NPROC: 1024,
}


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


@dataclass(frozen=True, slots=True)
class Parser:
    """A program that parses evidence, and the end of a pipe that its complaints come out of."""

    process: subprocess.Popen[bytes]
    complaints: int

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self.process.poll() is not None

    def close(self) -> str:
        """End it, and return what it said last."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_DYING)
        said = b""
        with contextlib.suppress(OSError):
            said = os.read(self.complaints, 65536)
        os.close(self.complaints)
        return said[-1000:].decode("utf-8", "replace").strip()


def start_parser(
    argv: Sequence[str], descriptors: Sequence[int], stdin: int = subprocess.DEVNULL
) -> Parser:
    """Start a program that parses evidence, as an account that owns nothing, with limits.

    It inherits the `descriptors`. It may read any file, which it needs to open its descriptors by
    number, and has no other right. Parser.close must follow. Raises CommandError.
    """
    complaints, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # when full, what it says is lost
    try:
        process = subprocess.Popen(
            [*_UNPRIVILEGED, *argv],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=end,
            pass_fds=descriptors,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        os.close(complaints)
        raise CommandError(f"{argv[0]} could not be started: {error.strerror}") from error
    finally:
        os.close(end)
    for limit, value in _PARSER_LIMITS.items():
        resource.prlimit(process.pid, limit, (value, value))
    return Parser(process, complaints)


def start_watched(argv: Sequence[str], descriptor: int = -1) -> subprocess.Popen[bytes]:
    """Start a tool whose output and errors are read together as they come; it gets no input.

    It inherits `descriptor`, unless that is -1. Raises CommandError.
    """
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            pass_fds=() if descriptor < 0 else (descriptor,),
        )
    except OSError as error:
        raise CommandError(f"{argv[0]} could not be started: {error.strerror}") from error


def reap(process: subprocess.Popen[bytes], *, timeout: float) -> int | None:
    """The status of a tool that has ended or was killed, None where it hangs in the kernel."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
