"""The guest's serial console: its kernel's last words, bounded however much it says."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from controller.errors import GuestFailed
from images.quoting import shown

LIMIT = 1 << 20
"""Bytes that are kept: the first half once, the last half always."""


class Console:
    """Reads the console's socket into memory from a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0
        self._socket: socket.socket | None = None

    def __enter__(self) -> Console:
        try:
            self._socket = connect(self._path, timeout=5.0)
        except OSError as error:
            raise GuestFailed(f"the guest has no console: {error.strerror}") from error
        threading.Thread(target=self._drain, daemon=True, name="console").start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._socket:
            # Closing alone does not wake the thread that reads.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _drain(self) -> None:
        assert self._socket  # noqa: S101 - set before the thread starts
        try:
            while data := self._socket.recv(65536):
                self._keep(data)
        except OSError:
            return  # closed by us

    def _keep(self, data: bytes) -> None:
        with self._lock:
            room = max(0, LIMIT // 2 - len(self._head))
            self._head += data[:room]
            self._tail += data[room:]
            excess = len(self._tail) - LIMIT // 2
            if excess > 0:
                del self._tail[:excess]
                self._dropped += excess

    def content(self) -> bytes:
        """Everything that was kept, as the guest sent it, with a mark where some was dropped."""
        with self._lock:
            mark = f"\n[{self._dropped} bytes left out]\n".encode() if self._dropped else b""
            return bytes(self._head + mark + self._tail)

    def last_lines(self, count: int) -> list[str]:
        """The last lines, safe to print."""
        lines = [line.rstrip(b"\r") for line in self.content()[-16384:].split(b"\n")]
        return [shown(line)[:300] for line in lines if line.strip()][-count:]


def connect(path: Path, *, timeout: float) -> socket.socket:
    """Connect to a Unix socket that QEMU has made or is about to make. Raises OSError."""
    deadline = time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return connection
