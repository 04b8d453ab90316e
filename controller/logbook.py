"""Where the guest's console is kept when a run fails, or when the user asks for it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from platformdirs import user_state_path

from controller.errors import EnvironmentFailed
from images.quoting import shown

KEPT = 20


def last_lines(console: bytes, count: int) -> list[str]:
    """The console's last lines, safe to print."""
    lines = [line.strip(b"\r") for line in console[-16384:].split(b"\n")]
    return [shown(line)[:300] for line in lines if line.strip()][-count:]


def keep(console: bytes) -> Path:
    """Write the console to the log folder and return the file; old ones beyond 20 are removed."""
    folder = user_state_path("forensic") / "logs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailed(
            f"the log folder {shown(str(folder))} cannot be made: {error.strerror}",
            hint="set XDG_STATE_HOME to a folder that you may write to",
        ) from error
    for old in sorted(folder.glob("console-*.log"))[: -KEPT + 1]:
        old.unlink(missing_ok=True)
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    path = folder / f"console-{moment}-{os.getpid()}-{time.monotonic_ns()}.log"
    write(path, console)
    return path


def write(path: Path, console: bytes) -> None:
    """Write the console to a new file as it came from the guest. Raises EnvironmentFailed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(console)
    except OSError as error:
        raise EnvironmentFailed(
            f"the console's log {shown(str(path))} cannot be written: {error.strerror}",
            hint="name a file that does not exist yet, in a folder that you may write to",
        ) from error
