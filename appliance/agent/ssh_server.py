"""The SSH server of the session: started before the state is saved, keyed after the restore.

It is dropbear, one process that serves one connection. It waits for its host key in a named pipe
and draws its random numbers only after that (seen with strace on version 2025.89: one
getrandom(2) of 32 bytes, after the key was read). What serves the session is therefore in memory
when a guest is restored, and yet no two guests have a secret in common.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

from appliance.agent.command import start_server
from appliance.protocol import AGENT_ADDRESS

DIRECTORY = Path("/run/forensic")
HOST_KEY = DIRECTORY / "host_key"
AUTHORIZED_KEYS = DIRECTORY / "authorized_keys"

COMMAND = [
    "/usr/sbin/dropbear",
    "-i",  # one connection, on standard input and output
    "-s",  # keys only
    "-k",  # no forwarding from the guest to the host
    *("-T", "1"),
    *("-c", "/bin/false"),  # no shell, no command, no subsystem
    *("-W", "1048576"),
    *("-r", str(HOST_KEY)),
    *("-D", str(DIRECTORY)),
]

_RESTRICTIONS = (
    "no-agent-forwarding,no-X11-forwarding,no-pty,"
    f'permitopen="{AGENT_ADDRESS[0]}:{AGENT_ADDRESS[1]}",command="/bin/false"'
)
_BLOCK = 256 * 1024


def start() -> socket.socket:
    """Start the server of the session to come; return the other end of its connection."""
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    os.mkfifo(HOST_KEY, 0o600)
    # A socket, not the port itself: dropbear asks for its peer's name.
    ours, theirs = socket.socketpair()
    with theirs:
        start_server(COMMAND, theirs.fileno())
    return ours


def open_to(client_key: str, host_key: bytes) -> None:
    """Let in whoever holds `client_key` (an authorized_keys line), under the given host key."""
    descriptor = os.open(AUTHORIZED_KEYS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{_RESTRICTIONS} {client_key}\n")
    HOST_KEY.write_bytes(host_key)


def relay(port: int, connection: socket.socket) -> None:
    """Carry bytes between the open port and the server until either ends; returns at once."""
    ways = ((port, connection.fileno()), (connection.fileno(), port))
    for source, target in ways:
        threading.Thread(target=_carry, args=(source, target), daemon=True).start()


def _carry(source: int, target: int) -> None:
    # An error here is the connection's end; the session notices by itself.
    with contextlib.suppress(OSError):
        while data := os.read(source, _BLOCK):
            while data:
                data = data[os.write(target, data) :]
