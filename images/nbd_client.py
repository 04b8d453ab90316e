"""Reads a read-only NBD export from beginning to end, from a server that may lie.

Just what hashing needs, and strict: the exporter is QEMU, which sends the parts of a reply in
order, so nothing else is accepted. No length that arrives decides how much memory is used.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from images.nbd_handshake import Agreed, negotiate
from images.nbd_wire import NbdError, NbdReadError, Wire
from images.read_ahead import BLOCK, Buffers, Piece

__all__ = ["NbdClient", "NbdError", "NbdReadError", "connected"]

_REQUEST = struct.Struct(">IHHQQI")
_CHUNK = struct.Struct(">IHHQI")
_REQUEST_MAGIC = 0x25609513
_CHUNK_MAGIC = 0x668E33EF
_READ = 0
_DISCONNECT = 2
_BLOCK_STATUS = 7
_IN_ONE = 1 << 2
"""NBD_CMD_FLAG_DF. Without it QEMU looks for zeros once more, and closes the connection where it
cannot read (nbd_co_send_sparse_read in nbd/server.c), instead of saying so."""
_DONE = 1
_NONE = 0
_OFFSET_DATA = 1
_OFFSET_HOLE = 2
_STATUS = 5
_ERROR = 1 << 15
_ERROR_OFFSET = _ERROR + 2
_ZERO = 2
_MAX_MESSAGE = 4096
_MAX_EXTENTS = 128 << 10
"""What QEMU sends at most in one reply (a MiB)."""
_ASKED = 1 << 30
"""Bytes whose block status is asked for at a time."""
_SHORT_ZEROS = 256 << 10
"""Bytes; fewer zeros are read, which takes no longer than to keep them apart."""
_ZEROS = bytes(BLOCK)


@contextlib.contextmanager
def connected(
    path: Path, name: str, size: int, stopped: Callable[[], bool], timeout: float
) -> Iterator[NbdClient]:
    """Connect to the Unix socket and open the export `name`, which must have `size` bytes.

    `timeout` in seconds is for each answer. Everything in the context raises NbdError, and
    Cancelled once `stopped()` is true.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        wire = Wire(connection, stopped, timeout)
        _connect(connection, path, wire)
        client = NbdClient(wire, negotiate(wire, name, size))
        yield client
        with contextlib.suppress(NbdError):
            client.disconnect()


def _connect(connection: socket.socket, path: Path, wire: Wire) -> None:
    while True:
        try:
            connection.connect(str(path))
        except BlockingIOError:  # its queue of connections is full
            wire.check()
            time.sleep(0.01)
        except OSError as error:
            raise NbdError(f"the exporter cannot be reached: {error.strerror}") from error
        else:
            return


@dataclass(slots=True)
class _Request:
    """A range that was asked for. `filled` bytes of a read have come; a status has `extents`."""

    offset: int
    length: int
    buffer: memoryview | None
    filled: int = 0
    extents: list[tuple[int, bool]] | None = None
    is_done: bool = False


class NbdClient:
    """One export; `content` is to be used once."""

    def __init__(self, wire: Wire, agreed: Agreed) -> None:
        self._wire = wire
        self._agreed = agreed
        self._open: dict[int, _Request] = {}
        self._next_handle = int.from_bytes(os.urandom(4), "big") << 32

    def content(self, buffers: Buffers) -> Iterator[Piece]:
        """All bytes in order; as many reads under way as there are buffers."""
        plan = self._plan()
        upcoming = next(plan, None)
        asked: deque[tuple[_Request, bool]] = deque()
        while asked or upcoming:
            while upcoming and (buffer := buffers.take_now() if asked else buffers.take()):
                asked.append((self._ask(upcoming, buffer), upcoming[2]))
                upcoming = next(plan, None)
            request, is_zero = asked[0]
            if not request.is_done:
                self._receive()
                continue
            assert request.buffer is not None  # noqa: S101
            yield Piece(request.length, request.buffer, is_zero)
            asked.popleft()
            self._wire.expect()

    def extents(self) -> Iterator[tuple[int, bool]]:
        """(length, whether it reads as zeros), in order, for all of the export."""
        offset = 0
        while offset < self._agreed.size:
            for length, is_zero in self._status(offset):
                yield length, is_zero
                offset += length

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`, at most BLOCK; not while `content` is being read."""
        buffer = memoryview(bytearray(length))
        request = self._ask((offset, length, False), buffer)
        while not request.is_done:
            self._receive()
        return bytes(buffer)

    def disconnect(self) -> None:
        """Say goodbye; the server closes the connection."""
        self._send(_DISCONNECT, 0, 0)

    def _ask(self, part: tuple[int, int, bool], buffer: memoryview) -> _Request:
        offset, length, is_zero = part
        request = _Request(offset, length, buffer, is_done=is_zero)
        if not is_zero:
            if not self._open:
                self._wire.expect()
            self._open[self._send(_READ, offset, length)] = request
        return request

    def _send(self, command: int, offset: int, length: int) -> int:
        self._next_handle += 1
        handle = self._next_handle
        flags = _IN_ONE if command == _READ and self._agreed.in_one else 0
        self._wire.send(_REQUEST.pack(_REQUEST_MAGIC, flags, command, handle, offset, length))
        return handle

    def _plan(self) -> Iterator[tuple[int, int, bool]]:
        """(offset, length, whether it is zero) of what to read: at most BLOCK, zeros at once."""
        offset = 0
        while offset < self._agreed.size:
            for length, is_zero in _merged(self._status(offset)):
                step = length if is_zero else BLOCK
                for start in range(offset, offset + length, step):
                    yield start, min(step, offset + length - start), is_zero
                offset += length

    def _status(self, offset: int) -> list[tuple[int, bool]]:
        """(length, whether it is zero) of what comes from `offset` on, as far as one answer goes.

        Reads that are under way are taken in meanwhile.
        """
        if self._agreed.context is None:
            return [(self._agreed.size - offset, False)]
        request = _Request(offset, min(_ASKED, self._agreed.size - offset), None)
        self._wire.expect()
        self._open[self._send(_BLOCK_STATUS, offset, request.length)] = request
        while not request.is_done:
            self._receive()
        assert request.extents is not None  # noqa: S101
        return request.extents

    def _receive(self) -> None:
        """Take in one chunk of a reply."""
        magic, flags, kind, handle, length = _CHUNK.unpack(self._wire.receive(_CHUNK.size))
        if magic != _CHUNK_MAGIC or flags & ~_DONE:
            raise NbdError("the exporter sent something that is no structured reply")
        request = self._open.get(handle)
        if request is None:
            raise NbdError("the exporter answered a request that was not made")
        if kind & _ERROR:
            self._fail(request, kind, length)
        elif kind == _OFFSET_DATA and request.buffer is not None:
            self._take_data(request, length)
        elif kind == _OFFSET_HOLE and request.buffer is not None:
            self._take_hole(request, length)
        elif kind == _STATUS and request.buffer is None:
            self._take_status(request, length)
        elif kind != _NONE or length or not flags & _DONE:
            raise NbdError(f"the exporter sent a chunk of type {kind} with {length} bytes")
        if flags & _DONE:
            del self._open[handle]
            self._finish(request)

    def _finish(self, request: _Request) -> None:
        is_read = request.buffer is not None
        if request.filled < request.length if is_read else request.extents is None:
            raise NbdError(
                f"the exporter answered {request.filled} of {request.length} bytes "
                f"at {request.offset}"
            )
        request.is_done = True

    def _take_data(self, request: _Request, length: int) -> None:
        if length <= 8:
            raise NbdError("the exporter sent a chunk without data")
        (offset,) = struct.unpack(">Q", self._wire.receive(8))
        self._wire.receive_into(self._room(request, offset, length - 8))

    def _take_hole(self, request: _Request, length: int) -> None:
        if length != 12:
            raise NbdError("the exporter sent a hole of a wrong length")
        offset, size = struct.unpack(">QI", self._wire.receive(12))
        self._room(request, offset, size)[:] = _ZEROS[:size]

    def _room(self, request: _Request, offset: int, length: int) -> memoryview:
        """Where the next `length` bytes of a read go."""
        begin = request.filled
        if request.buffer is None or offset != request.offset + begin or length == 0:
            raise NbdError(f"the exporter sent {length} bytes at {offset}, which is out of turn")
        if length > request.length - begin:
            raise NbdError(f"the exporter sent {length} bytes at {offset}, more than asked for")
        request.filled += length
        return request.buffer[begin : begin + length]

    def _take_status(self, request: _Request, length: int) -> None:
        count, rest = divmod(length - 4, 8)
        if rest or not 0 < count <= _MAX_EXTENTS or request.extents is not None:
            raise NbdError(f"the exporter sent a block status of {length} bytes")
        untrusted_data = self._wire.receive(length)
        if int.from_bytes(untrusted_data[:4], "big") != self._agreed.context:
            raise NbdError("the exporter sent a block status for another context")
        request.extents = _extents(untrusted_data[4:], request.length)

    def _fail(self, request: _Request, kind: int, length: int) -> None:
        extra = 8 if kind == _ERROR_OFFSET else 0
        if not 6 + extra <= length <= 6 + extra + _MAX_MESSAGE:
            raise NbdError(f"the exporter sent an error of {length} bytes")
        code, size = struct.unpack(">IH", self._wire.receive(6))
        message = self._wire.receive(length - 6)
        if code == 0 or size != len(message) - extra:
            raise NbdError("the exporter sent an error that is none")
        # The numbers are those of Linux for all that a read can meet.
        reason = message[: min(size, 200)].decode("utf-8", "replace") or os.strerror(code & 0xFFFF)
        if request.buffer is None:
            raise NbdError(f"the exporter cannot say what is zero at {request.offset}: {reason}")
        begin = request.filled
        raise NbdReadError(request.offset + begin, request.length - begin, reason)


def _extents(untrusted_data: bytes, length: int) -> list[tuple[int, bool]]:
    """(length, whether it is zero) from the start of what was asked for, and no further."""
    found = []
    for size, flags in struct.iter_unpack(">II", untrusted_data):
        if size == 0 or length == 0:
            raise NbdError("the exporter sent a block status of empty or surplus ranges")
        # Only the last may go on behind the range, which the protocol allows.
        found.append((min(size, length), bool(flags & _ZERO)))
        length -= min(size, length)
    return found


def _merged(extents: Iterable[tuple[int, bool]]) -> Iterator[tuple[int, bool]]:
    """Neighbours of one kind as one; few zeros count as data."""
    return _joined(
        (length, is_zero and length >= _SHORT_ZEROS) for length, is_zero in _joined(extents)
    )


def _joined(extents: Iterable[tuple[int, bool]]) -> Iterator[tuple[int, bool]]:
    total, kind = 0, False
    for length, is_zero in extents:
        if is_zero != kind and total:
            yield total, kind
            total = 0
        total, kind = total + length, is_zero
    if total:
        yield total, kind
