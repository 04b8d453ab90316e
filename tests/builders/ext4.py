"""ext4 file systems with chosen owners, modes and times, byte for byte reproducible.

The files are written by debugfs one after the other, so neither the builder's own user nor the
order of a directory on the host shows in the result.
"""

import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.builders.command import ToolError, execute, run
from tests.builders.sparse import make_sparse

EPOCH = 1_711_972_800
"""2024-04-01 12:00 UTC, the time of everything that has no other."""

HASH_SEED = "5c1f0a52-2d2e-4c55-9a6d-0f0e0d0c0b0a"


@dataclass(frozen=True)
class Entry:
    """A file (`content`), a symbolic link (`target`) or a directory (neither)."""

    path: str
    content: bytes | None = None
    target: str | None = None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = EPOCH


def make_ext4(
    path: Path,
    size: int,
    label: str | bytes,
    uuid: str,
    entries: Sequence[Entry] = (),
    options: Sequence[str] = (),
) -> Path:
    """Make an ext4 file system of `size` bytes; directories must come before what is in them."""
    make_sparse(path, size)
    env = {"E2FSPROGS_FAKE_TIME": str(EPOCH), "SOURCE_DATE_EPOCH": str(EPOCH)}
    layout = ("-b", "1024", "-E", f"hash_seed={HASH_SEED},root_owner=0:0", *options)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-U", uuid, *layout, path, env=env)
    if entries:
        write_entries(path, entries, env)
    return path


def write_entries(image: Path, entries: Sequence[Entry], env: dict[str, str]) -> None:
    """Let debugfs create the entries; it reports errors only as text."""
    with tempfile.TemporaryDirectory(prefix="ext4-") as folder:
        lines = []
        for number, entry in enumerate(entries):
            content = Path(folder, str(number))
            if entry.content is not None:
                content.write_bytes(entry.content)
            lines += entry_commands(entry, content)
        script = "\n".join([*lines, ""]).encode()
        result = execute("debugfs", "-w", "-f", "-", image, stdin=script, env=env)
    errors = [line for line in result.stderr.splitlines() if not line.startswith(b"debugfs 1.")]
    if errors or result.returncode != 0:
        raise ToolError(f"debugfs: {errors}")


def entry_commands(entry: Entry, content: Path) -> list[str]:
    """debugfs commands that make one entry and set its inode."""
    name = f'"/{entry.path.strip("/")}"'
    if entry.target is not None:
        create, kind = f'symlink {name} "{entry.target}"', stat.S_IFLNK
    elif entry.content is not None:
        create, kind = f"write {content} {name}", stat.S_IFREG
    else:
        create, kind = f"mkdir {name}", stat.S_IFDIR
    mode = 0o777 if entry.target is not None else entry.mode
    fields = {"mode": f"0{kind | mode:o}", "uid": entry.uid, "gid": entry.gid}
    times = dict.fromkeys(("mtime", "ctime", "atime", "crtime"), f"@{entry.mtime}")
    values = {**fields, **times}
    return [create, *(f"set_inode_field {name} {key} {value}" for key, value in values.items())]
