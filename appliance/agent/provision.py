"""Makes a restored guest unlike every other guest restored from the same state.

Without this, measured, all of them draw the same random numbers and believe in the time of the
save. Order matters: entropy first, then the clock, and only then a key.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import os
import struct
import time
from pathlib import Path
from subprocess import Popen  # noqa: TID251 - the type alone

from appliance.agent.command import start_server
from appliance.protocol import (
    AGENT_ADDRESS,
    CIPHER,
    KEX,
    KEY,
    VERSION,
    ProtocolError,
    Provision,
    Provisioned,
)

# <linux/random.h>
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
_MIN_ENTROPY = 32

DIRECTORY = Path("/run/forensic")
HOST_KEY = DIRECTORY / "host_key"
AUTHORIZED_KEYS = DIRECTORY / "authorized_keys"
CONFIGURATION = DIRECTORY / "sshd_config"
"""A pipe: sshd, started before the state is saved, waits there for its first line. What the
session's keys are made of it reads and draws only after the reseed."""

SSHD_PARTS = (Path("/usr/lib/openssh/sshd-session"), Path("/usr/lib/openssh/sshd-auth"))
"""What sshd starts for a session; read once before the save, so that it is in memory."""

SSHD_COMMAND = ["/usr/sbin/sshd", "-i", "-f", str(CONFIGURATION)]

_SSHD_SETTINGS = f"""\
HostKey {HOST_KEY}
AuthorizedKeysFile {AUTHORIZED_KEYS}
KexAlgorithms {KEX}
Ciphers {CIPHER}
HostKeyAlgorithms {KEY}
PubkeyAcceptedAlgorithms {KEY}
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
Compression no
PrintMotd no
PrintLastLog no
TCPKeepAlive no
X11Forwarding no
AllowAgentForwarding no
AllowStreamLocalForwarding no
AllowTcpForwarding local
PermitOpen {AGENT_ADDRESS[0]}:{AGENT_ADDRESS[1]}
LogLevel QUIET
"""


def start_sshd(port: int) -> Popen[bytes]:
    """Start the SSH server of the session to come; it waits for its configuration."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    os.mkfifo(CONFIGURATION, 0o600)
    return start_server(SSHD_COMMAND, port)


def provision(order: Provision) -> Provisioned:
    """Reseed, set the clock, make the host key and let the session's key in."""
    _reseed(base64.b64decode(order.entropy, validate=True))
    time.clock_settime_ns(time.CLOCK_REALTIME, order.time_ns)
    private, public = make_key()
    _write(HOST_KEY, private)
    _write(AUTHORIZED_KEYS, f'restrict,port-forwarding,command="/bin/false" {order.client_key}\n')
    CONFIGURATION.write_text(_SSHD_SETTINGS)
    return Provisioned(VERSION, public, os.urandom(16).hex())


def _reseed(entropy: bytes) -> None:
    if len(entropy) < _MIN_ENTROPY:
        raise ProtocolError(f"{len(entropy)} bytes of entropy are too few")
    with Path("/dev/urandom").open("wb", buffering=0) as device:
        pool = struct.pack("=ii", len(entropy) * 8, len(entropy)) + entropy
        fcntl.ioctl(device, _RNDADDENTROPY, pool)
        fcntl.ioctl(device, _RNDRESEEDCRNG)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def make_key() -> tuple[str, str]:
    """Return an Ed25519 key in OpenSSH's private format and as a public key line.

    libcrypto makes it within this process: running ssh-keygen costs a fifth of a second.
    """
    seed = os.urandom(32)
    public = _public_of(seed)
    blob = _string(b"ssh-ed25519") + _string(public)
    check = os.urandom(4)
    # PROTOCOL.key of OpenSSH: two equal check numbers, the key, a comment, padding 1 2 3 …
    inner = check + check + blob + _string(seed + public) + _string(b"")
    inner += bytes(range(1, 1 + (-len(inner) % 8)))
    outer = b"openssh-key-v1\0" + _string(b"none") * 2 + _string(b"") + struct.pack(">I", 1)
    text = base64.b64encode(outer + _string(blob) + _string(inner)).decode()
    lines = "\n".join(text[i : i + 70] for i in range(0, len(text), 70))
    private = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{lines}\n-----END OPENSSH PRIVATE KEY-----\n"
    return private, f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _public_of(seed: bytes) -> bytes:
    """The public half of an Ed25519 seed; EVP_PKEY_ED25519 is NID 1087 in <openssl/obj_mac.h>."""
    crypto = ctypes.CDLL("libcrypto.so.3")
    crypto.EVP_PKEY_new_raw_private_key.restype = ctypes.c_void_p
    crypto.EVP_PKEY_new_raw_private_key.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t,
    ]  # fmt: skip
    crypto.EVP_PKEY_get_raw_public_key.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_size_t),
    ]  # fmt: skip
    crypto.EVP_PKEY_free.argtypes = [ctypes.c_void_p]
    key = crypto.EVP_PKEY_new_raw_private_key(1087, None, seed, len(seed))
    public = ctypes.create_string_buffer(32)
    length = ctypes.c_size_t(32)
    try:
        if not key or crypto.EVP_PKEY_get_raw_public_key(key, public, ctypes.byref(length)) != 1:
            raise ProtocolError("libcrypto could not make a key")
    finally:
        crypto.EVP_PKEY_free(key)
    return public.raw
