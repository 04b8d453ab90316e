"""The files below a mounted root: paths are resolved by hand, so that nothing leads out of it.

A symbolic link of the evidence means what it meant to the system that it belongs to: an absolute
one starts at this root. path_resolution(7).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from appliance.agent.system.descriptor import (
    MAX_NAMES,
    File,
    Listing,
    Missing,
    Refused,
    RootError,
    Unreadable,
    facts_of,
    is_link,
    kind_of,
    link_target,
    names_in,
    open_path,
    reopened,
)

__all__ = [
    "File",
    "Listing",
    "Missing",
    "Refused",
    "Root",
    "RootError",
    "Unreadable",
    "opened_folder",
    "opened_root",
    "text_of",
]

_MAX_LINKS = 40
"""As the kernel's MAXSYMLINKS."""
_MAX_STEPS = 512


class Root:
    """A mounted folder as the root of a system; see `opened_root`.

    Paths are str from the root, with or without a leading slash. With `ignoring_case` a name that
    is not there is looked for among those that differ in nothing but case.
    """

    def __init__(self, fd: int, *, fold: bool = False) -> None:
        self._fd = fd
        self._fold = fold
        self._attached: dict[tuple[str, ...], int] = {}

    def ignoring_case(self) -> Root:
        """The same root for a system that does not distinguish case; lives as long as this one."""
        root = Root(self._fd, fold=True)
        root._attached = self._attached
        return root

    def attach(self, path: str, fd: int) -> None:
        """Put another file system's folder, open as `fd`, at `path`. It need not exist here."""
        with self._walk(path) as names:
            self._attached[self._key(names)] = fd

    @contextmanager
    def opened(self, path: str) -> Iterator[File]:
        """Open a regular file; links are followed inside the root. Raises RootError."""
        with self._found(path) as (fd, facts):
            if not stat.S_ISREG(facts.st_mode):
                raise Refused(f"it is {kind_of(facts)}, not a file")
            file = reopened(fd, os.O_RDONLY)
        try:
            yield File(file, facts.st_size, int(facts.st_mtime))
        finally:
            os.close(file)

    def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a file. Raises RootError."""
        with self.opened(path) as file:
            return file.read(limit)

    def listdir(self, path: str, limit: int = MAX_NAMES) -> Listing:
        """The names in a folder, at most `limit`. Raises RootError."""
        with self._found(path) as (fd, facts):
            if not stat.S_ISDIR(facts.st_mode):
                raise Missing("it is not a folder")
            return names_in(fd, limit)

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        """What stat(2) says of it, or lstat(2) without `follow`. Raises RootError."""
        with self._found(path, follow=follow) as (_fd, facts):
            return facts

    def readlink(self, path: str) -> str:
        """Where a symbolic link points to, not followed. Raises RootError, Missing for no link."""
        with self._found(path, follow=False) as (fd, facts):
            if not stat.S_ISLNK(facts.st_mode):
                raise Missing("it is not a link")
            return link_target(fd)

    def is_file(self, path: str) -> bool:
        """Whether a regular file is there and can be reached."""
        return self._is(path, stat.S_IFREG)

    def is_dir(self, path: str) -> bool:
        """Whether a folder is there and can be reached."""
        return self._is(path, stat.S_IFDIR)

    def exists(self, path: str) -> bool:
        """Whether anything at all has that name, also a link that leads nowhere.

        What a damaged folder would have to tell may be there; what no path leads to is not.
        """
        try:
            self.stat(path, follow=False)
        except Unreadable:
            return True
        except RootError:
            return False
        return True

    def _is(self, path: str, kind: int) -> bool:
        try:
            return stat.S_IFMT(self.stat(path).st_mode) == kind
        except RootError:
            return False

    @contextmanager
    def _found(self, path: str, *, follow: bool = True) -> Iterator[tuple[int, os.stat_result]]:
        """An O_PATH descriptor of what is at `path`."""
        with ExitStack() as stack:
            _names_here, fd, facts = self._resolve(path, stack, follow=follow)
            yield fd, facts

    @contextmanager
    def _walk(self, path: str) -> Iterator[list[str]]:
        """Where a path leads to, as names from the root; what does not exist is taken as it is."""
        with ExitStack() as stack:
            try:
                names, _fd, _facts = self._resolve(path, stack, follow=True)
            except RootError:
                names = [each for each in path.split("/") if each not in {"", ".", ".."}]
            yield names

    def _resolve(
        self, path: str, stack: ExitStack, *, follow: bool
    ) -> tuple[list[str], int, os.stat_result]:
        pending = path.split("/")[::-1]
        trail: list[tuple[str, int]] = []
        links = steps = 0
        while pending:
            name = pending.pop()
            if name in {"", "."}:
                continue
            if name == "..":
                del trail[-1:]
                continue
            if (steps := steps + 1) > _MAX_STEPS:
                raise Refused("the path is too long")
            above = trail[-1][1] if trail else self._fd
            name, fd = self._enter(above, name, [each for each, _ in trail], stack)
            is_last = not any(each not in {"", "."} for each in pending)
            if is_link(fd) and (follow or not is_last):
                if (links := links + 1) > _MAX_LINKS:
                    raise Refused("its symbolic links lead in a circle")
                target = link_target(fd)
                pending += target.split("/")[::-1]
                trail = [] if target.startswith("/") else trail
                continue
            trail.append((name, fd))
        fd = trail[-1][1] if trail else self._attached.get((), self._fd)
        return [name for name, _ in trail], fd, facts_of(fd)

    def _enter(self, above: int, name: str, trail: list[str], stack: ExitStack) -> tuple[str, int]:
        """The real name of what is called `name` in a folder, and a descriptor of it."""
        attached = self._attached.get(self._key([*trail, name]))
        if attached is not None:
            return name, attached
        try:
            fd = open_path(name, above)
        except Missing:
            if not self._fold or (other := self._other_case(above, name)) is None:
                raise
            name, fd = other, open_path(other, above)
        stack.callback(os.close, fd)
        return name, fd

    def _other_case(self, folder: int, name: str) -> str | None:
        if not stat.S_ISDIR(facts_of(folder).st_mode):
            return None
        wanted = name.casefold()
        names = names_in(folder, MAX_NAMES).names
        return next((each for each in names if each.casefold() == wanted), None)

    def _key(self, names: list[str]) -> tuple[str, ...]:
        return tuple(each.casefold() for each in names) if self._fold else tuple(names)


@contextmanager
def opened_root(folder: Path, path: str = "/") -> Iterator[Root]:
    """Open `path` in the mounted `folder` as a root. Raises RootError."""
    with opened_folder(folder, path) as fd:
        yield Root(fd)


@contextmanager
def opened_folder(folder: Path, path: str = "/") -> Iterator[int]:
    """An O_PATH descriptor of the folder `path` of a mounted file system. Raises RootError."""
    fd = open_path(str(folder), None)
    try:
        with Root(fd)._found(path) as (found, facts):
            if not stat.S_ISDIR(facts.st_mode):
                raise Missing("it is not a folder")
            inner = os.dup(found)
        try:
            yield inner
        finally:
            os.close(inner)
    finally:
        os.close(fd)


def text_of(untrusted: str | bytes) -> str:
    """A name or bytes as text that can be sent; what is not UTF-8 becomes U+FFFD."""
    if isinstance(untrusted, str):
        untrusted = untrusted.encode("utf-8", "surrogateescape")
    return untrusted.decode("utf-8", "replace")
