"""Packages of Debian and its like: dpkg's status file (deb-control(5), dpkg-query(1))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from appliance.agent.system.files import Files, clipped
from appliance.layer import MAX_TEXT
from appliance.system import MAX_APPLICATIONS, Application

STATUS = "var/lib/dpkg/status"
PIECES = "var/lib/dpkg/status.d"
"""One file for each package, in images without dpkg."""

_MAX_STATUS = 16 << 20
_FIELD = re.compile(r"^(Package|Status|Version|Architecture|Maintainer): *(.*)$", re.MULTILINE)
_NOT_INSTALLED = {"config-files", "not-installed"}


def is_here(files: Files) -> bool:
    """Whether dpkg keeps its records here."""
    return files.root.exists(STATUS) or files.root.is_dir(PIECES)


def read_packages(files: Files) -> list[Application]:
    """Installed packages, in the order of the records."""
    text = files.text(STATUS, _MAX_STATUS) or ""
    pieces = [each for each in files.names(PIECES) if not each.endswith((".md5sums", ".list"))]
    more = (files.text(f"{PIECES}/{name}", 1 << 20) or "" for name in pieces)
    found = (package for each in chain([text], more) for package in parse_status(each))
    return files.bounded(found, "packages", MAX_APPLICATIONS)


def parse_status(text: str) -> Iterator[Application]:
    """Packages of which at least files are there; those in status.d have no Status line."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        for match in _FIELD.finditer(paragraph):
            fields.setdefault(match[1], match[2].strip()[:MAX_TEXT])
        name, version = fields.get("Package"), fields.get("Version")
        words = fields.get("Status", "install ok installed").split()
        if not name or not version or not words or words[-1] in _NOT_INSTALLED:
            continue
        epoch, upstream, release = split_version(version)
        yield Application(
            name=name,
            version=upstream,
            release=release,
            epoch=epoch,
            arch=clipped(fields.get("Architecture")),
            publisher=clipped(fields.get("Maintainer")),
        )


def split_version(version: str) -> tuple[str | None, str, str | None]:
    """Epoch, upstream version and revision of `[epoch:]upstream[-revision]` (deb-version(7))."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "", version
    upstream, dash, release = rest.rpartition("-")
    return epoch or None, upstream if dash else rest, release if dash else None
