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

from appliance.agent import ssh_server
from appliance.protocol import VERSION, ProtocolError, Provision, Provisioned

# <linux/random.h>
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
_MIN_ENTROPY = 32


def provision(order: Provision) -> Provisioned:
    """Reseed, set the clock, make the host key and let the session's key in."""
    _reseed(base64.b64decode(order.entropy, validate=True))
    time.clock_settime_ns(time.CLOCK_REALTIME, order.time_ns)
    private, public = make_key()
    ssh_server.open_to(order.client_key, private)
    return Provisioned(VERSION, public, os.urandom(16).hex())


def _reseed(entropy: bytes) -> None:
    if len(entropy) < _MIN_ENTROPY:
        raise ProtocolError(f"{len(entropy)} bytes of entropy are too few")
    with Path("/dev/urandom").open("wb", buffering=0) as device:
        pool = struct.pack("=ii", len(entropy) * 8, len(entropy)) + entropy
        fcntl.ioctl(device, _RNDADDENTROPY, pool)
        fcntl.ioctl(device, _RNDRESEEDCRNG)


def make_key() -> tuple[bytes, str]:
    """Return an Ed25519 key as dropbear's key file has it and as a public key line.

    libcrypto makes it within this process: running a program for it costs a fifth of a second.
    """
    seed = os.urandom(32)
    public = _public_of(seed)
    blob = _string(b"ssh-ed25519") + _string(public)
    # buf_put_ed25519_priv_key() of dropbear: the type, then the seed with the public half.
    private = _string(b"ssh-ed25519") + _string(seed + public)
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
