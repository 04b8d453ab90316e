"""Gives up every system call that reading does not need. From then on this process cannot change
its mind: nor can evidence that takes it over.
"""

from __future__ import annotations

import ctypes
import os

from images.seccomp import reading_filter

# linux/prctl.h, linux/seccomp.h
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def lock() -> None:
    """For this thread and all that it will start. Raises OSError; then nothing may be read.

    Nothing can be opened any more: Python modules have to be imported before.
    """
    code = reading_filter()
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"prctl: {os.strerror(ctypes.get_errno())}")
