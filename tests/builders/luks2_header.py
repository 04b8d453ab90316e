"""Changes in the JSON of a LUKS2 header, with checksums that fit.

Layout: LUKS2 On-Disk Format 1.1.3, section 2: both copies of the header, `csum` at 448.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BINARY, _CHECKSUM = 4096, slice(448, 512)


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Apply `change` to the JSON of both copies."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(16)[8:], "big")
        for start in (0, size):
            file.seek(start)
            header = bytearray(file.read(size))
            text = header[_BINARY:].split(b"\0", 1)[0]
            document = json.loads(text)
            change(document)
            header[_BINARY:] = json.dumps(document).encode().ljust(size - _BINARY, b"\0")
            header[_CHECKSUM] = bytes(64)
            header[_CHECKSUM] = hashlib.sha256(header).digest().ljust(64, b"\0")
            file.seek(start)
            file.write(header)
