"""Is anybody else on this host writing to the evidence right now?

A file that changes while it is read gives an inspection that is of no moment at all. Virtual
machines that libvirt knows are in controller/live_domains.py, exclusive use of block devices in
images/evidence.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from images.evidence import EvidenceFile
from images.live_devices import device_writers
from images.live_processes import Use, mapped_for_writing, open_for_writing
from images.writer import Target, Writer, command_of

__all__ = ["Writer", "writers"]

_FLOCK = struct.Struct("hhqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, pid."""
_FIRST, _LAST = 101, 103
"""QEMU holds a shared lock on byte 100 + n for each permission n that it uses (RAW_LOCK_PERM_BASE
in block/file-posix.c; BLK_PERM_* in block/block-common.h): 101 to write, 102 to write the same
content, 103 to resize. A reader holds 100 alone, and 201 and so on for what it does not share."""
_END = (1 << 63) - 1
_TESTS = (
    (fcntl.F_WRLCK, _FIRST, _LAST, "QEMU's lock of a writer"),
    # It needs a descriptor for writing. libvirt and some other hypervisors take one.
    (fcntl.F_RDLCK, 0, -1, "an exclusive lock"),
)
_F_SETSIG = 10
_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "tmpfs"})
"""Where a lease is refused for a writer alone; on network file systems for other reasons too."""


def writers(files: Sequence[EvidenceFile]) -> list[Writer]:
    """Everybody but this process who can write to one of the files at this moment.

    Readers are never named. A mapping is only looked for where nobody was found with a descriptor,
    because that takes longest. Nothing is opened for writing and nothing is waited for.
    """
    verdicts = {target: _can_be_written(target) for target in map(Target.of, files)}
    suspects = [target for target, verdict in verdicts.items() if verdict != "no"]
    devices = device_writers(suspects)
    found_uses = open_for_writing(suspects)
    named = {use.target.file.path for use in found_uses} | {each.path for each in devices}
    unnamed = [target for target in suspects if target.file.path not in named]
    found_uses += mapped_for_writing(unnamed)
    named |= {use.target.file.path for use in found_uses}
    others = [use for use in found_uses if use.pid != os.getpid()]
    return [
        *(writer for target in verdicts for writer in _lockers(target, others)),
        *(
            Writer(use.target.file.path, use.how, use.pid, command_of(use.pid), use.detail)
            for use in others
        ),
        *devices,
        *(
            Writer(target.file.path, "descriptor", None, None, "who it is cannot be seen from here")
            for target in unnamed
            if verdicts[target] == "yes" and target.file.path not in named
        ),
    ]


def _can_be_written(target: Target) -> Literal["yes", "no", "unknown"]:
    """Whether the kernel counts a writer of the file: any descriptor, mapping or loop device.

    A read lease (fcntl(2)) is granted only where there is none, whoever it may be: that spares
    looking through all processes. It is given back at once; who opens the file for writing in
    these microseconds waits for them. Only the owner of a file gets one.
    """
    if target.is_block:
        return "unknown"
    try:
        # A lease belongs to the open file: never take one on what others share.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        flags |= fcntl.fcntl(target.file.fd, fcntl.F_GETFL) & os.O_NOATIME
        descriptor = os.open(f"/proc/self/fd/{target.file.fd}", flags)
    except OSError:
        return "unknown"
    try:
        # A lease that is broken sends a signal: one that does nothing, not SIGIO, which kills.
        fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return "yes" if _file_system(target.device) in _LOCAL else "unknown"
    except OSError:
        return "unknown"
    finally:
        os.close(descriptor)
    return "no"


def _file_system(device: int) -> str:
    """The type of the file system with this number, "" where it is not mounted here."""
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            fields, _, rest = line.partition(b" - ")
            if fields.split(b" ")[2:3] == [number]:
                return rest.split(b" ")[0].decode("ascii", "replace")
    return ""


def _lockers(target: Target, others: Sequence[Use]) -> Iterator[Writer]:
    for kind, first, last, detail in _TESTS:
        conflict = _conflict(target, kind, first, last)
        if conflict is None or conflict.pid == os.getpid():
            continue
        # A reader's lock on the whole file is none of QEMU's, which lie in one small range.
        if kind == fcntl.F_WRLCK and not 100 <= conflict.first <= conflict.last < 200:
            continue
        pids = [conflict.pid] if conflict.pid else _holders(target, kind, others)
        for pid in pids or [None]:
            command = None if pid is None else command_of(pid)
            yield Writer(target.file.path, "lock", pid, command, detail)
        return


@dataclass(frozen=True, slots=True)
class _Conflict:
    """The first lock in the way; `pid` is None for one that belongs to an open file (OFD)."""

    first: int
    last: int
    pid: int | None


def _conflict(target: Target, kind: int, first: int, last: int) -> _Conflict | None:
    """What would stop a lock of this kind on these bytes (`last` -1: to the end), None: nothing.

    Only asks (F_OFD_GETLK), which is allowed with a descriptor for reading whatever the kind.
    """
    length = 0 if last < 0 else last - first + 1
    question = _FLOCK.pack(kind, os.SEEK_SET, first, length, 0)
    try:
        answer = fcntl.fcntl(target.file.fd, fcntl.F_OFD_GETLK, question)
    except OSError:  # a file system without locks
        return None
    found, _, begin, length, pid = _FLOCK.unpack(answer)
    if found == fcntl.F_UNLCK:
        return None
    return _Conflict(begin, begin + length - 1 if length else _END, pid if pid > 0 else None)


def _holders(target: Target, kind: int, others: Sequence[Use]) -> list[int | None]:
    """Who of them has such a lock, by what /proc tells of their descriptors."""
    return [
        use.pid
        for use in others
        if use.target == target
        and any(
            lock.first <= _LAST and lock.last >= _FIRST
            if kind == fcntl.F_WRLCK
            else lock.is_exclusive
            for lock in use.locks
        )
    ]
