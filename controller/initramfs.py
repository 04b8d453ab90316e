"""Writes the part of the initramfs that carries the agent's code into the guest.

It is appended to the recipe's base.cpio (the kernel takes several archives in a row), so that a
change of the agent costs a new saved state and not a new root file system.
"""

from __future__ import annotations

from pathlib import Path

# newc: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
_DIRECTORY = 0o040755
_FILE = 0o100644
_PROGRAM = 0o100755


def pack(files: dict[str, bytes], programs: frozenset[str] = frozenset()) -> bytes:
    """Return a newc archive of `files` (path -> content), all owned by root, without times.

    `programs` are the paths that get the executable bit. Parent folders are added.
    """
    folders = sorted({str(parent) for path in files for parent in Path(path).parents} - {"."})
    members = [_member(index, path, _DIRECTORY, b"") for index, path in enumerate(folders, 1)]
    for index, path in enumerate(sorted(files), len(folders) + 1):
        mode = _PROGRAM if path in programs else _FILE
        members.append(_member(index, path, mode, files[path]))
    return b"".join(members) + _member(0, "TRAILER!!!", 0, b"")


def _member(inode: int, path: str, mode: int, content: bytes) -> bytes:
    name = path.encode() + b"\0"
    fields = [inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
