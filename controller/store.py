"""Where the appliance is kept: its base (kernel, root file system) and the saved states of it.

    CACHE/forensic/base-KEY/    vmlinux base.cpio rootfs.erofs packages.txt manifest.json
    CACHE/forensic/state-KEY/   initramfs state capabilities/ manifest.json

KEY is a hash of everything that the folder was made from, so a changed recipe, agent, QEMU, or
setting leads to another folder, and a folder is never changed after it has its manifest.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from platformdirs import user_cache_path

from controller.cell import owner
from controller.errors import ApplianceInvalid, EnvironmentFailed

MANIFEST = "manifest.json"


class Manifest(msgspec.Struct, frozen=True):
    """What a folder holds: sha256 by file name, what it was made from, and how long that took."""

    hashes: dict[str, str]
    made_from: dict[str, str]
    tools: dict[str, str]
    timings: dict[str, float]


def key_of(made_from: dict[str, str]) -> str:
    """A short name for a set of ingredients."""
    return hashlib.sha256(msgspec.json.encode(sorted(made_from.items()))).hexdigest()[:16]


class Store:
    """The folder of one user's appliances."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or user_cache_path("forensic")

    def folder(self, kind: str, made_from: dict[str, str]) -> Path:
        """Where the thing of these ingredients is or will be."""
        return self.root / f"{kind}-{key_of(made_from)}"

    def folders(self, kind: str) -> list[Path]:
        """All finished folders of a kind."""
        return sorted(path.parent for path in self.root.glob(f"{kind}-*/{MANIFEST}"))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One build at a time; a second run waits here for the first one's result."""
        self._prepare()
        with (self.root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _prepare(self) -> None:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFailed(
                f"the folder {self.root} cannot be made: {error.strerror}",
                hint="set XDG_CACHE_HOME to a folder that you may write to",
            ) from error
        status = self.root.stat()
        if status.st_uid != os.geteuid():
            raise EnvironmentFailed(
                f"the folder {self.root} belongs to another account",
                hint="set XDG_CACHE_HOME to a folder of your own",
            )
        self.root.chmod(0o700)

    @contextmanager
    def building(self, target: Path) -> Iterator[Path]:
        """Yield an empty folder that becomes `target` if all goes well. Call it under `lock`."""
        for left in self.root.glob("building-*"):
            remove(left)  # of a run that was killed: nobody else builds while we hold the lock
        folder = Path(tempfile.mkdtemp(prefix="building-", dir=self.root))
        try:
            yield folder
            remove(target)
            folder.rename(target)
        finally:
            remove(folder)


def finish(
    folder: Path,
    made_from: dict[str, str],
    tools: dict[str, str],
    timings: dict[str, float],
) -> Manifest:
    """Hash what is in a folder, make it unchangeable and readable by its account alone."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            hashes[str(path.relative_to(folder))] = _sha256(path)
            path.chmod(0o400)
            os.chown(path, owner(), -1)
    manifest = Manifest(hashes, made_from, tools, timings)
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest. Raises ApplianceInvalid."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise ApplianceInvalid(
            f"the manifest of {folder} cannot be read: {error}",
            hint="run `forensic appliance build --force`",
        ) from error


def damaged_files(folder: Path) -> list[str]:
    """Names of files that are missing or not as the manifest says. Raises ApplianceInvalid."""
    manifest = read_manifest(folder)
    return [
        name
        for name, expected in manifest.hashes.items()
        if not (folder / name).is_file() or _sha256(folder / name) != expected
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def touch(folder: Path) -> None:
    """Note that a folder is in use."""
    os.utime(folder / MANIFEST)


def unused_for(folder: Path) -> float:
    """Seconds since a folder was last used."""
    return time.time() - (folder / MANIFEST).stat().st_mtime


def size_of(folder: Path) -> int:
    """Bytes that a folder occupies."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def remove(folder: Path) -> None:
    """Remove a folder and what is in it, if it is there. Refuses to reach into a mount."""
    if not folder.exists():
        return
    mounted = [row.split()[4] for row in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [point for point in mounted if Path(point).is_relative_to(folder.resolve())]
    if below:
        raise EnvironmentFailed(
            f"{folder} is not removed: {', '.join(below)} is mounted in it",
            hint="unmount it first",
        )
    shutil.rmtree(folder)
