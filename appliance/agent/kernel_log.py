"""What the kernel says while it does something: the reason for a refusal that is only a number.

Records: Documentation/ABI/testing/dev-kmsg of Linux.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_RECORD = 8192
_MAX_RECORDS = 200
_MAX_WORDS = 600


class KernelLog:
    """The records that were added since it was opened."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def words(self) -> str:
        """The last of the new records on one line, "" where there are none.

        Bounded. What cannot be printed has been escaped by the kernel.
        """
        lines: list[str] = []
        for _ in range(_MAX_RECORDS):
            try:
                record = os.read(self._fd, _MAX_RECORD)
            except BlockingIOError:
                break
            except OSError:  # a record was overwritten before it was read; the next one is there
                continue
            lines.append(_text(record))
        return "; ".join(line for line in lines if line)[-_MAX_WORDS:]


@contextmanager
def listening() -> Iterator[KernelLog]:
    """Take down what the kernel says from here on."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.lseek(fd, 0, os.SEEK_END)
        yield KernelLog(fd)
    finally:
        os.close(fd)


def _text(record: bytes) -> str:
    """`priority,sequence,time,flags;text`, then lines with more about the device."""
    return record.partition(b";")[2].partition(b"\n")[0].decode("utf-8", "replace").strip()
