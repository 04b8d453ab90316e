"""A guest with more memory, where deriving a key needs more than the first one has."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.layer import Finding, Severity
from controller.settings import MAX_MEMORY, Settings

MAX_GUESTS = 3
"""An encrypted volume can lie in another one that needs less."""

_LEFT_TO_HOST = 256
"""MiB."""


def available() -> int:
    """MiB that this host can give without swapping, as its kernel estimates it."""
    found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) >> 10 if found else 0


def next_memory(wanted: int, settings: Settings, free: int) -> int | None:
    """MiB for the next guest; None where this one is to stay. `wanted` is the guest's own word."""
    if settings.memory_is_fixed or not settings.memory < wanted <= MAX_MEMORY:
        return None
    return wanted if wanted <= free - _LEFT_TO_HOST else None


def why_not(wanted: int, settings: Settings, free: int) -> list[Finding]:
    """What keeps a guest of `wanted` MiB from being started, where it is not the user."""
    if settings.memory_is_fixed or wanted <= settings.memory:
        return []
    if next_memory(wanted, settings, free) is not None:
        return []
    message = (
        f"a guest with {wanted} MiB of memory was not started: this host has {free} MiB available, "
        f"of which {_LEFT_TO_HOST} stay free, and a guest gets {MAX_MEMORY} MiB at most"
    )
    return [Finding(Severity.WARNING, None, "no-memory", message)]
