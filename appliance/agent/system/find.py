"""Looks for operating systems on the file systems of a mapping."""

from __future__ import annotations

from contextlib import ExitStack

from appliance.agent.mount import MountError
from appliance.agent.outcome import LeftAlone
from appliance.agent.system.candidate import Candidate
from appliance.agent.system.files import Files
from appliance.agent.system.mounts import Mounts, can_be_mounted
from appliance.agent.system.places import candidate_paths
from appliance.agent.system.registry import RECOGNISERS
from appliance.agent.system.root import RootError, opened_root
from appliance.agent.system.send import Sender
from appliance.agent.work import FileSystem, Work
from appliance.layer import Kind, Severity
from appliance.system import MAX_SYSTEMS, System

_SECONDS = 120
"""What reading one system may take: every file of it is bounded, but a guest can be slow."""


def find_systems(file_systems: list[FileSystem], work: Work) -> None:
    """Report every system that is on one of the file systems, and what cannot be looked into."""
    file_systems = [each for each in file_systems if not _is_seen_from_above(each)]
    found = 0
    sender = Sender(work.outcome)
    for file_system in file_systems:
        address = file_system.volume.address
        if found >= MAX_SYSTEMS:
            _tell_limit(address, work)
            return
        others = [each for each in file_systems if each is not file_system]
        try:
            found += _look(file_system, others, work, sender, MAX_SYSTEMS - found)
        except LeftAlone:
            continue
        except (MountError, RootError) as error:
            message = f"no operating system was looked for here: {error}"
            work.outcome.find(Severity.WARNING, address, "not-mounted", message)
    if not found:
        message = "no operating system was found"
        work.outcome.find(Severity.INFO, None, "no-system", message)


def _look(
    file_system: FileSystem, others: list[FileSystem], work: Work, sender: Sender, room: int
) -> int:
    """Report the systems of one file system, at most `room`; return how many there are."""
    if not can_be_mounted(file_system):
        raise MountError(f"there is no driver for {file_system.content.type}")
    address = file_system.volume.address
    found = 0
    with ExitStack() as stack:
        mounts = Mounts(work, stack)
        folder = mounts.folder(file_system)
        with work.outcome.phase("look for an operating system", address, "systems"):
            paths = candidate_paths(folder, file_system)
        for path in paths:
            with (
                work.outcome.phase("read the operating system", address, "systems", _SECONDS),
                opened_root(folder, path) as root,
            ):
                files = Files(root, address, work.outcome)
                here = Candidate(root, files, file_system, path, others, mounts, work)
                systems = _recognise(here)
                if found + len(systems) > room:
                    _tell_limit(address, work)
                for system in systems[: room - found]:
                    sender.send(system)
                    found += 1
    return found


def _is_seen_from_above(file_system: FileSystem) -> bool:
    """A subvolume of btrfs, which is in the file system that it is a part of."""
    return file_system.content.type == "btrfs" and file_system.volume.kind is Kind.SUBVOLUME


def _tell_limit(address: str, work: Work) -> None:
    message = f"more than {MAX_SYSTEMS} systems: from here on they are left out"
    work.outcome.find(Severity.WARNING, address, "system-limit", message)


def _recognise(candidate: Candidate) -> list[System]:
    for recogniser in RECOGNISERS:
        try:
            system = recogniser(candidate)
        except (OSError, RootError, ValueError) as error:
            # A module's own bounds have failed it; the others may still know the system.
            reason = f"{type(error).__name__}: {error}"
            candidate.files.tell(candidate.path, f"a system here could not be read: {reason}")
        else:
            if system:
                return system if isinstance(system, list) else [system]
    return []
