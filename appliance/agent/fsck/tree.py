"""The files of a mounted file system, to be compared before and after a repair.

Bounded in entries, depth, bytes and time; no link is followed, and nothing but a regular file is
opened.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from appliance.repair import Change

MAX_ENTRIES = 20_000
MAX_DEPTH = 64
MAX_HASHED = 256 << 20
"""Bytes of contents that are hashed, in all."""

_BLOCK = 1 << 20
_NAMES = ("type", "mode", "owner", "size", "mtime", "target")


@dataclass(frozen=True, slots=True)
class Entry:
    """What lstat(2) says of a path, the target of a link, and the SHA-256 of a file's content (None
    where it was not read)."""

    facts: tuple[int | bytes, ...]
    digest: bytes | None
    is_file: bool


@dataclass(slots=True)
class Tree:
    """Entries by their path below the root; `unread` are paths that are there and could not be
    read (a folder: what is in it), and `is_cut` is whether a bound was hit."""

    entries: dict[bytes, Entry] = field(default_factory=dict)
    unread: set[bytes] = field(default_factory=set)
    is_cut: bool = False
    hashed: int = 0

    def knows(self, path: bytes) -> bool:
        """Whether it can be told that there was no such path."""
        parts = path.split(b"/")
        above = (b"/".join(parts[:length]) for length in range(1, len(parts) + 1))
        return not self.is_cut and self.unread.isdisjoint(above)


def walk(root: Path, seconds: float) -> Tree:
    """Read all below a mount point, folders in the order of their names."""
    tree = Tree()
    deadline = time.monotonic() + seconds
    waiting: list[tuple[bytes, int]] = [(b"", 0)]
    base = os.fsencode(root)
    while waiting:
        folder, depth = waiting.pop()
        try:
            with os.scandir(base + folder) as listed:
                names = sorted(entry.name for entry in listed)
        except OSError:
            tree.unread.add(folder)
            continue
        for name in names:
            if len(tree.entries) >= MAX_ENTRIES or time.monotonic() > deadline:
                tree.is_cut = True
                return tree
            path = folder + b"/" + name
            if _add(tree, base, path) and depth < MAX_DEPTH:
                waiting.append((path, depth + 1))
            elif depth >= MAX_DEPTH:
                tree.is_cut = True
    return tree


def _add(tree: Tree, base: bytes, path: bytes) -> bool:
    """Read one entry; whether it is a folder."""
    target: bytes = b""
    digest = None
    try:
        found = os.lstat(base + path)
        is_file = stat.S_ISREG(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            target = os.fsencode(Path(os.fsdecode(base + path)).readlink())
        elif is_file:
            digest = _digest(tree, base + path, found.st_size)
    except OSError:
        tree.unread.add(path)
        return False
    is_folder = stat.S_ISDIR(found.st_mode)
    # A folder's size says how it is stored, not what is in it.
    size = 0 if is_folder else found.st_size
    owner = (found.st_uid << 32) | found.st_gid
    mode = stat.S_IMODE(found.st_mode)
    facts = (stat.S_IFMT(found.st_mode), mode, owner, size, found.st_mtime_ns, target)
    tree.entries[path] = Entry(facts, digest, is_file)
    return is_folder


def _digest(tree: Tree, path: bytes, size: int) -> bytes | None:
    if tree.hashed + size > MAX_HASHED:
        return None
    tree.hashed += size
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while block := os.read(descriptor, _BLOCK):
            digest.update(block)
    finally:
        os.close(descriptor)
    return digest.digest()


def differences(before: Tree, after: Tree) -> Iterator[tuple[bytes, Change, list[str]]]:
    """(path, change, what of it changed), by path.

    What is only in one of them counts as added or removed just where the other one can tell that it
    is not there.
    """
    for path in sorted(before.entries.keys() | after.entries.keys() | before.unread - {b""}):
        old, new = before.entries.get(path), after.entries.get(path)
        if old and new:
            what = [
                name
                for name, first, second in zip(_NAMES, old.facts, new.facts, strict=True)
                if first != second
            ]
            if old.digest and new.digest and old.digest != new.digest:
                what.append("content")
            if what:
                yield path, Change.CHANGED, what
        elif new and path in before.unread:
            yield path, Change.CHANGED, ["readable"]
        elif new and before.knows(path):
            yield path, Change.ADDED, []
        elif not new and after.knows(path):
            yield path, Change.REMOVED, []


def is_compared(before: Tree, after: Tree) -> bool:
    """Whether every path and every content of both was compared."""
    return (
        not before.is_cut
        and not after.is_cut
        and not before.unread
        and not after.unread
        and all(
            each.digest is not None
            for tree in (before, after)
            for each in tree.entries.values()
            if each.is_file
        )
    )
