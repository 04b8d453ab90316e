"""How much of a file or of an exported disk holds data, and in how many pieces."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from images import nbd_client
from images.errors import ExportFailed
from images.evidence import EvidenceFile
from images.file_content import own_descriptor
from images.quoting import shown


def stored(file: EvidenceFile) -> tuple[int, int]:
    """(bytes, ranges) that the file system keeps of a file, without holes (lseek(2), SEEK_DATA).

    A block device, and a file system that has no holes, has one range.
    """
    with own_descriptor(file) as descriptor:
        found = ranges = offset = 0
        while (begin := _seek(descriptor, offset, os.SEEK_DATA, file.size)) < file.size:
            # At least one byte on, whatever a file tells that is being changed right now.
            offset = max(begin + 1, _seek(descriptor, begin, os.SEEK_HOLE, file.size))
            found += offset - begin
            ranges += 1
    return found, ranges


def _seek(descriptor: int, offset: int, what: int, size: int) -> int:
    if offset >= size:
        return size
    try:
        return min(size, os.lseek(descriptor, offset, what))
    except OSError as error:
        # ENXIO: no data up to the end. Anything else: a file system or a device that cannot tell.
        return offset if what == os.SEEK_DATA and error.errno != errno.ENXIO else size


def used(
    socket: Path, name: str, size: int, *, path: Path, timeout: float = 30.0
) -> tuple[int, int]:
    """(bytes, ranges) of a running export that do not read as zeros, as its exporter tells.

    `timeout` is how many seconds it may take for one answer. Raises ExportFailed about `path`.
    """
    try:
        with nbd_client.connected(socket, name, size, lambda: False, timeout) as client:
            return _counted(client.extents())
    except nbd_client.NbdError as error:
        raise ExportFailed(
            f"it could not be told which parts hold data: {shown(str(error))}",
            path=path,
            hint="if other images work, treat this one as an attack on the parser",
        ) from error


def _counted(extents: Iterable[tuple[int, bool]]) -> tuple[int, int]:
    found = ranges = 0
    before = True
    for length, is_zero in extents:
        if not is_zero:
            found += length
            ranges += before
        before = is_zero
    return found, ranges
