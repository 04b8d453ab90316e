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

from images.errors import ImageError, MalformedImage, PolicyViolation, Unreadable
from images.quoting import shown

MAX_READ = 8 << 20
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


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
    def of(cls, status: os.stat_result, size: int | None = None) -> Identity:
        """`size` is that of a block device, whose node's times say nothing about its content."""
        if stat.S_ISBLK(status.st_mode):
            return cls(status.st_rdev, status.st_ino, size or 0, 0, 0)
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
    """An open regular file or block device. `path` is as the user or the descriptor named it."""

    path: Path
    resolved: Path
    fd: int
    identity: Identity
    is_device: bool = False

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
            for line in self.identity.differences(Identity.of(os.fstat(self.fd), size_of(self.fd)))
        ]
        try:
            # A device's size is asked of the open one: by its name it would be opened again.
            now = Identity.of(self.resolved.stat(follow_symlinks=False), self.size)
            given = Identity.of(self.path.stat(), self.size)
        except OSError as error:
            return [*found, f"path: no longer accessible ({error.strerror})"]
        found += [f"path: {line}" for line in self.identity.differences(now)]
        if (given.device, given.inode) != (now.device, now.inode):
            found.append("path: the name as given now leads to another file")
        return found


def size_of(fd: int) -> int:
    """Bytes in a regular file or a block device."""
    status = os.fstat(fd)
    return os.lseek(fd, 0, os.SEEK_END) if stat.S_ISBLK(status.st_mode) else status.st_size


@contextlib.contextmanager
def opened(path: Path) -> Iterator[EvidenceFile]:
    """The file that the user named; a symbolic link here is the user's own and is followed."""
    path = Path(path)
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise unreadable(error, path) from error
    try:
        descriptor = os.open(resolved, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(error, path) from error
    try:
        file = opened_descriptor(descriptor, path, resolved)
    finally:
        os.close(descriptor)
    try:
        yield file
    finally:
        os.close(file.fd)


def opened_descriptor(
    descriptor: int, path: Path, resolved: Path, owner: EvidenceFile | None = None
) -> EvidenceFile:
    """The file behind an O_PATH descriptor, opened for reading; the caller closes its `fd`.

    There is no second look at its name: what was checked is what is opened.
    """
    try:
        # Looked at before it is opened: opening a device can already have effects.
        status = os.fstat(descriptor)
        _require_disk(status, path, owner)
        # For a device: refused while the kernel itself uses it, and kept from it meanwhile.
        exclusive = os.O_EXCL if stat.S_ISBLK(status.st_mode) else 0
        fd = _open_untouched(f"/proc/self/fd/{descriptor}", _FLAGS | exclusive)
    except OSError as error:
        raise unreadable(error, path, owner) from error
    try:
        identity = Identity.of(os.fstat(fd), size_of(fd))
        _require_content(identity, path)
    except BaseException:
        os.close(fd)
        raise
    return EvidenceFile(path, resolved, fd, identity, stat.S_ISBLK(status.st_mode))


def _open_untouched(name: str, flags: int) -> int:
    try:
        # The access time is evidence too; only the owner may ask for this.
        return os.open(name, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(name, flags)


def _require_disk(status: os.stat_result, path: Path, owner: EvidenceFile | None) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return
    if owner is not None:
        raise PolicyViolation(
            f"is {_kind(mode)}, but {shown(str(owner.path))} names it as a part of its disk; "
            "only regular files and block devices are accepted",
            path=path,
            hint="replace it by the real file, in a copy of the evidence",
        )
    raise Unreadable(
        f"is {_kind(mode)}, not a regular file or a block device",
        path=path,
        hint="name an image file",
    )


def _require_content(identity: Identity, path: Path) -> None:
    if identity.size == 0:
        raise Unreadable("is empty", path=path, hint="check that the copy is complete")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def unreadable(error: Exception, path: Path, owner: EvidenceFile | None = None) -> ImageError:
    """The error of the operating system for `path`, which `owner` names, in words of ours."""
    code = error.errno if isinstance(error, OSError) else None
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if code == errno.ENOENT:
        reason, hint = "does not exist", "check the name"
        if owner is not None:
            hint = "get the missing part"
    elif code in (errno.EACCES, errno.EPERM):
        reason, hint = "may not be read by this user", "change its permissions or use sudo"
    elif code == errno.ELOOP:
        reason, hint = "is a symbolic link (or a loop of them)", "name the file itself"
    elif code == errno.EBUSY:
        reason, hint = "is in use: mounted, or part of a volume of this host", "unmount it first"
    elif code in (errno.EMFILE, errno.ENFILE):
        reason, hint = "too many open files", "raise the limit with ulimit -n"
    else:
        hint = "check the path"
    needed = f" (it is named by {shown(str(owner.path))})" if owner is not None else ""
    return Unreadable(f"{shown(reason)}{needed}", path=path, hint=hint)
