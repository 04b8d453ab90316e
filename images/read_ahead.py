"""Reading in one thread while another works on what was read, through a few buffers in turn.

Measured on cached data: SHA-256 runs at 98 % of `openssl speed` this way, at 83 % where one thread
reads and hashes by turns. From a disk the two overlap altogether.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

BLOCK = 1 << 20
"""Bytes in a buffer. Measured from 64 KiB to 4 MiB: below 256 KiB slower, above no faster."""

_TICK = 0.05
"""Seconds between two looks at whether to stop."""
_PATIENCE = 1.0
"""Seconds that a reader may still hang in the kernel (a dying disk) before it is left to itself."""

Stop = Callable[[], bool] | threading.Event
"""Tells, now or at any later time, that the result is no longer wanted."""

_Item = TypeVar("_Item")


class Cancelled(Exception):
    """The caller asked to stop; there is no result."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The next `length` bytes: the first of `buffer`, or zeros that nobody had to read.

    Zeros hold a buffer as well: it is what keeps the reader from running far ahead.
    """

    length: int
    buffer: memoryview
    is_zero: bool = False


class Buffers:
    """The buffers that are free. `count` of them, BLOCK bytes each."""

    def __init__(self, count: int, stopped: Callable[[], bool]) -> None:
        self.count = count
        self._stopped = stopped
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(memoryview(bytearray(BLOCK)))

    def take(self) -> memoryview:
        """Wait for a free one. Raises Cancelled."""
        return _wait(self._free, self._stopped)

    def take_now(self) -> memoryview | None:
        """A free one, None where all are in use."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return None

    def give(self, buffer: memoryview) -> None:
        """Its content is no longer needed."""
        self._free.put(buffer)


Produce = Callable[[Buffers], Iterator[Piece]]


def ahead(produce: Produce, count: int, stop: Stop) -> Generator[Piece, None, None]:
    """What `produce` yields, in order, made by a thread that is at most `count` pieces ahead.

    A piece is valid until the next is asked for. Raises what `produce` raises, and Cancelled.
    Close it (contextlib.closing) where it may not be used up: the thread ends with it.
    """
    asked = as_function(stop)
    closing = threading.Event()

    def stopped() -> bool:
        return closing.is_set() or asked()

    buffers = Buffers(count, stopped)
    made: queue.SimpleQueue[Piece | BaseException | None] = queue.SimpleQueue()
    # A daemon, so that a read which the kernel never ends does not keep the program.
    thread = threading.Thread(
        target=_make, args=(produce, buffers, made), daemon=True, name="read ahead"
    )
    thread.start()
    try:
        while (item := _wait(made, stopped)) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            buffers.give(item.buffer)
    finally:
        closing.set()
        thread.join(_PATIENCE)


def as_function(stop: Stop) -> Callable[[], bool]:
    """Either kind of Stop as a function."""
    return stop.is_set if isinstance(stop, threading.Event) else stop


def _make(
    produce: Produce, buffers: Buffers, made: queue.SimpleQueue[Piece | BaseException | None]
) -> None:
    try:
        for piece in produce(buffers):
            made.put(piece)
        made.put(None)
    except BaseException as error:  # noqa: BLE001 -- raised again by whoever reads
        made.put(error)


def _wait(source: queue.SimpleQueue[_Item], stopped: Callable[[], bool]) -> _Item:
    while not stopped():
        try:
            return source.get(timeout=_TICK)
        except queue.Empty:
            continue
    raise Cancelled
