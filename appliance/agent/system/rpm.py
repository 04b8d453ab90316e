"""Packages of Red Hat, SUSE and their like: the database of rpm, read by rpm itself.

Rpm gets a copy of the database in the guest's memory, and nothing else of the evidence: it might
write to what it opens. It reads SQLite and Berkeley DB; SUSE's ndb is left out of Debian's rpm and
read here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from appliance.agent.command import CommandError, run
from appliance.agent.system.files import Files, clipped
from appliance.agent.system.pacman import time_of
from appliance.agent.system.root import RootError, text_of
from appliance.agent.system.rpm_ndb import NAME, NdbError, parse_database
from appliance.layer import MAX_TEXT
from appliance.system import MAX_APPLICATIONS, Application

FOLDERS = ("usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm")
"""The last one is ostree's."""

_FORMATS = (("rpmdb.sqlite", "rpmdb.sqlite-wal"), (NAME,), ("Packages", "Name"))
"""Files of each format; the first one tells it."""

_SECONDS = 60.0
_CHUNK = 1 << 20
_NONE = "(none)"
_TAGS = ("NAME", "EPOCH", "VERSION", "RELEASE", "ARCH", "INSTALLTIME", "VENDOR", "SUMMARY")
_FORMAT = "\\t".join(f"%{{{tag}}}" for tag in _TAGS) + "\\n"


def is_here(files: Files) -> bool:
    """Whether rpm keeps its records here."""
    return _database(files) is not None


def read_packages(files: Files) -> list[Application]:
    """Installed packages, in the order of the database."""
    found = _database(files)
    if found is None:
        return []
    folder, names = found
    if names == (NAME,):
        return files.bounded(_read_ndb(files, f"{folder}/{NAME}"), "packages", MAX_APPLICATIONS)
    with tempfile.TemporaryDirectory(prefix="rpm", dir="/run") as copy:
        if not all(_copy(files, f"{folder}/{name}", Path(copy, name)) for name in names):
            return []
        text = _query(files, folder, copy)
    return files.bounded(parse_rows(text), "packages", MAX_APPLICATIONS)


def _read_ndb(files: Files, path: str) -> list[Application]:
    """As far as it makes sense."""
    found: list[Application] = []
    with files.opened(path) as file:
        if file is None:
            return []
        try:
            for package in parse_database(file):
                found.append(package)  # noqa: PERF402 - those before a bad one stay
        except (NdbError, RootError) as error:
            files.tell(path, f"{error}; packages may be missing")
    return found


def warm(folder: str) -> None:
    """Run rpm once on an empty database, so that it is in the page cache."""
    run(_command(folder), timeout=_SECONDS)


def parse_rows(text: str) -> Iterator[Application]:
    """A line for each package, with the tags in the order of _TAGS."""
    for line in text.split("\n"):
        values = [each[:MAX_TEXT] for each in line.split("\t")]
        if len(values) < len(_TAGS) or not values[0]:
            continue
        name, epoch, version, release, arch, time, vendor, summary = (
            "" if each == _NONE else each for each in values[: len(_TAGS)]
        )
        yield Application(
            name=name,
            version=version,
            release=clipped(release),
            epoch=clipped(epoch),
            arch=clipped(arch),
            display_name=clipped(summary),
            publisher=clipped(vendor),
            install_date=time_of(time),
        )


def _database(files: Files) -> tuple[str, tuple[str, ...]] | None:
    for folder in FOLDERS:
        for names in _FORMATS:
            if files.root.is_file(f"{folder}/{names[0]}"):
                return folder, names
    return None


def _copy(files: Files, path: str, target: Path) -> bool:
    """Whether rpm can go on; a file that is not there is none that it needs."""
    with files.opened(path) as source:
        if source is None:
            return True
        if source.size > (limit := _free_memory() // 3):
            reason = f"it has {source.size} bytes, too many for the memory of the guest"
            files.tell(path, f"{reason} ({limit} at most; --memory gives it more)")
            return False
        try:
            with target.open("wb") as file:
                for offset in range(0, source.size, _CHUNK):
                    file.write(source.read(_CHUNK, offset))
        except RootError as error:
            files.tell(path, str(error))
            return False
        except OSError as error:
            files.tell(path, f"no copy of it could be made for rpm: {error.strerror}")
            return False
    return True


def _free_memory() -> int:
    """In bytes, as proc_meminfo(5) says."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        words = line.split()
        if words[0] == "MemAvailable:":
            return int(words[1]) * 1024
    return 0


def _query(files: Files, folder: str, copy: str) -> str:
    try:
        done = run(_command(copy), timeout=_SECONDS)
    except CommandError as error:
        files.tell(folder, str(error))
        return ""
    if done.status != 0 or b"error:" in done.stderr:
        words = text_of(done.stderr[:300]).strip() or f"status {done.status}"
        files.tell(folder, f"rpm says: {words}")
    return text_of(done.stdout)


def _command(folder: str) -> list[str]:
    return [
        *("rpm", "-qa", "--dbpath", folder, "--nosignature", "--nodigest"),
        *("--queryformat", _FORMAT),
    ]
