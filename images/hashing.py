"""Hashes of evidence: SHA-256 of files, or what the caller chooses of a disk that is exported.

The order that makes a hash mean something: open the file (EvidenceFile), hash it, and after that
ask `EvidenceFile.changes()`. The hash is of the bytes that the file had when they were read, as
many as it had when it was opened; where `changes()` names a difference, something wrote meanwhile
and the hash is void. A block device has no times that would change: there `changes()` proves
nothing, and only a second hash can.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from images import nbd_client
from images.digests import Algorithm, hash_content
from images.errors import ExportFailed
from images.evidence import EvidenceFile
from images.file_content import ReadFailed, content, own_descriptor
from images.quoting import shown
from images.read_ahead import Cancelled, Stop, as_function

__all__ = [
    "Algorithm",
    "Cancelled",
    "ExportHash",
    "FileHash",
    "Hashing",
    "ReadFailed",
    "digest",
    "digest_export",
    "outgrows_memory",
]

_FILE_BUFFERS = 4
_EXPORT_BUFFERS = 8
_MAX_THREADS = 8
"""Files at a time; more would only make a spinning disk seek."""
_NICE = 10
_TICK = 0.1
_PATIENCE = 1.0
"""Seconds that threads get to end; one that hangs in the kernel on a dying disk is left behind."""


@dataclass(frozen=True, slots=True)
class FileHash:
    """SHA-256 in hex of a file of `size` bytes, equal to sha256sum's; made in `seconds`.

    `holes` are the bytes in `size` that the file system never stored: hashed as the zeros that
    they are, but not read.
    """

    sha256: str
    size: int
    seconds: float
    holes: int


@dataclass(frozen=True, slots=True)
class ExportHash:
    """Hashes in hex by algorithm, of an exported disk of `size` bytes; the rest as in FileHash."""

    digests: dict[Algorithm, str]
    size: int
    seconds: float
    holes: int


def digest(
    file: EvidenceFile,
    *,
    progress: Callable[[int], None] = lambda _done: None,
    stop: Stop = lambda: False,
    drop: bool | None = None,
) -> FileHash:
    """Hash the `file.size` bytes of an open file; `progress` gets the bytes done so far.

    `drop` lets the page cache forget what was hashed; None: where it `outgrows_memory`.
    Raises ReadFailed (also where the file has become shorter) and Cancelled.
    """
    begin = time.monotonic()
    drop = outgrows_memory(file.size) if drop is None else drop
    with own_descriptor(file) as descriptor:
        produce = partial(content, file, descriptor, drop)
        digests, holes = hash_content(produce, _FILE_BUFFERS, ("sha256",), progress, stop)
    return FileHash(digests["sha256"], file.size, time.monotonic() - begin, holes)


def outgrows_memory(size: int) -> bool:
    """Whether `size` bytes of evidence are too much for the page cache, and better dropped.

    A small image stays: the guest reads the same bytes shortly after. Of one that takes more than
    half of the memory, the beginning would be gone before the end is read, along with all else
    that this host has cached. What is dropped may have to be read twice, but only once: the guest
    keeps what it has read itself.
    """
    return size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def digest_export(  # noqa: PLR0913 -- an export has three properties, the rest have defaults
    socket: Path,
    name: str,
    size: int,
    *,
    path: Path,
    algorithms: Sequence[Algorithm] = ("sha256",),
    progress: Callable[[int], None] = lambda _done: None,
    stop: Stop = lambda: False,
    timeout: float = 30.0,
) -> ExportHash:
    """Hash the content of a running export (images/exporter.py); errors name the image `path`.

    The bytes are only hashed, never looked into. `timeout` is how many seconds the exporter may
    take for one answer, of at most a MiB; who answers slowly can take long, so watch `progress`.
    Raises ReadFailed where the exporter says that it cannot read, ExportFailed where it is gone,
    silent, or breaks the protocol, and Cancelled.
    """
    begin = time.monotonic()
    try:
        with nbd_client.connected(socket, name, size, as_function(stop), timeout) as client:
            digests, holes = hash_content(
                client.content, _EXPORT_BUFFERS, algorithms, progress, stop
            )
    except nbd_client.NbdReadError as error:
        raise ReadFailed(
            f"of the disk could not be read: {shown(error.reason)}",
            path=path,
            offset=error.offset,
            length=error.length,
            hint="the image is damaged there, or the disk that it lies on is",
        ) from error
    except nbd_client.NbdError as error:
        raise ExportFailed(
            f"its content could not be hashed: {shown(str(error))}",
            path=path,
            hint="if other images work, treat this one as an attack on the parser",
        ) from error
    return ExportHash(digests, size, time.monotonic() - begin, holes)


class Hashing:
    """Hashes files while its context is open, in threads that give way to the analysis.

        with Hashing(files) as hashing:
            ...                           # hashing.progress: (bytes done, bytes in all)
            hashes = hashing.join()       # in the order of the files

    Leaving without `join`, by Ctrl-C for instance, ends the threads at once. Before the files are
    closed and after the hashes are there, ask each file for its `changes()`.
    """

    def __init__(self, files: Sequence[EvidenceFile]) -> None:
        self._files = list(files)
        self._total = sum(file.size for file in self._files)
        self._drop = outgrows_memory(self._total)
        self._done = [0] * len(self._files)
        self._results: list[FileHash | BaseException | None] = [None] * len(self._files)
        # The largest first: so the threads end at about the same time.
        self._waiting = sorted(range(len(self._files)), key=lambda index: self._files[index].size)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, daemon=True, name="hashing")
            for _ in range(min(len(self._files), len(os.sched_getaffinity(0)), _MAX_THREADS))
        ]

    def __enter__(self) -> Hashing:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()
        deadline = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def progress(self) -> tuple[int, int]:
        """(bytes hashed, bytes in all)."""
        return sum(self._done), self._total

    def cancel(self) -> None:
        """Stop at once; `join` then raises Cancelled."""
        self._stop.set()

    def join(
        self, watch: Callable[[int, int], None] = lambda _done, _total: None
    ) -> list[FileHash]:
        """Wait for all hashes, in the order of the files.

        `watch` gets `progress`, ten times a second and in this thread. Raises the ReadFailed of
        the first file that has one (`outcomes` has the others), and Cancelled.
        """
        hashes = []
        for outcome in self.outcomes(watch):
            if isinstance(outcome, ReadFailed):
                raise outcome
            hashes.append(outcome)
        return hashes

    def outcomes(
        self, watch: Callable[[int, int], None] = lambda _done, _total: None
    ) -> list[FileHash | ReadFailed]:
        """As `join`, with the failure in the place of its file's hash. Raises Cancelled."""
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_TICK)
                watch(*self.progress)
        found: list[FileHash | ReadFailed] = []
        for result in self._results:
            if result is None:
                raise Cancelled
            if not isinstance(result, (FileHash, ReadFailed)):
                raise result
            found.append(result)
        return found

    def _work(self) -> None:
        # Linux counts niceness per thread; whoever waits for the analysis should not wait longer.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._stop.is_set():
            try:
                index = self._waiting.pop()
            except IndexError:
                return
            try:
                self._results[index] = self._digest(index)
            except BaseException as error:  # noqa: BLE001 -- raised again by whoever joins
                self._results[index] = error

    def _digest(self, index: int) -> FileHash:
        def progress(done: int) -> None:
            self._done[index] = done

        return digest(self._files[index], progress=progress, stop=self._stop, drop=self._drop)
