"""Serves E01, gzip and xz images read-only over NBD, as images.exporter does what QEMU can read.

images/reader/ reads the formats, in Python, and speaks NBD itself. Rejected: libewf, which fills
damaged chunks with zeros and has no way to tell its Python module; nbdkit, whose Python plugin
brings 60 MB of other packages along, and which can tell a client that a read failed, but not why.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from images import reader_sandbox
from images.evidence import EvidenceFile
from images.nbd_size import export_size
from images.nbd_wire import NbdError, Wire
from images.raw import SECTOR
from images.read_ahead import Stop, as_function
from images.reader_sandbox import DEFAULT_LIMIT, Running
from images.served_socket import Export, listening


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
    with ExitStack() as stack:
        listener, address = stack.enter_context(listening(directory, name, path))
        client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        # It waits in the queue. When the reader ends without an answer, it breaks.
        client.connect(str(address))
        with reader_sandbox.handed_over(files) as descriptors:
            argv = _argv(kind, descriptors, limit, name)
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


def _argv(kind: str, descriptors: Sequence[int], limit: int, name: str) -> list[str]:
    numbers = ",".join(map(str, descriptors))
    return [*reader_sandbox.PYTHON, "-m", "images.reader", kind, numbers, str(limit), name]


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
