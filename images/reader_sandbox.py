"""The sandbox of the reader, which serves what QEMU cannot read: E01, gzip and xz.

It is the exporter's (images.sandbox), with a filter of system calls and the program's package
`images` in it. Debian's Python runs there; the evidence arrives as open descriptors.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from images import sandbox
from images.errors import ExportFailed, SandboxFailed
from images.evidence import EvidenceFile
from images.process import DEVNULL, PIPE, Process, ProcessError, started
from images.quoting import shown
from images.seccomp import UnknownMachine, startup_filter
from images.served_socket import Stderr, end

DEFAULT_LIMIT = 1 << 40
"""Bytes of the largest disk that is unpacked, unless the caller says otherwise: 1 TiB."""

NEEDED = {"/usr/bin/python3": "python3"}
"""What has to be installed, and the package of each."""

_CODE = Path(__file__).parent
_ROOT = "/reader"
PYTHON = ("/usr/bin/python3", "-s", "-B")
_ENVIRONMENT = {
    "PYTHONPATH": _ROOT,
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONSAFEPATH": "1",
    "LANG": "C.UTF-8",
    # Else Python would ask the name service for it.
    "HOME": "/nonexistent",
    "PATH": "/usr/bin",
    # Each arena takes 128 MiB of addresses, which are limited.
    "MALLOC_ARENA_MAX": "2",
}
# xz: 256 MiB of unpacked blocks, and one more block with its dictionary. Threads: 8 MiB each.
_ADDRESS_SPACE = 3 << 30
# Below are those that a program has of its own.
_FIRST_DESCRIPTOR = 10
_REFUSED, _HINT = "REFUSED ", " HINT "


@dataclass(frozen=True, slots=True)
class Running:
    """A program in the sandbox, and what it says on standard error."""

    process: Process
    stderr: Stderr


@contextlib.contextmanager
def handed_over(files: Sequence[EvidenceFile]) -> Iterator[list[int]]:
    """Descriptors of these files to be inherited, with numbers that nothing else uses."""
    with ExitStack() as stack:
        yield [stack.enter_context(_own(file.fd)) for file in files]


@contextlib.contextmanager
def _own(descriptor: int) -> Iterator[int]:
    # Of its own where possible: on a shared one the reader could change flags under our feet.
    # O_NOATIME stays: reading must not change the access time.
    flags = os.O_RDONLY | os.O_CLOEXEC | fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NOATIME
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        # Opened before this process gave up the right to open it.
        own = os.dup(descriptor)
    try:
        high = fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
    finally:
        os.close(own)
    try:
        yield high
    finally:
        os.close(high)


@contextlib.contextmanager
def running(  # noqa: PLR0913 -- a process has its ends and its limits
    argv: Sequence[str],
    descriptors: Sequence[int],
    *,
    path: Path,
    cpu: int | None,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
) -> Iterator[Running]:
    """Run `argv` with these descriptors for the length of the context; then it is killed at once.

    `cpu` in seconds of processor time. Raises
    ExportFailed about the image `path`, SandboxFailed when it is the host's fault.
    """
    _check_installed(path)
    with _filter(path) as code, _failures(path):
        extras = sandbox.Extras({_CODE: f"{_ROOT}/images"}, _ENVIRONMENT, code)
        limits = sandbox.limits(len(descriptors), cpu=cpu, address_space=_ADDRESS_SPACE)
        stderr = Stderr()
        with started(
            sandbox.command(argv, limits, extras),
            pass_fds=[*descriptors, code],
            stdin=stdin,
            stdout=stdout,
            stderr=PIPE,
            grace=0,
        ) as process:
            assert process.stderr is not None  # noqa: S101
            stderr.start(process.stderr)
            try:
                yield Running(process, stderr)
            finally:
                end(process, stderr)


@contextlib.contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except ProcessError as error:
        raise SandboxFailed(str(error), path=path, hint="install bubblewrap") from error


def _check_installed(path: Path) -> None:
    for program, package in NEEDED.items():
        if not Path(program).exists():
            raise SandboxFailed(
                f"cannot be read without {program}, which is not installed",
                path=path,
                hint=f"install {package}",
            )


@contextlib.contextmanager
def _filter(path: Path) -> Iterator[int]:
    """A descriptor from which the filter of system calls can be read."""
    try:
        code = startup_filter()
    except UnknownMachine as error:
        raise SandboxFailed(
            f"cannot be read safely on this machine: {error}", path=path, hint="use x86_64"
        ) from error
    memory = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        os.write(memory, code)
        os.lseek(memory, 0, os.SEEK_SET)
        high = fcntl.fcntl(memory, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
    finally:
        os.close(memory)
    try:
        yield high
    finally:
        os.close(high)


def failure(path: Path, reason: str, program: Running) -> ExportFailed:
    """What went wrong, told by what the reader said last; ends it."""
    end(program.process, program.stderr)
    lines = program.stderr.last_lines()
    said = f" (it said: {'; '.join(lines)})" if lines else ""
    if program.stderr.names_sandbox():
        return SandboxFailed(
            f"the reader's sandbox did not start{said}", path=path, hint="run `forensic doctor`"
        )
    for line in lines:
        if _REFUSED in line:
            message, _, hint = line.partition(_REFUSED)[2].partition(_HINT)
            return ExportFailed(f"the reader refused it: {message}", path=path, hint=hint)
    return ExportFailed(
        f"{shown(reason)}{said}",
        path=path,
        hint="if other images work, treat this one as an attack on the reader",
    )
