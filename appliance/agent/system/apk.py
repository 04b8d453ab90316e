"""Packages of Alpine: the database of apk (apk-tools, doc/apk-package.5)."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.agent.system.files import Files, clipped
from appliance.layer import MAX_TEXT
from appliance.system import MAX_APPLICATIONS, Application

DATABASES = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_MAX_DATABASE = 16 << 20


def is_here(files: Files) -> bool:
    """Whether apk keeps its records here."""
    return any(map(files.root.exists, DATABASES))


def read_packages(files: Files) -> list[Application]:
    """Installed packages, in the order of the records."""
    for path in DATABASES:
        text = files.text(path, _MAX_DATABASE)
        if text is not None:
            return files.bounded(parse_installed(text), "packages", MAX_APPLICATIONS)
    return []


def parse_installed(text: str) -> Iterator[Application]:
    """Paragraphs of `X:value`: P name, V version, A architecture, m maintainer, T description."""
    for paragraph in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in paragraph.split("\n"):
            if line[1:2] == ":":
                fields.setdefault(line[0], line[2:].strip()[:MAX_TEXT])
        name, version = fields.get("P"), fields.get("V")
        if name and version:
            upstream, dash, release = version.rpartition("-r")
            yield Application(
                name=name,
                version=upstream if dash else version,
                release=f"r{release}" if dash else None,
                arch=clipped(fields.get("A")),
                display_name=clipped(fields.get("T")),
                publisher=clipped(fields.get("m")),
            )
