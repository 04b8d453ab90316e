"""The virtio-serial port: the guest's only way out. Orders come in here, then SSH runs over it."""

from __future__ import annotations

import json
import os
import select
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.protocol import (
    MAX_LINE,
    PORT_NAME,
    Failed,
    Mapped,
    ProtocolError,
    Provisioned,
    parse_object,
)

_POLL_SECONDS = 0.005


class Port:
    """The open port. `fd` is its descriptor."""

    def __init__(self) -> None:
        # The kernel numbers the ports in no promised order; the name is what the host gave.
        for entry in Path("/sys/class/virtio-ports").iterdir():
            if (entry / "name").read_text().strip() == PORT_NAME:
                self.fd = os.open(f"/dev/{entry.name}", os.O_RDWR | os.O_CLOEXEC)
                return
        raise ProtocolError(f"there is no virtio-serial port named {PORT_NAME}")

    def read_order(self) -> dict[str, Any]:
        """Wait for one line of JSON, however long the host takes. Raises ProtocolError."""
        line = b""
        while not line.endswith(b"\n"):
            # The host sends nothing else before it has its answer, so nothing of SSH is lost.
            line += self._read()
            if len(line) > MAX_LINE:
                raise ProtocolError("an order is too long")
        return parse_object(line)

    def _read(self) -> bytes:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while True:
            ((_, events),) = poll.poll()
            # While nobody holds the host's end the port reports POLLHUP and reads as empty.
            if events & select.POLLIN and (data := os.read(self.fd, MAX_LINE)):
                return data
            time.sleep(_POLL_SECONDS)

    def answer(self, body: Mapped | Provisioned | Failed) -> None:
        """Send the answer as a line of JSON."""
        data = json.dumps(asdict(body)).encode() + b"\n"
        while data:
            data = data[os.write(self.fd, data) :]
