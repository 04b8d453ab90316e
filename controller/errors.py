"""What can go wrong on the host, and which exit code says so.

ForensicError
├── UsageError            2   the command line asks for something impossible
├── EvidenceRefused       3   evidence is missing, unreadable, malformed or refused by policy
├── EnvironmentFailed     4   the host lacks something, or a part of it does not work
│   ├── ApplianceInvalid  4   an artifact or saved state is missing or not what was built
│   └── CellFailed        4   the sandbox or the core in it did not start, or died
├── GuestFailed           4   the guest did not come up, died, or stopped answering
│   └── GuestHostile      4   the guest broke the protocol or a limit
└── EvidenceChanged       5   a file of the evidence is not what it was at the start
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the command's exit status says (docs/reference/cli.md)."""

    COMPLETE = 0
    INCOMPLETE = 1
    USAGE = 2
    EVIDENCE = 3
    ENVIRONMENT = 4
    CHANGED = 5
    INTERRUPTED = 130


class ForensicError(Exception):
    """Something that the user should read: what failed and, as `hint`, what to do next."""

    exit_code: ClassVar[ExitCode] = ExitCode.ENVIRONMENT

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.console = b""
        """What the guest wrote to its serial console, where there was one."""


class UsageError(ForensicError):
    """The command line asks for something impossible."""

    exit_code = ExitCode.USAGE


class EvidenceRefused(ForensicError):
    """Evidence is missing, unreadable, malformed or refused by policy."""

    exit_code = ExitCode.EVIDENCE


class EnvironmentFailed(ForensicError):
    """The host lacks something, or a part of it does not work."""


class ApplianceInvalid(EnvironmentFailed):
    """An artifact or saved state of the appliance is missing or not what was built."""


class CellFailed(EnvironmentFailed):
    """The sandbox or the core in it did not start, or died; says nothing about guests."""


class GuestFailed(ForensicError):
    """The guest did not come up, died, or stopped answering."""


class GuestHostile(GuestFailed):
    """The guest broke the protocol or a limit; nothing that it said is believed."""


class EvidenceChanged(ForensicError):
    """A file of the evidence is not what it was at the start; `changes` has a line for each."""

    exit_code = ExitCode.CHANGED
    changes: Sequence[str] = ()


BY_NAME: dict[str, type[ForensicError]] = {
    each.__name__: each
    for each in (
        UsageError,
        EvidenceRefused,
        EnvironmentFailed,
        ApplianceInvalid,
        CellFailed,
        GuestFailed,
        GuestHostile,
        EvidenceChanged,
    )
}
"""For errors that come out of the cell by their name."""
