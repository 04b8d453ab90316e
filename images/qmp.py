"""A small, bounded client for QEMU's monitor protocol over a connected Unix socket."""

from __future__ import annotations

import array
import json
import socket
import time
from collections.abc import Mapping

_MAX_LINE = 64 << 10
_LINE_PER_NODE = 4 << 10
_NAME_OF_DEEP_NODE = 20 << 10
"""A node's name holds those below it, up to 4 KiB, with each quotation mark escaped; twice."""
_DEEP_NODES = 256
"""More than a chain has; all others stand on nothing and have short names."""
_MAX_EVENTS = 1000


class QmpError(Exception):
    """The peer refused a command, or does not speak the protocol within the time."""


class QmpClosed(QmpError):
    """The peer closed the connection: the process has ended or is about to."""


class Qmp:
    """One command at a time; everything must be done by `deadline` (monotonic seconds).

    A line may have 64 KiB, and 4 KiB more for each block node that a reply can list: 24 KiB for
    the first of them, which may stand on each other.
    """

    def __init__(self, connection: socket.socket, deadline: float, *, nodes: int = 0) -> None:
        deep = min(nodes, _DEEP_NODES) * _NAME_OF_DEEP_NODE
        self._max_line = _MAX_LINE + nodes * _LINE_PER_NODE + deep
        self._socket = connection
        self._deadline = deadline
        self._buffer = bytearray()

    def extend(self, deadline: float) -> None:
        """From now on everything must be done by `deadline`."""
        self._deadline = deadline

    def greet(self) -> None:
        """Wait for the greeting and leave the negotiation mode."""
        if "QMP" not in self._message():
            raise QmpError("the exporter did not greet")
        self.command("qmp_capabilities")

    def command(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        *,
        descriptor: int | None = None,
    ) -> object:
        """Send a command, with an open descriptor if given, and return its result."""
        request = {"execute": name, "arguments": dict(arguments or {})}
        self._send(json.dumps(request).encode() + b"\n", descriptor)
        for _ in range(_MAX_EVENTS):
            reply = self._message()
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                error = reply["error"]
                reason = error.get("desc") if isinstance(error, dict) else None
                raise QmpError(str(reason)[:2000])
        raise QmpError("too many events instead of a reply")

    def _send(self, data: bytes, descriptor: int | None) -> None:
        ancillary = []
        if descriptor is not None:
            rights = array.array("i", [descriptor])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        try:
            self._socket.settimeout(self._left())
            sent = self._socket.sendmsg([data], ancillary)
            self._socket.sendall(data[sent:])
        except TimeoutError as error:
            raise QmpError("the exporter did not take a command in time") from error
        except OSError as error:
            raise QmpClosed("the exporter ended") from error

    def _message(self) -> dict[str, object]:
        line = self._line()
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise QmpError("the exporter sent something that is not JSON") from error
        if not isinstance(message, dict):
            raise QmpError("the exporter sent something that is not a message")
        return message

    def _line(self) -> bytes:
        while True:
            end = self._buffer.find(b"\n")
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return line
            if len(self._buffer) > self._max_line:
                raise QmpError("the exporter sent a line that is too long")
            self._buffer += self._receive()

    def _receive(self) -> bytes:
        try:
            self._socket.settimeout(self._left())
            data = self._socket.recv(16384)
        except TimeoutError as error:
            raise QmpError("the exporter did not answer in time") from error
        except OSError as error:
            raise QmpClosed("the exporter ended") from error
        if not data:
            raise QmpClosed("the exporter ended")
        return data

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise QmpError("the exporter did not answer in time")
        return left
