"""Follows a path below given folders by hand, so that nothing outside of them is ever looked at.

openat2(2) with RESOLVE_BENEATH does nearly that, but refuses every absolute link, also one that
leads back inside, and knows only one folder.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

_MAX_LINKS = 40
_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Outside(Exception):
    """The path leaves every folder that it may enter."""


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that paths may lead into: as the user named it, and where it really is.

    `is_top` says that it is the root of a file system of its own, whose parent is itself.
    """

    given: Path
    real: Path
    is_top: bool = False


def anchored(parts: Sequence[str], roots: Sequence[Root]) -> tuple[Root, list[str]]:
    """The components of an absolute path as a root and what lies below it. Raises Outside."""
    named = [part for part in parts if _is_name(part)]
    for root in roots:
        for folder in (root.real, root.given):
            above = list(folder.parts[1:])
            if named[: len(above)] == above and len(named) > len(above):
                return root, named[len(above) :]
    raise Outside


def walk(root: Root, parts: Sequence[str], roots: Sequence[Root]) -> tuple[int, Path]:
    """Return an O_PATH descriptor of the file, which the caller closes, and where it really is.

    Links are followed, also from one root into another. Raises Outside, and OSError for what is
    missing or is no file.
    """
    with ExitStack() as stack:
        return _Walk(roots, stack).run(root, parts)


class _Walk:
    def __init__(self, roots: Sequence[Root], stack: ExitStack) -> None:
        self._roots = roots
        self._stack = stack
        self._links = 0

    def run(self, root: Root, parts: Sequence[str]) -> tuple[int, Path]:
        self._start(root, parts)
        while self._pending:
            part = self._pending.popleft()
            if part == "..":
                self._up()
            elif _is_name(part) and (found := self._down(part)) is not None:
                return found, self._root.real.joinpath(*self._names, part)
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))

    def _start(self, root: Root, parts: Sequence[str]) -> None:
        self._root = root
        self._pending = deque(parts)
        self._names: list[str] = []
        top = os.open(root.real, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stack.callback(os.close, top)
        self._folders = [top]

    def _up(self) -> None:
        if self._names:
            self._names.pop()
            self._folders.pop()
        elif not self._root.is_top:
            above = self._root.real.parent.parts[1:]
            self._start(*anchored([*above, *self._pending], self._roots))

    def _down(self, part: str) -> int | None:
        """Enter a folder or a link; return the descriptor of what ends the path."""
        here = os.open(part, _FLAGS, dir_fd=self._folders[-1])
        mode = os.fstat(here).st_mode
        if not stat.S_ISLNK(mode) and not any(map(_is_name, self._pending)):
            return here
        self._stack.callback(os.close, here)
        if stat.S_ISLNK(mode):
            self._follow(os.readlink("", dir_fd=here))
        else:
            self._names.append(part)
            self._folders.append(here)
        return None

    def _follow(self, target: str) -> None:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        self._pending.extendleft(reversed(target.split("/")))
        if target.startswith("/"):
            self._start(*anchored(self._pending, self._roots))


def _is_name(part: str) -> bool:
    return part not in ("", ".")
