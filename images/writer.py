"""Somebody else who can write to a file of the evidence, and how the file is recognised."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from images.evidence import EvidenceFile
from images.quoting import shown

How = Literal["lock", "descriptor", "mapping", "loop device", "holder", "mount", "domain"]
_MAX_COMMAND = 64


@dataclass(frozen=True, slots=True)
class Writer:
    """Who can write to the evidence file `path` at this moment, and what shows it.

    `pid` and `command` (escaped, at most 64 bytes before that) are None where nobody tells them;
    `detail` is escaped too. `str()` is a sentence without its full stop.
    """

    path: Path
    how: How
    pid: int | None
    command: str | None
    detail: str

    def __str__(self) -> str:
        who = "another program"
        if self.pid is not None:
            who = f"process {self.pid}" + (f" ({self.command})" if self.command else "")
        does = {
            "lock": f"{who} has locked it for writing ({self.detail})",
            "descriptor": f"{who} has it open for writing ({self.detail})",
            "mapping": f"{who} has it mapped into its memory for writing ({self.detail})",
            "loop device": f"it is the disk of a writable loop device ({self.detail})",
            "holder": f"a writable device lies on it ({self.detail})",
            "mount": f"it is mounted for writing ({self.detail})",
            "domain": f"a running virtual machine writes to it ({self.detail})",
        }
        return f"{shown(str(self.path))}: {does[self.how]}"


@dataclass(frozen=True, slots=True)
class Target:
    """A file of the evidence as the kernel knows it; `device` is that of a block device itself."""

    file: EvidenceFile
    device: int
    inode: int
    is_block: bool

    @classmethod
    def of(cls, file: EvidenceFile) -> Target:
        """From fstat(2) of the open file."""
        status = os.fstat(file.fd)
        if stat.S_ISBLK(status.st_mode):
            return cls(file, status.st_rdev, 0, True)
        return cls(file, status.st_dev, status.st_ino, False)

    def is_at(self, path: str | Path) -> bool:
        """Whether `path` leads to it now; False where it leads nowhere."""
        with contextlib.suppress(OSError, ValueError):
            status = Path(path).stat()
            if self.is_block:
                return stat.S_ISBLK(status.st_mode) and status.st_rdev == self.device
            return (status.st_dev, status.st_ino) == (self.device, self.inode)
        return False


def command_of(pid: int) -> str | None:
    """The name of a process, which it has chosen itself; None where it has ended."""
    try:
        untrusted_name = Path(f"/proc/{pid}/comm").read_bytes()
    except OSError:
        return None
    return shown(untrusted_name.removesuffix(b"\n")[:_MAX_COMMAND])
