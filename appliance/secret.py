"""Bytes that must not outlive their use: locked in memory, and overwritten afterwards.

Shared by host and guest. What this cannot reach is in docs/security.md: copies that other code
makes of what it is given.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def locked(data: bytes | bytearray | memoryview) -> bytearray:
    """A copy in memory that is not swapped out, as far as RLIMIT_MEMLOCK goes.

    It is never unlocked: locks do not nest, and another secret may lie on the same page.
    """
    copy = bytearray(data)
    if copy:
        _libc.mlock(_address(copy), len(copy))
    return copy


def wipe(data: bytearray) -> None:
    """Overwrite with zeros, in place; the length stays."""
    if data:
        ctypes.memset(_address(data), 0, len(data))


@contextmanager
def wiped(secrets: Sequence[bytearray]) -> Iterator[None]:
    """Overwrite them all when the context ends."""
    try:
        yield
    finally:
        for secret in secrets:
            wipe(secret)


def _address(data: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(data)).from_buffer(data))
