"""The content of an evidence file from beginning to end, read as fast as its disk delivers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from images.errors import Unreadable
from images.evidence import EvidenceFile
from images.quoting import shown
from images.read_ahead import BLOCK, Buffers, Piece

_AHEAD = 8 << 20
"""Bytes that the kernel is asked to fetch before they are read: a quarter faster from an SSD."""
_SHORT_HOLE = 1 << 20
"""Bytes; a shorter hole is read, which takes less time than to ask where it ends."""
_PAGE = 4096
_SEARCH = 1.0
"""Seconds to spend on finding where a damaged place ends."""


class ReadFailed(Unreadable):
    """`length` bytes from `offset` on could not be read, so there is no hash."""

    def __init__(self, what: str, *, path: Path, offset: int, length: int, hint: str) -> None:
        super().__init__(
            f"bytes {offset} to {offset + length - 1} {what}; there is no hash",
            path=path,
            hint=hint,
        )
        self.offset = offset
        self.length = length


@contextlib.contextmanager
def own_descriptor(file: EvidenceFile) -> Iterator[int]:
    """One that nobody closes while a thread reads, with an offset of its own where possible."""
    # O_NOATIME stays: a hash must not change the access time either.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    flags |= fcntl.fcntl(file.fd, fcntl.F_GETFL) & os.O_NOATIME
    try:
        descriptor = os.open(f"/proc/self/fd/{file.fd}", flags)
    except OSError:  # opened before this process gave up the right to open it
        descriptor = os.dup(file.fd)
    try:
        _advise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        yield descriptor
    finally:
        os.close(descriptor)


def content(file: EvidenceFile, descriptor: int, drop: bool, buffers: Buffers) -> Iterator[Piece]:
    """All `file.size` bytes in order; with `drop`, the page cache forgets them again.

    Raises ReadFailed, also where the file has become shorter, and Cancelled.
    """
    asked = dropped = 0
    for begin, end, is_hole in extents(descriptor, file.size):
        if is_hole:
            yield Piece(end - begin, buffers.take(), is_zero=True)
            continue
        asked = max(asked, begin)
        for offset in range(begin, end, BLOCK):
            buffer = buffers.take()
            while asked < min(end, offset + _AHEAD):
                _advise(descriptor, asked, BLOCK, os.POSIX_FADV_WILLNEED)
                asked += BLOCK
            length = min(BLOCK, end - offset)
            _read(file, descriptor, buffer[:length], offset)
            yield Piece(length, buffer)
            if drop and (offset + length - dropped >= _AHEAD or offset + length == file.size):
                _advise(descriptor, dropped, offset + length - dropped, os.POSIX_FADV_DONTNEED)
                dropped = offset + length
    # Behind the end of a file that was cut off, lseek(2) shows nothing but a hole.
    length = os.lseek(descriptor, 0, os.SEEK_END)
    if length < file.size:
        raise _too_short(file, length)


def extents(descriptor: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, whether it is a hole), in order and without gaps up to `size`.

    lseek(2) tells; it promises that a hole reads as zeros. On a file system that has no holes,
    everything is data. Short holes count as data.
    """
    begin = 0
    while begin < size:
        data = _next_data(descriptor, begin, size)
        if data - begin >= _SHORT_HOLE or data == size:
            yield begin, data, True
            begin = data
        if begin < size:
            end = _end_of_data(descriptor, data, size)
            yield begin, end, False
            begin = end


def _end_of_data(descriptor: int, data: int, size: int) -> int:
    """Where the next hole begins that is worth it; any end after 8 MiB, which keeps this short."""
    limit = data + _AHEAD
    while data < size:
        # At least one byte on, whatever a file tells that is being changed right now.
        end = max(data + 1, _seek(descriptor, data, os.SEEK_HOLE, size))
        data = _next_data(descriptor, end, size)
        if data - end >= _SHORT_HOLE or end >= limit:
            return end
    return size


def _next_data(descriptor: int, offset: int, size: int) -> int:
    return max(offset, _seek(descriptor, offset, os.SEEK_DATA, size)) if offset < size else size


def _seek(descriptor: int, offset: int, what: int, size: int) -> int:
    try:
        return min(size, os.lseek(descriptor, offset, what))
    except OSError as error:
        # ENXIO: no data up to the end. Anything else: a file system that cannot tell.
        is_data = what == os.SEEK_DATA and error.errno != errno.ENXIO
        return offset if is_data else size


def _advise(descriptor: int, offset: int, length: int, advice: int) -> None:
    with contextlib.suppress(OSError):  # it is only advice
        os.posix_fadvise(descriptor, offset, length, advice)


def _read(file: EvidenceFile, descriptor: int, buffer: memoryview, offset: int) -> None:
    done = 0
    while done < len(buffer):
        try:
            count = os.preadv(descriptor, [buffer[done:]], offset + done)
        except OSError as error:
            raise _damaged(file, descriptor, offset + done, offset + len(buffer), error) from error
        if count == 0:
            raise _too_short(file, offset + done)
        done += count


def _too_short(file: EvidenceFile, length: int) -> ReadFailed:
    return ReadFailed(
        "are missing: the file has become shorter since it was opened",
        path=file.path,
        offset=length,
        length=file.size - length,
        hint="find out what else writes to it",
    )


def _damaged(
    file: EvidenceFile, descriptor: int, begin: int, end: int, error: OSError
) -> ReadFailed:
    """The kernel delivers what is before a bad page, so `begin` is where the damage begins."""
    bad_end = _end_of_damage(begin, end, lambda offset: os.pread(descriptor, 1, offset))
    return ReadFailed(
        f"could not be read: {shown(error.strerror or str(error))}",
        path=file.path,
        offset=begin,
        length=bad_end - begin,
        hint="check the disk it lies on for errors, and copy it with a tool that skips bad places",
    )


def _end_of_damage(begin: int, end: int, probe: Callable[[int], object]) -> int:
    """The next page that can be read, `end` where none is found in the time."""
    deadline = time.monotonic() + _SEARCH
    for offset in range(begin - begin % _PAGE + _PAGE, end, _PAGE):
        try:
            probe(offset)
        except OSError:
            if time.monotonic() > deadline:
                return end
        else:
            return offset
    return end
