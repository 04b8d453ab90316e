"""Encrypted volumes with content, made without device-mapper.

cryptsetup makes the header for a volume key that is known here, and OpenSSL encrypts the sectors.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SECTOR = 512
HEADER = 2 << 20
"""Bytes before the content."""


def make_luks(path: Path, content: Path, word: bytes, version: int, *options: str) -> None:
    """Encrypt `content` with aes-xts-plain64 into the LUKS volume `path`; `word` opens it.

    Deriving the key costs next to nothing, so that an emulated guest does it at once.
    """
    volume_key = os.urandom(64)
    size = content.stat().st_size
    path.write_bytes(b"")
    os.truncate(path, HEADER + size)
    key_file = path.with_suffix(".volume-key")
    key_file.write_bytes(volume_key)
    areas = ["--luks2-metadata-size", "16k", "--luks2-keyslots-size", "1M"]
    subprocess.run(
        [
            *("cryptsetup", "luksFormat", "-q", "--type", f"luks{version}"),
            *("--cipher", "aes-xts-plain64", "--key-size", "512"),
            *(
                ()
                if "--pbkdf-force-iterations" in options
                else ("--pbkdf-force-iterations", "1000")
            ),
            *("--volume-key-file", str(key_file), "--offset", str(HEADER // SECTOR)),
            *(["--sector-size", "512", *areas] if version == 2 else []),
            *(["--pbkdf", "pbkdf2"] if version == 2 and "--pbkdf" not in options else []),
            *(*options, str(path), "-"),
        ],
        input=word,
        check=True,
        capture_output=True,
    )
    key_file.unlink()
    with content.open("rb") as source, path.open("r+b") as target:
        target.seek(HEADER)
        for number in range(size // SECTOR):
            tweak = number.to_bytes(16, "little")
            cipher = Cipher(algorithms.AES(volume_key), modes.XTS(tweak)).encryptor()
            target.write(cipher.update(source.read(SECTOR)) + cipher.finalize())
