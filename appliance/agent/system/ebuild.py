"""Packages of Gentoo: a folder for each in Portage's database (PMS; portage(5))."""

from __future__ import annotations

import re

from appliance.agent.system.files import Files
from appliance.agent.system.root import text_of
from appliance.layer import MAX_TEXT
from appliance.system import MAX_APPLICATIONS, Application

DATABASE = "var/db/pkg"
_NAME = re.compile(r"(.+?)-(\d[^-]*)(?:-(r\d+))?")
_MAX_CATEGORIES = 500


def is_here(files: Files) -> bool:
    """Whether Portage keeps its records here."""
    return files.root.is_dir(DATABASE)


def read_packages(files: Files) -> list[Application]:
    """Installed packages as category/name, sorted."""
    found: list[Application] = []
    for category in files.names(DATABASE, _MAX_CATEGORIES):
        for name in files.names(f"{DATABASE}/{category}"):
            package = parse_name(f"{text_of(category)}/{text_of(name)}")
            if package:
                found.append(package)
    return files.bounded(found, "packages", MAX_APPLICATIONS)


def parse_name(name: str) -> Application | None:
    """`category/name-version[-rREVISION]`."""
    match = _NAME.fullmatch(name)
    if not match or len(name) > MAX_TEXT:
        return None
    return Application(match[1], match[2], release=match[3])
