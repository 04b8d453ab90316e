"""References that an image makes to other files, and where they may lead.

A reference is hostile text. It is followed by hand, component by component, and only inside the
folder of the image that makes it and the folders that the user allowed: nothing outside of them is
opened, looked at or even asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.errors import Ambiguous, ImageError, PolicyViolation, Unreadable
from images.evidence import EvidenceFile, opened_descriptor, unreadable
from images.quoting import shown
from images.walk import Outside, Root, anchored, walk

MAX_NAME = 1023
"""QEMU's limit for a backing file's name (block/qcow2.c); VMware's paths are shorter."""
_MAX_SEARCHED = 50_000

_WINDOWS = re.compile(r"(?:[A-Za-z]:)?[\\/]|.*\\", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*:")


@dataclass(frozen=True, slots=True)
class Reach:
    """Where references may lead besides the folder of the image that makes them.

    What lies anywhere below `roots` is allowed. `is_searched` says whether a file that is not where
    a reference says is looked for in all of them.
    """

    roots: tuple[Root, ...] = ()
    is_searched: bool = True

    @classmethod
    def into(cls, folders: Sequence[Path]) -> Reach:
        """The folders that the user allows. Raises Unreadable where one is no folder."""
        roots = []
        for folder in folders:
            try:
                real = folder.resolve(strict=True)
            except (OSError, RuntimeError, ValueError) as error:
                raise unreadable(error, folder) from error
            if not real.is_dir():
                raise Unreadable("is not a folder", path=folder, hint="name a folder")
            roots.append(Root(folder.absolute(), real))
        return cls(tuple(roots))


@dataclass(frozen=True, slots=True)
class Found:
    """The file that a reference leads to. `moved` says that it was not where the name says."""

    file: EvidenceFile
    moved: bool


@contextlib.contextmanager
def opened_reference(
    owner: EvidenceFile, untrusted_name: bytes, role: str, reach: Reach
) -> Iterator[Found]:
    """The file that the image `owner` names as its `role` ("backing file", "extent" …).

    A name that is absolute on another machine is tried by its last parts, in the owner's folder
    and then in the allowed ones. Raises PolicyViolation for what leads elsewhere, Unreadable for
    what is missing.
    """
    search = _Search(owner, untrusted_name, role, reach)
    descriptor, resolved, moved = search.run()
    try:
        path = _as_named(owner, resolved, reach)
        file = opened_descriptor(descriptor, path, resolved, owner)
    finally:
        os.close(descriptor)
    try:
        yield Found(file, moved)
    finally:
        os.close(file.fd)


def _as_named(owner: EvidenceFile, resolved: Path, reach: Reach) -> Path:
    """Shown beside its owner as the user named that, not by where it is."""
    for root in reach.roots:
        if root.is_top and resolved.is_relative_to(root.real):
            return root.given / resolved.relative_to(root.real)
    beside = owner.path.parent
    same = resolved.parent == owner.resolved.parent and beside.resolve() == resolved.parent
    return beside / resolved.name if same else resolved


class _Search:
    """One reference being looked for."""

    def __init__(self, owner: EvidenceFile, name: bytes, role: str, reach: Reach) -> None:
        self._owner = owner
        self._role = role
        self._reach = reach
        self._name = name
        # A device's folder is /dev: what lies beside it there belongs to the host.
        home = Root(owner.path.parent.absolute(), owner.resolved.parent)
        self._home = () if owner.is_device else (home,)
        self._roots = (*self._home, *reach.roots)

    def run(self) -> tuple[int, Path, bool]:
        """An O_PATH descriptor, where it really is, and whether it was found elsewhere."""
        text = self._checked()
        exact, parts = self._spelled(text)
        outside, folder = not exact, False
        for moved, candidates in ((False, exact), (True, self._tails(parts))):
            for root, names in candidates:
                try:
                    return (*self._walked(root, names), moved)
                except Outside:
                    outside = True
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except IsADirectoryError:
                    folder = True
                except OSError as error:
                    raise unreadable(error, root.real.joinpath(*names), self._owner) from error
        if (somewhere := self._anywhere(parts)) is not None:
            return (*somewhere, True)
        if folder:
            raise self._refused("which is a folder")
        raise self._lost(outside=outside)

    def _checked(self) -> str:
        name = self._name
        if not name or len(name) > MAX_NAME or b"\0" in name:
            what = "is empty" if not name else "is too long or holds a NUL"
            raise self._refused(f"whose name {what}")
        text = os.fsdecode(name)
        if _PROTOCOL.match(text) and not _DRIVE.match(text):
            raise self._refused("which is not the name of a file, but of a protocol or a device")
        return text

    def _spelled(self, text: str) -> tuple[list[tuple[Root, list[str]]], list[str]]:
        """The places that the name says, and its components."""
        if text.startswith("/"):
            parts = text.split("/")
            with contextlib.suppress(Outside):
                return [anchored(parts, self._roots)], parts
            return [], parts
        exact = [(home, text.split("/")) for home in self._home]
        if not _WINDOWS.match(text):
            return exact, text.split("/")
        parts = re.split(r"[\\/]", text)
        if not _DRIVE.match(text) and not text.startswith("\\"):
            exact += [(home, parts) for home in self._home]
        return exact, parts

    def _tails(self, parts: list[str]) -> Iterator[tuple[Root, list[str]]]:
        """The last part beside the owner, then ever fewer last parts in the allowed folders."""
        tail: deque[str] = deque()
        for part in reversed(parts):
            if part == ".." or ":" in part:
                break
            if part not in ("", "."):
                tail.appendleft(part)
        names = list(tail)
        if names:
            yield from ((home, names[-1:]) for home in self._home)
        for root in self._reach.roots:
            for start in range(len(names)):
                yield root, names[start:]

    def _walked(self, root: Root, names: Sequence[str]) -> tuple[int, Path]:
        descriptor, resolved = walk(root, names, self._roots)
        beside = any(resolved.parent == home.real for home in self._home)
        below = any(resolved.is_relative_to(root.real) for root in self._reach.roots)
        if not beside and not below:
            os.close(descriptor)
            raise Outside
        return descriptor, resolved

    def _anywhere(self, parts: list[str]) -> tuple[int, Path] | None:
        """The only file of that name anywhere below the allowed folders."""
        name = parts[-1]
        if name in ("", ".", "..") or not self._reach.is_searched:
            return None
        found = {path for root in self._reach.roots for path in _named(root.real, name)}
        if len(found) > 1:
            places = ", ".join(shown(str(path)) for path in sorted(found)[:5])
            raise Ambiguous(
                f'names the {self._role} "{shown(self._name)}", which could be any of: {places}',
                path=self._owner.path,
                hint="give the folder of the right one alone with --allow-dir",
            )
        for path in found:
            root, names = anchored(path.parts[1:], self._roots)
            return self._walked(root, names)
        return None

    def _refused(self, why: str) -> PolicyViolation:
        return PolicyViolation(
            f'names the {self._role} "{shown(self._name[:300])}", {why}',
            path=self._owner.path,
            hint="correct the reference in a copy of the image",
        )

    def _lost(self, *, outside: bool) -> ImageError:
        text = shown(self._name[:300])
        folder = shown(str(self._owner.path.parent))
        hint = (
            (f"put it into {folder}, or " if self._home else "")
            + "name the folder in which it lies with --allow-dir; "
            "do that only if the file belongs to the evidence"
        )
        if outside:
            return PolicyViolation(
                f'names the {self._role} "{text}", which lies outside of the folders that it may '
                "use, and no file of that name lies inside",
                path=self._owner.path,
                hint=hint,
            )
        return Unreadable(
            f"does not exist in {folder} (named as the {self._role} of "
            f"{shown(str(self._owner.path))})",
            path=self._owner.path.parent / os.fsdecode(self._name),
            hint=hint,
        )


def _named(root: Path, name: str) -> Iterator[Path]:
    """Regular files called `name` below `root`, among its first 50,000 entries."""
    seen = 0
    for folder, _, files in os.walk(root):
        seen += 1 + len(files)
        if seen > _MAX_SEARCHED:
            return
        if name in files and _is_regular(path := Path(folder) / name):
            yield path


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:  # removed meanwhile
        return False
