"""One evidence file: opened once, read only, and watched for changes."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from images.errors import ImageError, MalformedImage, PolicyViolation, Unreadable, Unsupported
from images.quoting import shown

MAX_READ = 8 << 20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Source(Protocol):
    """What a header parser needs of a file."""

    @property
    def path(self) -> Path: ...

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


def read_exactly(source: Source, offset: int, length: int, what: str) -> bytes:
    """The whole range, or MalformedImage that says how much of `what` is missing."""
    if offset + length > source.size:
        raise truncated(source, offset + length, what)
    data = source.read(offset, length)
    if len(data) != length:
        raise truncated(source, offset + length, what)
    return data


def truncated(source: Source, needed: int, what: str) -> MalformedImage:
    """The error for a file that ends before `what` does; `needed` is in bytes."""
    return MalformedImage(
        f"truncated: {what} needs at least {needed} bytes, the file has {source.size}",
        path=source.path,
        hint="compare its size and hash with the original; the copy may be incomplete",
    )


@dataclass(frozen=True, slots=True)
class Identity:
    """What must stay the same while we work: from fstat(2), times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )

    def differences(self, now: Identity) -> list[str]:
        """Each field that is no longer the same, in words."""
        fields = (
            ("device", self.device, now.device),
            ("inode", self.inode, now.inode),
            ("size in bytes", self.size, now.size),
            ("modification time (ns)", self.mtime_ns, now.mtime_ns),
            ("status change time (ns)", self.ctime_ns, now.ctime_ns),
        )
        return [f"{name} was {old}, is {new}" for name, old, new in fields if old != new]


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """An open regular file. `path` is as the user or the descriptor named it."""

    path: Path
    resolved: Path
    fd: int
    identity: Identity

    @property
    def size(self) -> int:
        """In bytes, as it was when the file was opened."""
        return self.identity.size

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes (and never more than MAX_READ); short only at the end."""
        if offset < 0 or not 0 <= length <= MAX_READ:
            raise MalformedImage(f"refused to read {length} bytes at {offset}", path=self.path)
        blocks = bytearray()
        try:
            while len(blocks) < length:
                block = os.pread(self.fd, length - len(blocks), offset + len(blocks))
                if not block:
                    break
                blocks += block
        except (OSError, OverflowError) as error:
            raise Unreadable(
                f"could not be read at offset {offset}: {error}",
                path=self.path,
                hint="check the disk it lies on for errors",
            ) from error
        return bytes(blocks)

    def changes(self) -> list[str]:
        """Each difference from when it was opened, in words; empty when nothing changed."""
        found = [
            f"open file: {line}"
            for line in self.identity.differences(Identity.of(os.fstat(self.fd)))
        ]
        try:
            now = Identity.of(self.resolved.stat(follow_symlinks=False))
            given = Identity.of(self.path.stat())
        except OSError as error:
            return [*found, f"path: no longer accessible ({error.strerror})"]
        found += [f"path: {line}" for line in self.identity.differences(now)]
        if (given.device, given.inode) != (now.device, now.inode):
            found.append("path: the name as given now leads to another file")
        return found


@contextlib.contextmanager
def opened(path: Path) -> Iterator[EvidenceFile]:
    """The file that the user named; a symbolic link here is the user's own and is followed."""
    path = Path(path)
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(error, path) from error
    file = _open(path, resolved, str(resolved), None)
    try:
        yield file
    finally:
        os.close(file.fd)


@contextlib.contextmanager
def opened_beside(owner: EvidenceFile, untrusted_name: bytes) -> Iterator[EvidenceFile]:
    """A companion that the image `owner` names: only a plain name in the same folder.

    Raises PolicyViolation for anything that leads elsewhere, links included.
    """
    name = _checked_name(owner, untrusted_name)
    folder = owner.resolved.parent
    try:
        directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(error, folder) from error
    try:
        # Shown as the user named the owner, not by where that is.
        beside = owner.path.parent
        shown_folder = beside if beside.resolve() == folder else folder
        file = _open(shown_folder / name, folder / name, name, directory, owner)
    finally:
        os.close(directory)
    try:
        yield file
    finally:
        os.close(file.fd)


def _checked_name(owner: EvidenceFile, untrusted_name: bytes) -> str:
    plain = untrusted_name not in (b"", b".", b"..") and len(untrusted_name) <= 255
    if not plain or any(byte in untrusted_name for byte in (b"/", b"\\", b":", b"\0")):
        raise PolicyViolation(
            f'names the companion file "{shown(untrusted_name[:300])}", which is not a plain name '
            "in the same folder",
            path=owner.path,
            hint="put all parts of the disk into one folder and correct the descriptor in a copy",
        )
    return os.fsdecode(untrusted_name)


def _open(
    path: Path,
    resolved: Path,
    name: str,
    directory: int | None,
    owner: EvidenceFile | None = None,
) -> EvidenceFile:
    try:
        # Looked at before it is opened: opening a device can already have effects.
        _require_regular(os.stat(name, dir_fd=directory, follow_symlinks=False), path, owner)
        fd = _open_untouched(name, directory)
    except (OSError, ValueError) as error:
        raise _unreadable(error, path, owner) from error
    try:
        status = os.fstat(fd)
        _require_regular(status, path, owner)
        _require_content(status, path)
    except BaseException:
        os.close(fd)
        raise
    return EvidenceFile(path, resolved, fd, Identity.of(status))


def _open_untouched(name: str, directory: int | None) -> int:
    try:
        # The access time is evidence too; only the owner may ask for this.
        return os.open(name, _FLAGS | os.O_NOATIME, dir_fd=directory)
    except PermissionError:
        return os.open(name, _FLAGS, dir_fd=directory)


def _require_regular(status: os.stat_result, path: Path, owner: EvidenceFile | None) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return
    if owner is not None:
        raise PolicyViolation(
            f"is {_kind(mode)}, but {shown(str(owner.path))} names it as a part of its disk; "
            "only regular files are accepted",
            path=path,
            hint="replace it by the real file, in a copy of the evidence",
        )
    if stat.S_ISBLK(mode):
        raise Unsupported(
            "is a block device; devices are not supported yet",
            path=path,
            hint="make an image of it first and name that",
        )
    raise Unreadable(f"is {_kind(mode)}, not a regular file", path=path, hint="name an image file")


def _require_content(status: os.stat_result, path: Path) -> None:
    if status.st_size == 0:
        raise Unreadable("is empty", path=path, hint="check that the copy is complete")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def _unreadable(error: Exception, path: Path, owner: EvidenceFile | None = None) -> ImageError:
    code = error.errno if isinstance(error, OSError) else None
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if code == errno.ENOENT:
        reason, hint = "does not exist", "check the name"
        if owner is not None:
            hint = "get the missing part; all parts must lie in one folder"
    elif code in (errno.EACCES, errno.EPERM):
        reason, hint = "may not be read by this user", "change its permissions or use sudo"
    elif code == errno.ELOOP:
        reason, hint = "is a symbolic link (or a loop of them)", "name the file itself"
    elif code in (errno.EMFILE, errno.ENFILE):
        reason, hint = "too many open files", "raise the limit with ulimit -n"
    else:
        hint = "check the path"
    needed = f" (it is named by {shown(str(owner.path))})" if owner is not None else ""
    return Unreadable(f"{shown(reason)}{needed}", path=path, hint=hint)
