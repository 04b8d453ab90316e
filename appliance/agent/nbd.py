"""Block devices of the kernel's NBD client, set up by ioctl around a connected socket.

Numbers: <linux/nbd.h>. The server has parsed hostile input, so what it says is checked, and it has
a time limit for each answer: a server that hangs gives read errors.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images.nbd_size import opened_export
from images.nbd_wire import NbdError, Wire

SECTOR = 512
DEVICES = 16
"""As many as the module makes by itself."""

_SET_SOCK, _SET_BLKSIZE, _DO_IT, _CLEAR_SOCK = 0xAB00, 0xAB01, 0xAB03, 0xAB04
_SET_SIZE_BLOCKS, _DISCONNECT, _SET_TIMEOUT, _SET_FLAGS = 0xAB07, 0xAB08, 0xAB09, 0xAB0A
_HAS_FLAGS, _READ_ONLY = 1 << 0, 1 << 1
_MAX_SIZE = (1 << 63) - SECTOR
_ANSWER_SECONDS = 30
_READY_SECONDS = 20.0
_PATIENCE = 5.0


@contextmanager
def nbd_device(server: socket.socket, expected: int | None, *, timeout: float) -> Iterator[str]:
    """Yield the node of a read-only block device with what `server` exports under the name "".

    `timeout` in seconds is for the negotiation; the export must have the `expected` bytes, where
    that is known. Raises NbdError and OSError.
    """
    size, _ = opened_export(Wire(server, lambda: False, timeout), "")
    if size != (expected or size) or not 0 < size <= _MAX_SIZE or size % SECTOR:
        raise NbdError(f"the parser sees a disk of {size} bytes, the header says {expected}")
    server.settimeout(None)
    number = _free_number()
    device = os.open(f"/dev/nbd{number}", os.O_RDWR | os.O_CLOEXEC)
    try:
        for request, value in (
            (_SET_SOCK, server.fileno()),
            (_SET_BLKSIZE, SECTOR),
            (_SET_SIZE_BLOCKS, size // SECTOR),
            (_SET_TIMEOUT, _ANSWER_SECONDS),
            # Not what the server offers: it is only ever read.
            (_SET_FLAGS, _HAS_FLAGS | _READ_ONLY),
        ):
            fcntl.ioctl(device, request, value)
        # This call lasts as long as the device does.
        serving = threading.Thread(target=_serve, args=(device,), name="nbd", daemon=True)
        serving.start()
        try:
            _wait_until_ready(number, size, serving)
            yield f"/dev/nbd{number}"
        finally:
            with contextlib.suppress(OSError):
                fcntl.ioctl(device, _DISCONNECT)
            serving.join(_PATIENCE)
            with contextlib.suppress(OSError):
                fcntl.ioctl(device, _CLEAR_SOCK)
    finally:
        os.close(device)


def _serve(device: int) -> None:
    with contextlib.suppress(OSError):  # how it ends is seen by who reads from the device
        fcntl.ioctl(device, _DO_IT)


def _free_number() -> int:
    for number in range(DEVICES):
        if not Path(f"/sys/block/nbd{number}/pid").exists():
            return number
    raise OSError(errno.EBUSY, f"all {DEVICES} NBD devices are in use")


def _wait_until_ready(number: int, size: int, serving: threading.Thread) -> None:
    folder = Path(f"/sys/block/nbd{number}")
    deadline = time.monotonic() + _READY_SECONDS
    while serving.is_alive() and time.monotonic() < deadline:
        has_size = int((folder / "size").read_text()) * SECTOR == size
        if has_size and (folder / "pid").exists() and (folder / "ro").read_text().strip() == "1":
            return
        time.sleep(0.002)
    raise OSError(errno.ENXIO, f"/dev/nbd{number} did not become ready")
