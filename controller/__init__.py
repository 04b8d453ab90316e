"""The host side: cases, guests, results, and the command line. `Case` is the Python API."""

from controller.case import Case
from controller.settings import Settings

__all__ = ["Case", "Settings"]
