"""Packages of Arch and its like: pacman's local database, a folder for each (alpm(5))."""

from __future__ import annotations

from appliance.agent.system.dpkg import split_version
from appliance.agent.system.files import Files, clipped
from appliance.layer import MAX_TEXT
from appliance.system import MAX_APPLICATIONS, Application

LOCAL = "var/lib/pacman/local"
_MAX_DESC = 1 << 18
_LAST_TIME = 2**62


def is_here(files: Files) -> bool:
    """Whether pacman keeps its records here."""
    return files.root.is_dir(LOCAL)


def read_packages(files: Files) -> list[Application]:
    """Installed packages, sorted by name."""
    found: list[Application] = []
    names = [each for each in files.names(LOCAL, MAX_APPLICATIONS) if each != "ALPM_DB_VERSION"]
    for name in names:
        text = files.text(f"{LOCAL}/{name}/desc", _MAX_DESC)
        package = parse_desc(text) if text is not None else None
        if package:
            found.append(package)
        else:
            files.tell(f"{LOCAL}/{name}", "there is no description of a package in it")
    return found


def parse_desc(text: str) -> Application | None:
    """`%KEY%` and its values on the lines below, up to an empty one."""
    fields: dict[str, str] = {}
    for block in text.split("\n\n"):
        key, _, rest = block.strip("\n").partition("\n")
        fields.setdefault(key, rest.split("\n")[0].strip()[:MAX_TEXT])
    name, version = fields.get("%NAME%"), fields.get("%VERSION%")
    if not name or not version:
        return None
    epoch, upstream, release = split_version(version)
    return Application(
        name=name,
        version=upstream,
        release=release,
        epoch=epoch,
        arch=clipped(fields.get("%ARCH%")),
        display_name=clipped(fields.get("%DESC%")),
        publisher=clipped(fields.get("%PACKAGER%")),
        install_date=time_of(fields.get("%INSTALLDATE%", "")),
    )


def time_of(text: str) -> int | None:
    """Seconds since the epoch as text; None for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    return int(text) if int(text) < _LAST_TIME else None
