"""Files out of Debian source packages, for tests that need what only a project itself has.

The archive comes from Debian's mirror by its name, its SHA-256 is written in the test, and it is
kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.request
from pathlib import Path

from controller.base import MIRROR


def debian_source(place: str, sha256: str) -> Path:
    """The archive at `place` below the mirror's pool/; fetched once. Raises RuntimeError."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "forensic-tests"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / place.rsplit("/", 1)[-1]
    if not path.is_file():
        new = path.with_suffix(".new")
        with (
            urllib.request.urlopen(f"{MIRROR}/pool/{place}", timeout=60) as source,
            new.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
        new.rename(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        path.unlink()
        raise RuntimeError(f"{path.name} is not the archive that this test was written for")
    return path
