"""The packages of a system, by whoever keeps records of them there."""

from __future__ import annotations

from collections.abc import Callable

from appliance.agent.system import apk, dpkg, ebuild, pacman, rpm
from appliance.agent.system.files import Files
from appliance.system import Application

_FORMATS: dict[str, tuple[Callable[[Files], bool], Callable[[Files], list[Application]]]] = {
    "deb": (dpkg.is_here, dpkg.read_packages),
    "rpm": (rpm.is_here, rpm.read_packages),
    "apk": (apk.is_here, apk.read_packages),
    "pacman": (pacman.is_here, pacman.read_packages),
    "ebuild": (ebuild.is_here, ebuild.read_packages),
}


def read_packages(files: Files, expected: str | None) -> tuple[str | None, list[Application]]:
    """The format, and packages: of the `expected` one if it is here, else of the first that is.

    A system has one manager; records of another are those of an extra tool (rpm on Debian).
    """
    for name in sorted(_FORMATS, key=lambda each: each != expected):
        is_here, read = _FORMATS[name]
        if is_here(files):
            return name, read(files)
    return expected, []
