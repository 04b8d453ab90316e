"""VeraCrypt volumes with content, made without VeraCrypt and with few iterations.

Layout: VeraCrypt's documentation, "VeraCrypt Volume Format Specification"; PIM: "PIM", where
iterations = 15000 + PIM × 1000. The derivation is PBKDF2 with HMAC-SHA-512, the cipher AES in XTS
mode, whose sectors count from the start of the volume.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SECTOR = 512
AREA = 128 << 10
"""Bytes of headers before the content, and of their backups behind it."""

PIM = 1
_ITERATIONS = 15000 + PIM * 1000
_VERSION, _NEEDED = 5, 0x010B


def make_veracrypt(path: Path, content: bytes, word: bytes) -> None:
    """Encrypt `content` into the volume `path`; `word` opens it with PIM 1."""
    keys = os.urandom(64)
    path.write_bytes(
        _header(len(content), keys, word).ljust(AREA, os.urandom(1))
        + b"".join(
            _encrypted(keys, (AREA + start) // SECTOR, content[start : start + SECTOR])
            for start in range(0, len(content), SECTOR)
        )
        + _header(len(content), keys, word).ljust(AREA, os.urandom(1))
    )


def _header(size: int, keys: bytes, word: bytes) -> bytes:
    salt = os.urandom(64)
    fields = struct.pack(
        ">28xQQQQII120x", 0, size, AREA, size, 0, SECTOR
    )  # hidden size, volume size, start and size of what is encrypted, flags, sector
    area = keys.ljust(256, b"\0")
    head = b"VERA" + struct.pack(">HHI", _VERSION, _NEEDED, zlib.crc32(area)) + fields[12:]
    plain = head[:188] + struct.pack(">I", zlib.crc32(head[:188])) + area
    key = hashlib.pbkdf2_hmac("sha512", word, salt, _ITERATIONS, 64)
    return salt + _encrypted(key, 0, plain)


def _encrypted(key: bytes, sector: int, data: bytes) -> bytes:
    cipher = Cipher(algorithms.AES(key), modes.XTS(sector.to_bytes(16, "little"))).encryptor()
    return cipher.update(data) + cipher.finalize()
