"""Which processes have a file open or mapped for writing, from /proc (proc(5)).

Only what this account may look at: without root, its own processes. A process that ends meanwhile
has no files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from images.writer import Target

_FLAGS = re.compile(rb"^flags:\s*([0-7]+)", re.MULTILINE)
_INODE = re.compile(rb"^ino:\s*([0-9]+)", re.MULTILINE)
_LOCK = re.compile(
    rb"^lock:\s.*(?:POSIX|OFDLCK)\s+\S+\s+(READ|WRITE)\s.*\s([0-9]+) ([0-9]+|EOF)$", re.MULTILINE
)
_NO_FILE = ("socket:", "pipe:", "anon_inode:", "/dev/null", "/dev/pts/", "/memfd:")
"""What most descriptors lead to; they are told apart by their names, which costs the least."""
_END = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock on the bytes `first` to `last` of a file."""

    first: int
    last: int
    is_exclusive: bool


@dataclass(frozen=True, slots=True)
class Use:
    """A process that can write to a target; `locks` are those of its descriptor."""

    target: Target
    pid: int
    how: Literal["descriptor", "mapping"]
    detail: str
    locks: tuple[Lock, ...] = ()


def open_for_writing(targets: Sequence[Target]) -> list[Use]:
    """Every process, this one too, with a descriptor that can write to one of the targets.

    Of several descriptors of one process the first, with the locks of all.
    """
    found: dict[tuple[Target, int], Use] = {}
    for pid in _processes() if targets else ():
        for use in _descriptors(pid, targets):
            first = found.setdefault((use.target, pid), use)
            if first is not use:
                found[use.target, pid] = replace(first, locks=first.locks + use.locks)
    return list(found.values())


def mapped_for_writing(targets: Sequence[Target]) -> list[Use]:
    """Every process, this one too, that shares a writable mapping of one of the targets.

    Such a mapping stays after its descriptor has been closed. To look for it takes longest.
    """
    needles = {b" %d " % target.inode: target for target in targets if not target.is_block}
    found: dict[tuple[Target, int], Use] = {}
    for pid in _processes() if needles else ():
        for use in _mappings(pid, needles):
            found.setdefault((use.target, pid), use)
    return list(found.values())


def _processes() -> list[int]:
    # Here and below plain names and numbers: pathlib would take three times as long.
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _descriptors(pid: int, targets: Sequence[Target]) -> Iterator[Use]:
    try:
        folder = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # ended, or not for this account to see
        return
    try:
        for number in os.listdir(folder):  # noqa: PTH208 -- of a descriptor
            try:
                # The file itself is only asked once it is likely: a dead server never answers.
                if (
                    not os.readlink(number, dir_fd=folder).startswith(_NO_FILE)
                    and os.lstat(number, dir_fd=folder).st_mode & 0o200
                ):
                    yield from _described(pid, number, targets)
            except OSError:
                continue
    except OSError:
        return
    finally:
        os.close(folder)


def _described(pid: int, number: str, targets: Sequence[Target]) -> Iterator[Use]:
    info = _content(f"/proc/{pid}/fdinfo/{number}")
    flags, inode = _FLAGS.search(info), _INODE.search(info)
    if not flags or int(flags[1], 8) & os.O_ACCMODE == os.O_RDONLY:
        return
    for target in targets:
        # Linux before 5.14 does not tell the inode.
        is_likely = target.is_block or not inode or int(inode[1]) == target.inode
        if is_likely and target.is_at(f"/proc/{pid}/fd/{number}"):
            yield Use(target, pid, "descriptor", f"descriptor {number}", _locks(info))


def _content(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        blocks = []
        while block := os.read(file, 64 << 10):
            blocks.append(block)
        return b"".join(blocks)
    finally:
        os.close(file)


def _locks(info: bytes) -> tuple[Lock, ...]:
    return tuple(
        Lock(int(first), _END if last == b"EOF" else int(last), kind == b"WRITE")
        for kind, first, last in _LOCK.findall(info)
    )


def _mappings(pid: int, needles: dict[bytes, Target]) -> Iterator[Use]:
    try:
        maps = _content(f"/proc/{pid}/maps")
    except OSError:  # ended, or not for this account to see
        return
    for needle, target in needles.items():
        if needle in maps:
            for line in maps.splitlines():
                if needle in line and _is_writable_map(pid, line, target):
                    address = line.split(b" ", 1)[0].decode("ascii", "replace")
                    yield Use(target, pid, "mapping", f"at {address}")


def _is_writable_map(pid: int, line: bytes, target: Target) -> bool:
    fields = line.split(None, 5)
    if len(fields) < 5 or fields[1][1:2] != b"w" or fields[1][3:4] != b"s":
        return False
    if fields[4] != b"%d" % target.inode:
        return False
    if fields[3] == b"%02x:%02x" % (os.major(target.device), os.minor(target.device)):
        return True
    # btrfs shows another device here than stat(2) does; the link is only for root.
    return target.is_at(f"/proc/{pid}/map_files/{fields[0].decode('ascii', 'replace')}")
