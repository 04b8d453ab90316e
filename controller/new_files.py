"""Files that get their name only when they are whole: until then they have none at all.

O_TMPFILE and linkat(2): whatever kills the program, nothing is left, and nothing is overwritten.
Where a file system cannot do that, the file is called NAME.partial until it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.errors import EnvironmentFailed, UsageError
from images.quoting import shown

_FLAGS = os.O_RDWR | os.O_CLOEXEC
_OWNER_ONLY = 0o600
_NOT_THERE = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}


@dataclass(slots=True)
class NewFile:
    """An open file. `descriptor` is for reading and writing, `readable` for reading."""

    descriptor: int
    readable: int
    partial: Path | None = None

    def keep(self, path: Path) -> None:
        """Write it out and give it its name. Raises EnvironmentFailed where that is taken."""
        source = self.partial or Path(f"/proc/self/fd/{self.descriptor}")
        try:
            os.fsync(self.descriptor)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # With a folder given, Python uses linkat(2), which alone follows that link.
                os.link(source, path, src_dir_fd=folder, follow_symlinks=True)
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise EnvironmentFailed(
                f"{shown(str(path))} could not be made: {error.strerror}",
                hint="nothing was overwritten; name another file",
            ) from error


@contextlib.contextmanager
def new_file(folder: Path, name: str = "") -> Iterator[NewFile]:
    """An empty file in `folder`, which is gone when the context ends unless it was kept.

    `name` is what it will be called, "" for one that never is. Raises EnvironmentFailed.
    """
    with contextlib.ExitStack() as stack:
        partial = None
        try:
            descriptor = _unnamed(folder)
            if descriptor is None:
                partial = folder.absolute() / f"{name or f'.{os.urandom(8).hex()}'}.partial"
                descriptor = os.open(partial, _FLAGS | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
                stack.callback(partial.unlink, missing_ok=True)
            stack.callback(os.close, descriptor)
            readable = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, readable)
        except OSError as error:
            raise EnvironmentFailed(
                f"no file can be made in {shown(str(folder))}: {error.strerror}",
                hint="check that the folder exists and that you may write to it",
            ) from error
        yield NewFile(descriptor, readable, partial)


def _unnamed(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_TMPFILE | _FLAGS, _OWNER_ONLY)
    except OSError as error:
        if error.errno in _NOT_THERE and folder.is_dir():
            return None
        raise


def refuse_existing(option: str, path: Path) -> None:
    """Raise UsageError where something is there already, or the folder is not."""
    if os.path.lexists(path):
        raise UsageError(
            f"{option}: {shown(str(path))} exists already",
            hint="name a file that does not exist yet; nothing is overwritten",
        )
    if not path.parent.is_dir():
        raise UsageError(f"{option}: there is no folder {shown(str(path.parent))}")
