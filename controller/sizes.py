"""Numbers for people: sizes, ranges of sectors, times, and how many of something there are."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_SIZE = re.compile(r"(?P<number>\d{1,15}(\.\d{1,3})?) ?(?P<unit>[KMGTPE])?(i?B)?", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def human(size: int) -> str:
    """A number of bytes in a unit that keeps it short: 512 B, 64 MiB, 1.5 GiB.

    There is no fraction exactly where nothing was rounded.
    """
    power = 0
    while power + 1 < len(_UNITS) and size >= 1024 ** (power + 1):
        power += 1
    scaled = f"{size / 1024**power:.1f}"
    if scaled == "1024.0" and power + 1 < len(_UNITS):
        power += 1
        scaled = "1.0"
    if size % 1024**power == 0:
        scaled = str(size // 1024**power)
    return f"{scaled} {_UNITS[power]}"


def parsed(text: str) -> int:
    """The opposite: bytes in 512M, 4G, 1.5T (powers of 1024). Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a size: {text!r}")
    power = " KMGTPE".index((found["unit"] or " ").upper())
    return int(float(found["number"]) * 1024**power)


def sectors(offset: int, size: int, sector_size: int) -> str:
    """First and last sector of `size` bytes at `offset`, as mmls(1) shows them: 2048-206847."""
    first = offset // sector_size
    if size == 0:
        return str(first)
    return f"{first}-{(offset + size - 1) // sector_size}"


def moment(seconds: int) -> str:
    """Seconds since the epoch as a time in UTC: 2024-03-25T09:12:00Z."""
    try:
        when = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:  # ext4 counts until the year 36812
        return f"{seconds} seconds after 1970"
    return when.replace(tzinfo=None).isoformat() + "Z"


def count(number: int, singular: str, plural: str = "") -> str:
    """1 file, 2 files, 3 entries."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def duration(seconds: float) -> str:
    """Whole seconds, minutes and hours: 7 s, 2:05, 1:02:05."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
