"""Logins and boots in wtmp and lastlog: utmp(5), <utmp.h> of glibc.

musl and the BSDs write others; their records are not taken for these.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_BOOT_TIME = 2
_RUN_LEVEL = 1
_USER_PROCESS = 7
_MAX_TYPE = 9
_LARGE_TIMES = {"aarch64", "riscv64", "loongarch64"}
_BIG_ENDIAN = {"s390x", "ppc64", "ppc", "sparc", "sparc64", "m68k", "parisc", "mips"}


@dataclass(slots=True)
class History:
    """Seconds since the epoch; `logins` the last one of each account by name."""

    last_boot: int | None = None
    last_shutdown: int | None = None
    logins: dict[str, int] = field(default_factory=dict)

    def boot(self, time: int) -> None:
        """Note a boot."""
        self.last_boot = max(time, self.last_boot or 0)

    def shutdown(self, time: int) -> None:
        """Note a shutdown."""
        self.last_shutdown = max(time, self.last_shutdown or 0)

    def login(self, name: str, time: int) -> None:
        """Note a login."""
        if time > 0:
            self.logins[name] = max(time, self.logins.get(name, 0))


def record_of(arch: str | None) -> struct.Struct:
    """A record of wtmp: type, line, user, seconds; 384 bytes, or 400 with times of 64 bits."""
    order = ">" if arch in _BIG_ENDIAN else "<"
    if arch in _LARGE_TIMES:
        return struct.Struct(f"{order}h6x32s4x32s268xq48x")
    return struct.Struct(f"{order}h6x32s4x32s264xi40x")


def last_login_of(arch: str | None) -> struct.Struct:
    """A record of lastlog, at uid times its size: seconds, and 288 bytes of line and host."""
    order = ">" if arch in _BIG_ENDIAN else "<"
    return struct.Struct(f"{order}q288x" if arch in _LARGE_TIMES else f"{order}i288x")


def parse_wtmp(data: bytes, arch: str | None, history: History) -> bool:
    """Add the records; what is behind the last whole one does not count.

    Returns False where they make no sense as records of this kind.
    """
    record = record_of(arch)
    whole = len(data) - len(data) % record.size
    sensible = 0
    for kind, _line, user, time in record.iter_unpack(data[:whole]):
        if not 0 <= kind <= _MAX_TYPE:
            continue
        sensible += 1
        if kind == _BOOT_TIME and time > 0:
            history.boot(time)
        elif kind == _RUN_LEVEL and user.startswith(b"shutdown\0") and time > 0:
            history.shutdown(time)
        elif kind == _USER_PROCESS:
            history.login(user.split(b"\0")[0].decode("utf-8", "replace"), time)
    return not data or 2 * sensible > whole // record.size
