"""The limits of what the guest may report, checked by every type that both sides share."""

from __future__ import annotations

from collections.abc import Sequence

MAX_TEXT = 4096
"""Characters in any one string that the guest reports."""

MAX_LIST = 4096
"""Entries in any one list that the guest reports."""

MAX_BYTES = 2**63 - 1
"""The largest size or offset; block devices of Linux end there too (loff_t)."""


def check_text(*values: str | None) -> None:
    """Raise ValueError for a string longer than MAX_TEXT characters."""
    if any(value is not None and len(value) > MAX_TEXT for value in values):
        raise ValueError(f"a string is longer than {MAX_TEXT} characters")


def check_list(values: Sequence[object]) -> None:
    """Raise ValueError for a list longer than MAX_LIST entries."""
    if len(values) > MAX_LIST:
        raise ValueError(f"a list has more than {MAX_LIST} entries")


def check_bytes(*values: int | None) -> None:
    """Raise ValueError for a number outside 0 … MAX_BYTES."""
    if any(value is not None and not 0 <= value <= MAX_BYTES for value in values):
        raise ValueError("a number of bytes is negative or above 2^63-1")


def check_numbers(*values: int | None) -> None:
    """Raise ValueError for a number of more than 64 bits."""
    if any(value is not None and not -(2**63) <= value < 2**64 for value in values):
        raise ValueError("a number has more than 64 bits")
