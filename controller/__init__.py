"""The host side: cases, guests, results, and the command line. `Case` is the Python API."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.case import Case
    from controller.settings import Settings

__all__ = ["Case", "Settings"]

_HOMES = {"Case": "controller.case", "Settings": "controller.settings"}


def __getattr__(name: str) -> object:
    """Load the API when it is asked for: `forensic --version` must not wait for it (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
