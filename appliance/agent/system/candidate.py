"""What a recogniser is given, and what it is: the interface between finding and reading systems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from appliance.agent.system.files import Files
from appliance.agent.system.mounts import Mounts
from appliance.agent.system.root import Root
from appliance.agent.work import FileSystem, Work
from appliance.system import System


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder that may be the root of a system.

    `root` is open while the recogniser runs; `path` is where it lies in `file_system`, "/" but for
    subvolumes and the like. `files` reads it and tells what goes wrong. `others` are the other
    file systems of the run, which `mounts` mounts when asked; all layers are in
    `work.outcome.layers`.
    """

    root: Root
    files: Files
    file_system: FileSystem
    path: str
    others: list[FileSystem]
    mounts: Mounts
    work: Work


Recogniser = Callable[[Candidate], System | list[System] | None]
"""Reads the system at a candidate, or the few that share its root, as Windows may; returns None
where it is none of its kind.

It runs within a phase. Anything that it cannot read it tells by `files.tell` (or
`work.outcome.find`) and leaves out. Lists are cut with `files.bounded`; strings have at most
MAX_TEXT characters. RootError and OSError are caught by the caller, as the last resort.
"""
