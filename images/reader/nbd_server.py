"""A server of one read-only NBD export: fixed newstyle, structured replies, nothing else.

Layouts and numbers: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md. Clients
are images/nbd_client.py and QEMU, which may be in the hands of a guest: whatever breaks the
protocol loses its connection.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
from collections.abc import Callable

from images.errors import ImageError
from images.quoting import shown
from images.raw import SECTOR
from images.reader.content import Content

CONNECTIONS = 8
_THREADS = 4
"""Reads under way for one client: unpacking releases Python's lock."""
MAX_REQUEST = 4 << 20
"""Bytes of one read, which clients are told; with all threads busy, 128 MiB are in memory."""

_GREETING = struct.pack(">8s8sH", b"NBDMAGIC", b"IHAVEOPT", 1 | 2)
_OPTION = struct.Struct(">8sII")
_OPTION_REPLY = struct.Struct(">QIII")
_OPTION_REPLY_MAGIC = 0x0003E889045565A9
_ABORT, _INFO, _GO, _STRUCTURED, _CONTEXT = 2, 6, 7, 8, 10
_ACK, _DESCRIPTION = 1, 3
_UNSUPPORTED, _POLICY, _INVALID, _UNKNOWN = ((1 << 31) + each for each in (1, 2, 3, 6))
_MAX_OPTION = 8192
_MAX_OPTIONS = 64

_FLAGS = 1 | 1 << 1 | 1 << 7 | 1 << 8
"""Has flags, read-only, answers in one piece when asked to, many connections see the same."""

_REQUEST = struct.Struct(">IHHQQI")
_REQUEST_MAGIC = 0x25609513
_CHUNK = struct.Struct(">IHHQI")
_CHUNK_MAGIC = 0x668E33EF
_DONE = 1
_DATA, _ERROR = 1, (1 << 15) + 1
_READ, _WRITE, _DISCONNECT = 0, 1, 2
_MAX_MESSAGE = 1000


class _Closed(Exception):
    """The client has gone, or does not speak the protocol."""


def serve(listener: int, content: Content, name: str) -> None:
    """Serve `content` as the export `name` to at most CONNECTIONS clients at once, for ever.

    Its size is rounded up to a sector, as for raw images.
    """
    slots = threading.Semaphore(CONNECTIONS)
    with socket.socket(fileno=listener) as server:
        while True:
            connection, _ = server.accept()
            if not slots.acquire(blocking=False):
                connection.close()
                continue
            client = _Client(connection, content, name.encode(), slots.release)
            threading.Thread(target=client.run, daemon=True).start()


class _Client:
    """One connection. `gone` is called when it has ended."""

    def __init__(
        self, connection: socket.socket, content: Content, name: bytes, gone: Callable[[], object]
    ) -> None:
        self._socket = connection
        self._content = content
        self._size = -(-content.size // SECTOR) * SECTOR
        self._name = name
        self._gone = gone
        self._is_structured = False
        self._receiving = threading.Lock()
        self._sending = threading.Lock()

    def run(self) -> None:
        try:
            # With its end of the connection closed, all is done that a client's end asks for.
            with contextlib.suppress(_Closed, OSError), self._socket:
                if self._negotiate():
                    self._transmit_in_threads()
        finally:
            self._gone()

    # --- negotiation ----------------------------------------------------------------------------

    def _negotiate(self) -> bool:
        """Whether the client has chosen the export."""
        self._socket.sendall(_GREETING)
        if int.from_bytes(self._receive(4), "big") & ~3:
            raise _Closed
        for _ in range(_MAX_OPTIONS):
            magic, option, length = _OPTION.unpack(self._receive(_OPTION.size))
            if magic != b"IHAVEOPT" or length > _MAX_OPTION:
                raise _Closed
            data = self._receive(length)
            if option == _ABORT:
                self._answer(option, _ACK)
                return False
            if self._agree(option, data):
                return True
        raise _Closed

    def _agree(self, option: int, untrusted_data: bytes) -> bool:
        """Answer one option; true when it was the last."""
        if option == _STRUCTURED:
            self._is_structured = not untrusted_data
            self._answer(option, _INVALID if untrusted_data else _ACK)
        elif option == _CONTEXT:
            # None of them: what is zero is not known before it is unpacked.
            self._answer(option, _ACK)
        elif option in {_INFO, _GO}:
            return self._describe(option, untrusted_data)
        else:
            self._answer(option, _UNSUPPORTED)
        return False

    def _describe(self, option: int, untrusted_data: bytes) -> bool:
        length = int.from_bytes(untrusted_data[:4], "big")
        if len(untrusted_data) < 6 or length > len(untrusted_data) - 6:
            self._answer(option, _INVALID)
        elif untrusted_data[4 : 4 + length] != self._name:
            self._answer(option, _UNKNOWN)
        elif option == _GO and not self._is_structured:
            self._answer(option, _POLICY)
        else:
            self._answer(option, _DESCRIPTION, struct.pack(">HQH", 0, self._size, _FLAGS))
            sizes = struct.pack(">HIII", 3, 1, 4096, MAX_REQUEST)
            self._answer(option, _DESCRIPTION, sizes)
            self._answer(option, _ACK)
            return option == _GO
        return False

    def _answer(self, option: int, kind: int, data: bytes = b"") -> None:
        head = _OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, kind, len(data))
        self._socket.sendall(head + data)

    # --- transmission ---------------------------------------------------------------------------

    def _transmit_in_threads(self) -> None:
        others = [threading.Thread(target=self._transmit) for _ in range(_THREADS - 1)]
        for thread in others:
            thread.start()
        self._transmit()
        for thread in others:
            thread.join()

    def _transmit(self) -> None:
        """What each of the threads does: take a request, read, answer."""
        try:
            while True:
                with self._receiving:
                    request = self._request()
                self._reply(*request)
        except (_Closed, OSError):
            self._shut()
        except BaseException:
            self._shut()
            raise

    def _request(self) -> tuple[int, int, int, int]:
        """Kind, cookie, offset and length in bytes."""
        magic, _, kind, cookie, offset, length = _REQUEST.unpack(self._receive(_REQUEST.size))
        # A write would go on with data, which nobody here wants to read.
        if magic != _REQUEST_MAGIC or kind in {_WRITE, _DISCONNECT}:
            raise _Closed
        return kind, cookie, offset, length

    def _shut(self) -> None:
        """Wake the other threads."""
        with contextlib.suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)

    def _reply(self, kind: int, cookie: int, offset: int, length: int) -> None:
        if kind != _READ or not 0 < length <= MAX_REQUEST or offset + length > self._size:
            self._fail(cookie, errno.EINVAL, "only reads within the disk are possible")
            return
        try:
            inside = min(length, self._content.size - offset)
            data = self._content.read(offset, inside) if inside > 0 else b""
        except ImageError as error:
            self._fail(cookie, errno.EIO, error.message)
        except MemoryError:
            self._fail(cookie, errno.ENOMEM, "not enough memory")
        else:
            # Behind the end of the content the last sector has zeros.
            self._chunk(_DATA, cookie, offset.to_bytes(8, "big"), data.ljust(length, b"\0"))

    def _fail(self, cookie: int, number: int, untrusted_reason: str) -> None:
        reason = shown(untrusted_reason).encode()[:_MAX_MESSAGE]
        self._chunk(_ERROR, cookie, struct.pack(">IH", number, len(reason)), reason)

    def _chunk(self, kind: int, cookie: int, head: bytes, data: bytes) -> None:
        length = len(head) + len(data)
        first = _CHUNK.pack(_CHUNK_MAGIC, _DONE, kind, cookie, length) + head
        with self._sending:
            self._socket.sendall(first)
            self._socket.sendall(data)

    def _receive(self, length: int) -> bytes:
        data = self._socket.recv(length, socket.MSG_WAITALL) if length else b""
        if len(data) != length:
            raise _Closed
        return data
