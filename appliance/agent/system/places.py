"""Where on a file system the root of a system may be: at its top, in a subvolume, in a deployment.

By what is there, not by names of distributions: hier(7), file-hierarchy(7), os-release(5).
"""

from __future__ import annotations

from pathlib import Path

from appliance.agent.system.btrfs_tree import path_of
from appliance.agent.system.root import Root, RootError, opened_root
from appliance.agent.work import FileSystem

_TELLING = (
    "etc/os-release",
    "usr/lib/os-release",
    "etc/lsb-release",
    "etc/redhat-release",
    "etc/debian_version",
    "etc/SuSE-release",
    "etc/arch-release",
    "bin/freebsd-version",
    "etc/master.passwd",
    "System/Library/CoreServices/SystemVersion.plist",
)
"""Each of them alone is enough."""

_TELLING_IN_ANY_CASE = (
    "Windows/System32/config",
    "WINNT/System32/config",
    "WIN/System32/config",
    "ReactOS/System32/config",
    "Windows.old/Windows/System32/config",
    "Windows/System.dat",
)
_PROGRAMS = ("bin", "usr/bin", "sbin")
_SETTINGS = ("etc/fstab", "etc/passwd", "etc/inittab", "etc/rc")
_MAX_PLACES = 32
_MAX_TOP = 256
_SUBVOLUME_INODE = 256
"""BTRFS_FIRST_FREE_OBJECTID: the inode of every subvolume's top folder (btrfs_tree.h)."""


def candidate_paths(folder: Path, file_system: FileSystem) -> list[str]:
    """Paths in the mounted `folder` that look like the root of a system. Raises RootError."""
    with opened_root(folder) as root:
        tops = ["/"]
        if file_system.content.type == "btrfs":
            tops = list(dict.fromkeys([_default_subvolume(folder), "/", *_subvolumes(root)]))
        paths = [path for top in tops for path in (top, *_deployments(root, top.rstrip("/")))]
        return [path for path in paths if _looks_like_a_root(root, path)][:_MAX_PLACES]


def _default_subvolume(folder: Path) -> str:
    """What is mounted where nothing else is asked for; SUSE's is a snapshot that others miss."""
    try:
        return path_of(folder, None)
    except OSError:
        return "/"


def _looks_like_a_root(root: Root, path: str) -> bool:
    if any(root.exists(f"{path}/{each}") for each in _TELLING):
        return True
    folding = root.ignoring_case()
    if any(folding.exists(f"{path}/{each}") for each in _TELLING_IN_ANY_CASE):
        return True
    has_programs = any(root.exists(f"{path}/{each}") for each in _PROGRAMS)
    return has_programs and any(root.exists(f"{path}/{each}") for each in _SETTINGS)


def _subvolumes(root: Root) -> list[str]:
    """Subvolumes at the top, and one level below; not the snapshots, which are older states of
    the same system."""
    found: list[str] = []
    for name in _folders(root, "/"):
        path = f"/{name}"
        if _is_subvolume(root, path):
            found.append(path)
        if "snapshot" not in name:
            inner = (f"{path}/{each}" for each in _folders(root, path) if "snapshot" not in each)
            found += [each for each in inner if _is_subvolume(root, each)]
    return found


def _deployments(root: Root, path: str) -> list[str]:
    """Of ostree: /ostree/deploy/OS/deploy/CHECKSUM.SERIAL."""
    base = f"{path}/ostree/deploy"
    return [
        f"{base}/{name}/deploy/{each}"
        for name in _folders(root, base)
        for each in _folders(root, f"{base}/{name}/deploy")
    ]


def _is_subvolume(root: Root, path: str) -> bool:
    try:
        return root.stat(path, follow=False).st_ino == _SUBVOLUME_INODE
    except RootError:
        return False


def _folders(root: Root, path: str) -> list[str]:
    try:
        return root.listdir(path, _MAX_TOP).names
    except RootError:
        return []
