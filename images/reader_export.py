"""Serves E01, gzip and xz images read-only over NBD, as images.exporter does what QEMU can read.

nbdkit speaks NBD; the plugin in images/reader/ reads the formats, in Python. Rejected: libewf,
which fills damaged chunks with zeros and has no way to tell its Python module.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from images import reader_sandbox
from images.errors import ExportFailed
from images.evidence import EvidenceFile
from images.nbd_size import export_size
from images.nbd_wire import NbdError, Wire
from images.raw import SECTOR
from images.read_ahead import Stop, as_function
from images.reader_sandbox import DEFAULT_LIMIT, Running
from images.served_socket import CONNECTIONS, Export, listening

_NBDKIT = "/usr/bin/nbdkit"
_THREADS = 4
# systemd's way to hand over a socket, sd_listen_fds(3): it is descriptor 3, and LISTEN_PID is the
# number of the server, which in its namespace only the shell before it can know; exec keeps it.
_ACTIVATE = 'exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'


@contextlib.contextmanager
def served(  # noqa: PLR0913 -- as exporter.exported, and what only the caller knows
    kind: str,
    files: Sequence[EvidenceFile],
    directory: Path | None,
    *,
    name: str,
    size: int | None,
    path: Path,
    timeout: float = 10.0,
    cpu: int | None = None,
    limit: int = DEFAULT_LIMIT,
    stop: Stop = lambda: False,
) -> Iterator[Export]:
    """Export the image `path` at a Unix socket in `directory` for the length of the context.

    `kind` is "ewf", "gzip" or "xz"; `files` are all of its files in their order. `size` in bytes is
    what our own parser found; None where nobody knows before all is unpacked (gzip), and `timeout`,
    in seconds, must leave room for that. `limit` in bytes is the largest disk that is unpacked;
    `cpu` a limit of processor time in seconds. The export is ready when this yields, and its size
    is a multiple of 512. Raises ExportFailed, and Cancelled once `stop` says so. The thread that
    enters must outlive the context: the kernel ends the reader with it.
    """
    _require_nbdkit(path)
    with ExitStack() as stack:
        listener, address = stack.enter_context(listening(directory, name, path))
        client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        # It waits in the queue. When the reader ends without an answer, it breaks.
        client.connect(str(address))
        with reader_sandbox.handed_over(files) as descriptors:
            argv = _argv(kind, descriptors, limit)
            reader = stack.enter_context(
                reader_sandbox.running(
                    argv, descriptors, path=path, cpu=cpu, stdin=listener.fileno()
                )
            )
        # The reader has its own copy: once it is gone, connecting must fail at once.
        listener.close()
        found = _size(client, name, timeout, stop, path, reader)
        client.close()
        _check(found, size, path, reader)
        yield Export(address, name, reader.process.pid, found)


def _require_nbdkit(path: Path) -> None:
    """Not among the packages that every user needs: Debian's brings 60 MB of others along."""
    plugins = Path("/usr/lib").glob("*/nbdkit/plugins/nbdkit-python-plugin.so")
    if not Path(_NBDKIT).exists() or not any(plugins):
        raise ExportFailed(
            "nbdkit and its Python plugin are needed for E01, gzip and xz images",
            path=path,
            hint="apt-get install nbdkit nbdkit-plugin-python",
        )


def _argv(kind: str, descriptors: Sequence[int], limit: int) -> list[str]:
    return [
        *("/usr/bin/sh", "-c", _ACTIVATE, "nbdkit"),
        _NBDKIT,
        "--foreground",
        "--readonly",
        "--log=stderr",
        "--tls=off",
        f"--threads={_THREADS}",
        "--filter=limit",
        "python",
        reader_sandbox.PLUGIN,
        f"kind={kind}",
        f"fds={','.join(map(str, descriptors))}",
        f"most={limit}",
        # The filter's: how many clients.
        f"limit={CONNECTIONS}",
    ]


def _size(  # noqa: PLR0913, PLR0917 - what to ask, for how long, and whom to blame
    client: socket.socket, name: str, timeout: float, stop: Stop, path: Path, reader: Running
) -> int:
    try:
        return export_size(Wire(client, as_function(stop), timeout), name)
    except NbdError as error:
        raise reader_sandbox.failure(path, f"the reader failed: {error}", reader) from error


def _check(found: int, size: int | None, path: Path, reader: Running) -> None:
    if size is not None and found != -(-size // SECTOR) * SECTOR:
        reason = f"the reader sees a disk of {found} bytes, the header says {size}"
        raise reader_sandbox.failure(path, reason, reader)
