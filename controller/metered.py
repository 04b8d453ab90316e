"""The only socket that paramiko reads from: it counts bytes and knows when time is up.

paramiko believes any packet length and buffers whatever a peer sends, window or not (measured:
1.6 GiB in twelve seconds). So a hostile guest meets its limits here, below paramiko.
"""

from __future__ import annotations

import socket
import time

_OPENING_BYTES = 512


class Metered:
    """A connected socket with a budget of bytes to receive and a deadline, both per phase.

    Offers what paramiko.Transport wants of a socket: send, recv, close, settimeout. When a
    limit is passed, `broken` says which, and the connection reads as ended. `opening` keeps the
    first bytes that came.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._budget = 0
        self._deadline = 0.0
        self._timeout: float | None = None
        self.received = 0
        self.opening = b""
        self.broken = ""

    def allow(self, budget: int, seconds: float) -> None:
        """Begin a phase: at most `budget` more bytes, for at most `seconds`."""
        self._budget = budget
        self._deadline = time.monotonic() + seconds

    def recv(self, size: int) -> bytes:
        """Receive at most `size` bytes; b"" when a limit was passed. Raises TimeoutError."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return self._break("it did not finish in time")
        self._socket.settimeout(min(left, self._timeout or left))
        data = self._socket.recv(min(size, 65536))
        self.received += len(data)
        if len(self.opening) < _OPENING_BYTES:
            self.opening = (self.opening + data)[:_OPENING_BYTES]
        self._budget -= len(data)
        if self._budget < 0:
            return self._break("it sent more than was asked for")
        return data

    def _break(self, reason: str) -> bytes:
        self.broken = self.broken or reason
        self._socket.close()
        return b""

    def send(self, data: bytes) -> int:
        """Send some of `data`; returns how many bytes went."""
        self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
        return self._socket.send(data)

    def settimeout(self, seconds: float | None) -> None:
        """How long one recv may wait; the deadline counts besides."""
        self._timeout = seconds

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @property
    def _closed(self) -> bool:
        """What paramiko.Transport.stop_thread asks of a socket."""
        return self._socket.fileno() < 0
