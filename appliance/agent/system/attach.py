"""Puts a system's other file systems where its fstab has them, so that its files are all found."""

from __future__ import annotations

from contextlib import ExitStack

from appliance.agent.mount import MountError
from appliance.agent.outcome import LeftAlone
from appliance.agent.system.btrfs_tree import path_of
from appliance.agent.system.candidate import Candidate
from appliance.agent.system.fstab import subvolume_number, subvolume_of
from appliance.agent.system.root import RootError, opened_folder
from appliance.layer import Severity
from appliance.system import MountEntry

_READ_FROM = ("/usr", "/var", "/boot", "/etc", "/lib", "/root")
"""What a description of a system comes from is below these."""


def attach_all(candidate: Candidate, entries: list[MountEntry], stack: ExitStack) -> None:
    """Attach what its description is read from. What cannot be attached is told."""
    for entry in sorted(entries, key=lambda each: each.path.count("/")):
        path = entry.path.rstrip("/")
        if not any(path == each or path.startswith(f"{each}/") for each in _READ_FROM):
            continue
        if entry.note in {"not on a disk", "on the network", "a folder of this system"}:
            continue
        try:
            _attach(candidate, entry, path, stack)
        except LeftAlone:  # the host tells what happened
            continue
        except (MountError, RootError) as error:
            candidate.work.outcome.find(
                Severity.WARNING,
                candidate.file_system.volume.address,
                "system-incomplete",
                f"{path} of this system is not here: {error}; what it holds is not shown",
            )


def _attach(candidate: Candidate, entry: MountEntry, path: str, stack: ExitStack) -> None:
    if entry.layer is None:
        raise MountError(entry.note or "it is on no layer of this run")
    known = [candidate.file_system, *candidate.others]
    found = [each for each in known if each.volume.address == entry.layer]
    if not found:
        raise MountError(f"{entry.layer} has no file system")
    folder = candidate.mounts.folder(found[0])
    inner = subvolume_of(entry) or "/"
    if found[0].content.type == "btrfs" and inner == "/":
        try:
            inner = path_of(folder, subvolume_number(entry))
        except OSError as error:
            raise MountError(error.strerror or str(error)) from error
    candidate.root.attach(path, stack.enter_context(opened_folder(folder, inner)))
