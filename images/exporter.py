"""Serves an image read-only as raw bytes over NBD, from a process that can reach nothing else.

The process is QEMU without a machine (`-M none`): qemu-storage-daemon has the same block layer,
but neither `add-fd`, so that it would have to see and be allowed to open the evidence itself, nor
a seccomp filter of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from images import blockgraph, sandbox
from images.errors import ExportFailed, SandboxFailed
from images.image import Image
from images.process import PIPE, Process, ProcessError, started, wait
from images.qmp import Qmp, QmpClosed, QmpError
from images.quoting import shown
from images.vmdk import SplitVmdk

_QEMU = "/usr/bin/qemu-system-x86_64"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# sun_path of a Unix socket, with the final NUL (unix(7)).
_MAX_SOCKET_PATH = 107
_SANDBOX_PROGRAMS = ("bwrap: ", "prlimit: ", "setpriv: ")
_STDERR_KEPT = 16 << 10
_STDERR_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Export:
    """A running export; `pid` is the outermost process, whose end takes the others along."""

    socket: Path
    name: str
    pid: int
    size: int


@contextlib.contextmanager
def exported(
    image: Image, directory: Path, *, name: str, timeout: float = 10.0, cpu: int | None = None
) -> Iterator[Export]:
    """Export `image` at a Unix socket in `directory` for the length of the context.

    `timeout` bounds the start in seconds; `cpu` is a limit of processor time in seconds. The
    export is ready when this yields. Raises ExportFailed. The thread that enters must outlive
    the context: the kernel ends the exporter with it.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"not an export name: {name!r}")
    with ExitStack() as stack:
        listener, path = stack.enter_context(_listening(image, directory / f"{name}.sock"))
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs:
            process, stderr = stack.enter_context(_running(image, theirs, cpu))
        qmp = Qmp(ours, time.monotonic() + timeout, nodes=_parts(image))
        try:
            _set_up(image, qmp, listener, name)
        except QmpError as error:
            raise _failure(image, error, process, stderr) from error
        # The exporter has its own copy: once it is gone, connecting must fail at once.
        listener.close()
        yield Export(path, name, process.pid, image.virtual_size)


@contextlib.contextmanager
def _listening(image: Image, path: Path) -> Iterator[tuple[socket.socket, Path]]:
    """A listening socket of ours, so that the sandbox needs no folder to make one in."""
    if len(str(path).encode()) > _MAX_SOCKET_PATH:
        raise ExportFailed(
            f"the path of its socket is too long: {shown(str(path))}",
            path=image.path,
            hint="use a shorter run directory",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(path))
        except OSError as error:
            raise ExportFailed(
                f"could not create the socket {shown(str(path))}: {error.strerror}",
                path=image.path,
                hint="check that the folder exists, is writable, and holds no such file",
            ) from error
        try:
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            listener.listen(8)
            yield listener, path
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _running(
    image: Image, monitor: socket.socket, cpu: int | None
) -> Iterator[tuple[Process, _Stderr]]:
    argv = sandbox.command(_argv(monitor.fileno()), sandbox.limits(_parts(image), cpu=cpu))
    stderr = _Stderr()
    try:
        # Killed at once: it only reads, and QEMU had crashes in its orderly NBD shutdown.
        with started(argv, pass_fds=[monitor.fileno()], stderr=PIPE, grace=0) as process:
            assert process.stderr is not None  # noqa: S101
            stderr.start(process.stderr)
            try:
                yield process, stderr
            finally:
                _end(process, stderr)
    except ProcessError as error:
        raise ExportFailed(
            str(error), path=image.path, hint="install bubblewrap and qemu-system-x86"
        ) from error


def _parts(image: Image) -> int:
    """The files that the exporter opens, counting those that only exist in memory."""
    details = image.details
    return 1 + (len(details.extents) if isinstance(details, SplitVmdk) else 0)


def _end(process: Process, stderr: _Stderr) -> None:
    sandbox.kill(process.pid)
    if not wait(process, 1.0):
        process.kill()
        process.wait()
    # Every process of the sandbox holds the pipe; its end means that all are gone.
    stderr.finish()


def _argv(monitor: int) -> list[str]:
    denied = "obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    return [
        _QEMU,
        *("-M", "none"),
        # There is no machine to run; this only keeps the unused code buffer small.
        *("-accel", "tcg,tb-size=1"),
        "-nodefaults",
        "-no-user-config",
        *("-display", "none"),
        *("-sandbox", f"on,{denied}"),
        *("-chardev", f"socket,id=monitor,fd={monitor}"),
        *("-mon", "chardev=monitor,mode=control"),
    ]


def _set_up(image: Image, qmp: Qmp, listener: socket.socket, name: str) -> None:
    qmp.greet()
    blockgraph.build(image, qmp)
    qmp.command("getfd", {"fdname": "listener"}, descriptor=listener.fileno())
    address = {"type": "fd", "data": {"str": "listener"}}
    qmp.command("nbd-server-start", {"addr": address, "max-connections": 8})
    export = {"type": "nbd", "id": "export", "node-name": blockgraph.TOP, "name": name}
    qmp.command("block-export-add", {**export, "writable": False})


def _failure(image: Image, error: QmpError, process: Process, stderr: _Stderr) -> ExportFailed:
    _end(process, stderr)
    lines = "; ".join(stderr.last_lines())
    said = f" (it said: {lines})" if lines else ""
    if any(line.startswith(_SANDBOX_PROGRAMS) for line in stderr.last_lines()):
        return SandboxFailed(
            f"the exporter's sandbox did not start{said}",
            path=image.path,
            hint="run `forensic doctor`",
        )
    if isinstance(error, QmpClosed):
        return ExportFailed(
            f"the exporter crashed or did not start{said}",
            path=image.path,
            hint="if other images work, treat this one as an attack on the parser",
        )
    return ExportFailed(
        f"the exporter refused it: {shown(str(error))}{said}",
        path=image.path,
        hint="another program may be using the image, or it is damaged",
    )


class _Stderr:
    """Drains a pipe for as long as it is open and keeps the end of what came."""

    def __init__(self) -> None:
        self._kept: deque[int] = deque(maxlen=_STDERR_KEPT)
        self._thread: threading.Thread | None = None

    def start(self, pipe: IO[bytes]) -> None:
        self._thread = threading.Thread(target=self._drain, args=(pipe,), daemon=True)
        self._thread.start()

    def _drain(self, pipe: IO[bytes]) -> None:
        fd = pipe.fileno()
        with contextlib.suppress(OSError):
            while block := os.read(fd, 4096):
                self._kept.extend(block)

    def finish(self) -> None:
        """Wait until all writers are gone, which is soon after they were killed."""
        if self._thread is not None:
            self._thread.join(5)

    def last_lines(self) -> list[str]:
        lines = bytes(self._kept).splitlines()
        return [shown(line[:300]) for line in lines if line.strip()][-_STDERR_SHOWN:]
