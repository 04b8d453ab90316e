"""Starts arrays by the kernel's own interface, read-only: no process, no resync, no new superblock.

Source: Documentation/admin-guide/md.rst of Linux 6.12.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from appliance.agent.dm import MappingError

_PARAMETERS = Path("/sys/module/md_mod/parameters")
_numbers = count()


@contextmanager
def started(nodes: Sequence[str], version: str) -> Iterator[str]:
    """Yield the node of the array that these members with superblocks of that version make.

    The kernel opens members for writing, so they are overlays; an array that is started with the
    state `readonly` writes nothing all the same. Raises MappingError.
    """
    name = f"md{next(_numbers)}"
    control = Path("/sys/block", name, "md")
    # A parity array that is both degraded and dirty: its content may be wrong, and is shown.
    _write(_PARAMETERS / "start_dirty_degraded", "1")
    _write(_PARAMETERS / "new_array", name)
    try:
        _write(control / "metadata_version", version)
        for node in nodes:
            number = Path(node).stat().st_rdev
            _write(control / "new_dev", f"{os.major(number)}:{os.minor(number)}")
        _write(control / "array_state", "readonly")
        yield f"/dev/{name}"
    finally:
        _stop(control)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise MappingError(
            f"the kernel refuses it ({path.name} {text}: {error.strerror})"
        ) from error


def _stop(control: Path) -> None:
    """Whoever has just closed it may not be through with it yet."""
    for _ in range(25):
        with suppress(OSError):
            (control / "array_state").write_text("clear")
            return
        time.sleep(0.02)
