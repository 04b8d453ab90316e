"""The session with a restored guest: provisioned in clear over the serial port, then SSH on it.

The port's other end is the guest and nothing else, so the first exchange needs no secrecy from
third parties; what it must do is make the guest unique before it makes a key, and tell us that
key. From there on SSH is pinned to it.
"""

from __future__ import annotations

import base64
import io
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance.protocol import (
    AGENT_ADDRESS,
    CIPHER,
    KEX,
    KEY,
    MAC,
    MAX_LINE,
    VERSION,
    Failed,
    Mapped,
    Provision,
    Provisioned,
)
from controller.console import connect
from controller.errors import GuestFailed, GuestHostile
from controller.metered import Metered
from images.quoting import shown

# What paramiko logs is the guest's to choose; without a handler Python would print it.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_HANDSHAKE_BYTES = 64 * 1024
_ENTROPY_BYTES = 64


def order_warm(path: Path, *, seconds: float) -> None:
    """Have a freshly booted guest prepare itself for being saved. Raises GuestFailed."""
    with _connect(path, 10.0) as port:
        untrusted_answer = _exchange(port, b'{"op": "warm"}\n', seconds)
    try:
        msgspec.json.decode(untrusted_answer, type=Mapped)
    except (msgspec.MsgspecError, ValueError):
        raise GuestFailed(
            f"the guest could not prepare itself: {_reason(untrusted_answer)}"
        ) from None


def _reason(untrusted_answer: bytes) -> str:
    try:
        return shown(msgspec.json.decode(untrusted_answer, type=Failed).message)
    except (msgspec.MsgspecError, ValueError):
        return "its answer makes no sense"


@contextmanager
def session(
    path: Path, *, seconds: float, note: Callable[[Provisioned], None] = lambda _answer: None
) -> Iterator[tuple[paramiko.Channel, Metered]]:
    """Provision the guest behind the port at `path` and open a channel to its agent.

    Yields the channel and the meter that bounds what may be received on it. `seconds` is the
    time for all of it; `note` gets the guest's own identity. Raises GuestFailed, or
    GuestHostile for a guest that breaks the rules.
    """
    deadline = time.monotonic() + seconds
    key = _make_key()
    with _connect(path, seconds) as port:
        host_key = _provision(port, key, deadline, note)
        meter = Metered(port)
        meter.allow(_HANDSHAKE_BYTES, deadline - time.monotonic())
        transport = _transport(meter)
        try:
            channel = _open(transport, meter, key, host_key, deadline)
            yield channel, meter
        finally:
            # Closed below paramiko: an orderly end would wait for a guest that may not answer.
            meter.close()
            transport.stop_thread()
            transport.packetizer.complete_handshake()  # ends a timer that nobody else ends


def _connect(path: Path, seconds: float) -> socket.socket:
    try:
        return connect(path, timeout=seconds)
    except OSError as error:
        raise GuestFailed(f"the guest's port cannot be reached: {error.strerror}") from error


def _make_key() -> paramiko.Ed25519Key:
    """A key for this session alone; it exists only in this process."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    return paramiko.Ed25519Key(file_obj=io.StringIO(pem.decode()))


def _provision(
    port: socket.socket,
    key: paramiko.Ed25519Key,
    deadline: float,
    note: Callable[[Provisioned], None],
) -> bytes:
    """Return the guest's new host key as SSH's wire format has it."""
    order = Provision(
        entropy=base64.b64encode(os.urandom(_ENTROPY_BYTES)).decode(),
        time_ns=time.time_ns(),
        client_key=f"{KEY} {key.get_base64()}",
    )
    line = msgspec.json.encode({"op": "provision", **msgspec.to_builtins(order)}) + b"\n"
    untrusted_answer = _exchange(port, line, deadline - time.monotonic())
    try:
        answer = msgspec.json.decode(untrusted_answer, type=Provisioned)
        kind, _, untrusted_key = answer.host_key.partition(" ")
        host_key = base64.b64decode(untrusted_key, validate=True)
    except (msgspec.MsgspecError, ValueError):
        raise GuestHostile("the guest's answer to its provisioning makes no sense") from None
    if answer.version != VERSION or kind != KEY:
        raise GuestFailed(
            "the saved appliance is of another version",
            hint="run `forensic appliance build`",
        )
    note(answer)
    return host_key


def _exchange(port: socket.socket, line: bytes, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    untrusted_answer = bytearray()
    try:
        port.settimeout(max(0.001, seconds))
        port.sendall(line)
        while not untrusted_answer.endswith(b"\n"):
            port.settimeout(max(0.001, deadline - time.monotonic()))
            # One byte at a time: what follows the line belongs to SSH.
            byte = port.recv(1)
            if not byte:
                raise GuestFailed("the guest ended before it answered")
            untrusted_answer += byte
            if len(untrusted_answer) > MAX_LINE:
                raise GuestHostile("the guest's first answer is too long")
    except OSError as error:
        raise GuestFailed(f"the guest did not answer within {seconds:.0f} seconds") from error
    return bytes(untrusted_answer)


def _transport(meter: Metered) -> paramiko.Transport:
    transport = paramiko.Transport(meter, server_sig_algs=False)  # type: ignore[arg-type]
    options = transport.get_security_options()
    options.kex = [KEX]
    options.ciphers = [CIPHER]
    options.digests = [MAC]
    options.key_types = [KEY]
    options.compression = ["none"]
    return transport


def _open(
    transport: paramiko.Transport,
    meter: Metered,
    key: paramiko.Ed25519Key,
    host_key: bytes,
    deadline: float,
) -> paramiko.Channel:
    try:
        transport.start_client(timeout=deadline - time.monotonic())
        _check_peer(transport, host_key)
        transport.auth_publickey("root", key)
        return transport.open_channel(
            "direct-tcpip",
            AGENT_ADDRESS,
            ("127.0.0.1", 0),
            timeout=max(0.001, deadline - time.monotonic()),
        )
    except GuestFailed:
        raise
    except Exception as error:  # paramiko hands on whatever its parser ran into
        reason = meter.broken or shown(str(error)[:200]) or type(error).__name__
        raise GuestFailed(f"no SSH session with the guest: {reason}") from error


def server_draw(opening: bytes) -> str:
    """The first 16 random bytes that an SSH server sent, as hexadecimal text.

    They are the cookie of its SSH_MSG_KEXINIT (RFC 4253, sections 4.2, 6 and 7.1): after the
    version line come the packet's length, the padding's, and the number 20.
    """
    packet = opening.partition(b"\n")[2]
    return packet[6:22].hex()


def _check_peer(transport: paramiko.Transport, host_key: bytes) -> None:
    # start_client can return without an exchange of keys (measured, security.md F4).
    if not transport.is_active() or not transport.initial_kex_done:
        raise GuestFailed("the guest did not finish the SSH key exchange")
    if transport.get_remote_server_key().asbytes() != host_key:
        raise GuestHostile("the guest's SSH host key is not the one that it announced")
