"""What every sandboxed server of evidence has: its socket, its standard error, and its end."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from images import sandbox
from images.errors import ExportFailed
from images.process import Process, wait
from images.quoting import shown

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# sun_path of a Unix socket, with the final NUL (unix(7)).
_MAX_SOCKET_PATH = 107
_SANDBOX_PROGRAMS = ("bwrap: ", "prlimit: ", "setpriv: ")
_STDERR_KEPT = 16 << 10
_STDERR_SHOWN = 5

CONNECTIONS = 8
"""How many clients may be served at once."""


@dataclass(frozen=True, slots=True)
class Export:
    """A running export; `pid` is the outermost process, whose end takes the others along.

    `size` in bytes. Without a directory, `socket` can be used by this process alone. `finish`
    takes a writable export away, after which all is in its file; it raises ExportFailed.
    """

    socket: Path
    name: str
    pid: int
    size: int
    finish: Callable[[], None] = lambda: None


@contextlib.contextmanager
def listening(
    directory: Path | None, name: str, image: Path
) -> Iterator[tuple[socket.socket, Path]]:
    """A listening socket of ours, so that the sandbox needs no folder to make one in.

    It lies in `directory` and is called after the export `name`; ValueError for a name that could
    lead elsewhere. Without a directory it has no name at all, and the path is one that only this
    process can use: whatever kills it, nothing is left. Raises ExportFailed, which names `image`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"not an export name: {name!r}")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        if directory is None:
            path = _bound_without_name(listener, image, stack)
        else:
            path = directory / f"{name}.sock"
            _bind(listener, path, image)
            stack.callback(path.unlink, missing_ok=True)
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        listener.listen(CONNECTIONS)
        yield listener, path


def _bound_without_name(listener: socket.socket, image: Path, stack: contextlib.ExitStack) -> Path:
    """Bind, keep a descriptor of the socket's inode, and remove its name at once (proc(5))."""
    folder = Path(tempfile.mkdtemp(prefix="forensic-"))
    path = folder / "s"
    try:
        _bind(listener, path, image)
        inode = os.open(path, os.O_PATH | os.O_CLOEXEC)
        stack.callback(os.close, inode)
    finally:
        path.unlink(missing_ok=True)
        folder.rmdir()
    return Path(f"/proc/self/fd/{inode}")


def _bind(listener: socket.socket, path: Path, image: Path) -> None:
    if len(str(path).encode()) > _MAX_SOCKET_PATH:
        raise ExportFailed(
            f"the path of its socket is too long: {shown(str(path))}",
            path=image,
            hint="use a shorter run directory",
        )
    try:
        listener.bind(str(path))
    except OSError as error:
        raise ExportFailed(
            f"could not create the socket {shown(str(path))}: {error.strerror}",
            path=image,
            hint="check that the folder exists, is writable, and holds no such file",
        ) from error


class Stderr:
    """Drains a pipe for as long as it is open and keeps the end of what came."""

    def __init__(self) -> None:
        self._kept: deque[int] = deque(maxlen=_STDERR_KEPT)
        self._thread: threading.Thread | None = None

    def start(self, pipe: IO[bytes]) -> None:
        """Begin; returns at once."""
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
        """The last lines that are not empty, each cut and safe to be shown."""
        lines = bytes(self._kept).splitlines()
        return [shown(line[:300]) for line in lines if line.strip()][-_STDERR_SHOWN:]

    def names_sandbox(self) -> bool:
        """Whether it was one of the programs that build the sandbox that complained."""
        return any(line.startswith(_SANDBOX_PROGRAMS) for line in self.last_lines())


def end(process: Process, stderr: Stderr) -> None:
    """Kill all that runs in the sandbox, and wait until it is gone."""
    sandbox.kill(process.pid)
    if not wait(process, 1.0):
        process.kill()
        process.wait()
    # Every process of the sandbox holds the pipe; its end means that all are gone.
    stderr.finish()
