"""A connection to an untrusted NBD server: bounded waiting, and the errors of the protocol.

What comes is believed by nobody: see images/nbd_client.py for the checks.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial

from images.read_ahead import Cancelled

_TICK = 0.05
"""Seconds between two looks at whether to stop."""


class NbdError(Exception):
    """The server broke the protocol, did not answer in time, or refused."""


class NbdReadError(NbdError):
    """The server says that it cannot read (some of) `length` bytes at `offset`, and why."""

    def __init__(self, offset: int, length: int, reason: str) -> None:
        super().__init__(f"{length} bytes at {offset} could not be read: {reason}")
        self.offset = offset
        self.length = length
        self.reason = reason


class Wire:
    """Whole messages over a stream socket, which this sets to non-blocking with a short wait.

    Everything raises NbdError where the server has closed the connection, or was silent until
    `timeout` seconds after the last call of `expect`; and Cancelled.
    """

    def __init__(
        self, connection: socket.socket, stopped: Callable[[], bool], timeout: float
    ) -> None:
        self._socket = connection
        self._socket.settimeout(_TICK)
        self._stopped = stopped
        self._timeout = timeout
        self.expect()

    def expect(self) -> None:
        """What is waited for from now on has its whole time."""
        self._deadline = time.monotonic() + self._timeout

    def check(self) -> None:
        """Raise Cancelled or NbdError where it is time for either."""
        if self._stopped():
            raise Cancelled
        if time.monotonic() > self._deadline:
            raise NbdError(f"the exporter did not answer within {self._timeout:g} seconds")

    def send(self, data: bytes) -> None:
        """Send all of it."""
        left = memoryview(data)
        while left:
            left = left[self._do(partial(self._socket.send, left)) :]

    def receive(self, length: int) -> bytes:
        """Exactly `length` bytes, which the caller has found to be few enough."""
        buffer = bytearray(length)
        self.receive_into(memoryview(buffer))
        return bytes(buffer)

    def receive_into(self, buffer: memoryview) -> None:
        """Fill the buffer."""
        while buffer:
            count = self._do(partial(self._socket.recv_into, buffer))
            if count == 0:
                raise NbdError("the exporter closed the connection")
            buffer = buffer[count:]

    def _do(self, operation: Callable[[], int]) -> int:
        while True:
            self.check()
            try:
                return operation()
            except TimeoutError:
                continue
            except OSError as error:
                raise NbdError(f"the connection to the exporter broke: {error.strerror}") from error
