"""Looks for disk images in a mounted file system: by what is in the files, not by their names.

Of each file the first and last bytes are read, and where they look like a raw disk, what libblkid
wants to see. Folders are entered by descriptor, so that no link is ever followed and nothing but
this file system is seen.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from appliance.agent.blkid import BlkidError, Signature, find_partitions, find_signature
from images.detect import HEAD, Format, detect, is_text_descriptor, may_begin_image
from images.errors import Ambiguous, ImageError
from images.raw import SECTOR
from images.stated_size import stated_size

_SMALLEST = 128
"""Bytes; the shortest image is a VMDK's descriptor."""
_SMALLEST_RAW = 256 << 10
"""Bytes of the smallest raw disk that is listed; a floppy disk has more."""
_SMALLEST_WITH_END = 64 << 10
"""Bytes; below, only whole sectors (and 511 bytes of one) can be a VHD. A DMG is larger."""
_MAX_READ = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME
_NOT_LISTED = frozenset({Format.GZIP, Format.XZ})
"""Anything may be in them."""
_DISKS = {"filesystem", "raid", "crypto"}
"""libblkid's USAGE of what makes a file a disk."""
AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one search. `seconds` is its time, the others count entries, levels and images."""

    folder_entries: int = 20_000
    entries: int = 200_000
    depth: int = 64
    images: int = 1000
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that is an image. `path` begins with a slash; sizes in bytes."""

    path: bytes
    format: str
    content: str | None
    virtual_size: int | None
    file_size: int
    allocated_size: int


class _Over(Exception):
    """A bound of the whole search was reached."""


class Search:
    """One search. `left_out` says what was not looked at and why, each reason with one example."""

    def __init__(self, root: Path, bounds: Bounds | None = None) -> None:
        self._root = root
        self._bounds = bounds or Bounds()
        self._entries = 0
        self._found = 0
        self._deadline = time.monotonic() + self._bounds.seconds
        self.left_out: dict[str, bytes] = {}

    def run(self) -> Iterator[Candidate]:
        """Every image, folder by folder in the order of the names. Raises nothing."""
        with ExitStack() as stack:
            try:
                top = os.open(self._root, _FOLDER)
                stack.callback(os.close, top)
                yield from self._folder(top, b"/", 1)
            except OSError as error:
                self._leave_out(f"could not be read ({error.strerror})", b"/")
            except _Over:
                return

    def _leave_out(self, reason: str, path: bytes) -> None:
        self.left_out.setdefault(reason, path)

    def _folder(self, folder: int, path: bytes, depth: int) -> Iterator[Candidate]:
        names, folders = self._entries_of(folder, path)
        for name in names:
            if (found := self._file(folder, name, path + os.fsencode(name))) is not None:
                yield found
                self._count_image(found.path)
        for name in folders:
            inside = path + os.fsencode(name)
            if depth >= self._bounds.depth:
                self._leave_out(f"lies more than {self._bounds.depth} folders deep", inside)
                continue
            try:
                child = os.open(name, _FOLDER, dir_fd=folder)
            except OSError as error:
                self._leave_out(f"could not be read ({error.strerror})", inside)
                continue
            try:
                yield from self._folder(child, inside + b"/", depth + 1)
            finally:
                os.close(child)

    def _entries_of(self, folder: int, path: bytes) -> tuple[list[str], list[str]]:
        """Names of regular files and of folders."""
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for number, entry in enumerate(entries):
                    if number >= self._bounds.folder_entries:
                        reason = f"a folder has more than {self._bounds.folder_entries} entries"
                        self._leave_out(reason, path)
                        break
                    self._count_entry(path)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        files.append(entry.name)
        except OSError as error:
            self._leave_out(f"could not be read ({error.strerror})", path)
        return sorted(files), sorted(folders)

    def _count_entry(self, path: bytes) -> None:
        self._entries += 1
        if self._entries > self._bounds.entries:
            self._stop(f"there are more than {self._bounds.entries} entries", path)

    def _count_image(self, path: bytes) -> None:
        self._found += 1
        if self._found >= self._bounds.images:
            self._stop(f"there are {self._bounds.images} images or more", path)

    def _stop(self, reason: str, path: bytes) -> None:
        self._leave_out(f"{reason}; the search ended here", path)
        raise _Over

    def _file(self, folder: int, name: str, path: bytes) -> Candidate | None:
        if time.monotonic() > self._deadline:
            self._stop(f"it took longer than {self._bounds.seconds:g} seconds", path)
        try:
            fd = os.open(name, _FILE, dir_fd=folder)
            try:
                status = os.fstat(fd)
                is_large_enough = stat.S_ISREG(status.st_mode) and status.st_size >= _SMALLEST
                return _looked_at(fd, status, path) if is_large_enough else None
            finally:
                os.close(fd)
        except OSError as error:
            self._leave_out(f"could not be read ({error.strerror})", path)
            return None


@dataclass(frozen=True, slots=True)
class _Open:
    """A file as the parsers of formats want it."""

    path: Path
    fd: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Less than asked for, where that is too much for a look."""
        return os.pread(self.fd, min(length, _MAX_READ), offset)


def _looked_at(fd: int, status: os.stat_result, path: bytes) -> Candidate | None:
    """What the open file is, None where it is no image. Raises OSError."""
    size = status.st_size
    # Most files are neither: this is what a search of a whole system costs.
    if not _may_have_end(size) and not may_begin_image(os.pread(fd, HEAD, 0)):
        return None
    file = _Open(Path(os.fsdecode(path)), fd, size)
    virtual_size: int | None = None
    content = None
    try:
        form = detect(file)
        name = form.value
        if form is Format.RAW:
            virtual_size, content = size, _content_of(fd, size)
        else:
            virtual_size = stated_size(form, file)
    except Ambiguous:
        form, name = None, AMBIGUOUS
    except ImageError:
        return None
    if (
        form in _NOT_LISTED
        or (form is Format.RAW and content is None)
        or (form is Format.VMDK and virtual_size is None and not _is_named_vmdk(file))
    ):
        return None
    return Candidate(path, name, content, virtual_size, size, status.st_blocks * 512)


def _may_have_end(size: int) -> bool:
    """Whether the file is large enough for what is known by its end, or can be a raw disk."""
    return size >= _SMALLEST_WITH_END or size % SECTOR in {0, SECTOR - 1}


def _is_named_vmdk(file: _Open) -> bool:
    """Any list of settings may begin with comments and `version=1`."""
    head = file.read(0, HEAD)
    named = head[:64].lstrip().lower().startswith(b"# disk descriptorfile")
    return named or not is_text_descriptor(head)


def _content_of(fd: int, size: int) -> str | None:
    """What libblkid calls a raw disk's content, None where that is nothing that a disk has."""
    if size % SECTOR or size < _SMALLEST_RAW:
        return None
    try:
        found = find_signature(fd, 0, size)
        first = found[0] if isinstance(found, list) else found
        if isinstance(first, Signature) and first.text("USAGE") in _DISKS:
            return first.text("TYPE")
        table = find_partitions(fd, size, SECTOR)
    except BlkidError:
        return None
    return table.type if table and table.entries else None
