"""Which Linux it is: os-release, and the files from before it.

Names of distributions, package formats and tools are those of virt-inspector (guestfs-tools).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from appliance.agent.system.assignments import parse_assignments
from appliance.agent.system.files import Files, clipped

_DISTROS = {
    "alpine": "alpinelinux",
    "arch": "archlinux",
    "kali": "kalilinux",
    "ol": "oraclelinux",
    "openEuler": "openeuler",
    "pld": "pldlinux",
    "void": "voidlinux",
    "scientific": "scientificlinux",
    "opensuse-leap": "opensuse",
    "opensuse-tumbleweed": "opensuse",
    "opensuse": "opensuse",
    "sles_sap": "sles",
}
"""os-release's ID where virt-inspector has another name for it."""

_PACKAGES = {
    "debian": ("deb", "apt"),
    "ubuntu": ("deb", "apt"),
    "fedora": ("rpm", "dnf"),
    "rhel": ("rpm", "dnf"),
    "centos": ("rpm", "dnf"),
    "openeuler": ("rpm", "dnf"),
    "mageia": ("rpm", "urpmi"),
    "altlinux": ("rpm", "apt"),
    "suse": ("rpm", "zypper"),
    "opensuse": ("rpm", "zypper"),
    "sles": ("rpm", "zypper"),
    "sled": ("rpm", "zypper"),
    "archlinux": ("pacman", "pacman"),
    "alpinelinux": ("apk", "apk"),
    "gentoo": ("ebuild", "portage"),
    "voidlinux": ("xbps", "xbps"),
    "oraclelinux": ("rpm", "dnf"),
}
_YUM_UNTIL = {"rhel": 7, "centos": 7, "oraclelinux": 7, "scientificlinux": 7, "fedora": 21}

_OLD_FILES = (
    ("etc/redhat-release", None),
    ("etc/SuSE-release", "opensuse"),
    ("etc/gentoo-release", "gentoo"),
    ("etc/slackware-version", "slackware"),
    ("etc/mandriva-release", "mandriva"),
)
"""A line of text, and which distribution has it; None: by its first words."""

_RED_HAT = (
    ("Red Hat", "rhel"),
    ("CentOS", "centos"),
    ("Fedora", "fedora"),
    ("Scientific", "scientificlinux"),
    ("Rocky", "rocky"),
    ("AlmaLinux", "almalinux"),
    ("Oracle", "oraclelinux"),
    ("Mageia", "mageia"),
)
_NUMBERS = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?")


@dataclass(frozen=True, slots=True)
class Release:
    """What a system calls itself."""

    distro: str | None = None
    product_name: str | None = None
    variant: str | None = None
    version: str | None = None
    build_id: str | None = None
    like: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[int | None, int | None]:
        """Major and minor version; None where there is no number."""
        match = _NUMBERS.match(self.version or "")
        if not match:
            return None, None
        return int(match[1]), int(match[2]) if match[2] else None

    @property
    def packages(self) -> tuple[str | None, str | None]:
        """Package format and tool, by the distribution and those that it is like."""
        for each in (self.distro, *self.like):
            if each in _PACKAGES:
                form, tool = _PACKAGES[each]
                major = self.numbers[0]
                is_old = major is not None and major <= _YUM_UNTIL.get(self.distro or "", 0)
                return form, "yum" if tool == "dnf" and is_old else tool
        return None, None


def read_release(files: Files) -> Release | None:
    """None where nothing says that it is a Linux distribution."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        found = parse_assignments(files.lines(path, 1 << 16))
        if found.get("ID") or found.get("NAME"):
            return _completed(_of_os_release(found), files)
    found = parse_assignments(files.lines("etc/lsb-release", 1 << 16))
    if found.get("DISTRIB_ID"):
        return Release(
            distro=_distro(found["DISTRIB_ID"].lower()),
            product_name=clipped(found.get("DISTRIB_DESCRIPTION")),
            version=clipped(found.get("DISTRIB_RELEASE")),
        )
    return _of_old_files(files)


def _of_os_release(found: dict[str, str]) -> Release:
    return Release(
        distro=_distro(found.get("ID", "linux")),
        product_name=clipped(found.get("PRETTY_NAME") or found.get("NAME")),
        variant=clipped(found.get("VARIANT_ID") or found.get("VARIANT")),
        version=clipped(found.get("VERSION_ID")),
        build_id=clipped(found.get("BUILD_ID")),
        like=tuple(filter(None, map(_distro, found.get("ID_LIKE", "").split()[:8]))),
    )


def _completed(release: Release, files: Files) -> Release:
    """Debian's point release, which os-release does not have."""
    if release.distro != "debian":
        return release
    point = files.first_line("etc/debian_version") or ""
    if release.version is None or point.startswith(f"{release.version}."):
        return replace(release, version=clipped(point))
    return release


def _of_old_files(files: Files) -> Release | None:
    for path, distro in _OLD_FILES:
        line = files.first_line(path)
        if line:
            known = next((name for word, name in _RED_HAT if line.startswith(word)), "redhat-based")
            number = re.search(r"\d{1,9}(\.\d{1,9})*", line)
            version = number[0] if number else None
            return Release(distro or known, clipped(line), version=clipped(version))
    for path, distro in (("etc/debian_version", "debian"), ("etc/alpine-release", "alpinelinux")):
        line = files.first_line(path)
        if line:
            return Release(distro, clipped(f"{distro} {line}"), version=clipped(line))
    if files.root.exists("etc/arch-release"):
        return Release("archlinux", "Arch Linux")
    return None


def _distro(name: str) -> str | None:
    return clipped(_DISTROS.get(name, name))
