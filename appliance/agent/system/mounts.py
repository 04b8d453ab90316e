"""Mounts of file systems for as long as one system is read; each file system once."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from appliance.agent.drivers import DRIVERS
from appliance.agent.mount import MountError, mounted
from appliance.agent.work import FileSystem, Work

_MAX_MOUNTS = 64


class Mounts:
    """What is mounted now; all of it goes with `stack`."""

    def __init__(self, work: Work, stack: ExitStack) -> None:
        self._work = work
        self._stack = stack
        self._folders: dict[str, Path] = {}

    def folder(self, file_system: FileSystem) -> Path:
        """Where the file system is mounted. Raises MountError, LeftAlone."""
        address = file_system.volume.address
        if address not in self._folders:
            if len(self._folders) >= _MAX_MOUNTS:
                raise MountError(f"more than {_MAX_MOUNTS} file systems are mounted for one system")
            self._folders[address] = self._mount(file_system)
        return self._folders[address]

    def _mount(self, file_system: FileSystem) -> Path:
        address, kind = file_system.volume.address, file_system.content.type
        with self._work.outcome.phase("mount", address, "mount"):
            view = self._work.wanted.view
            return self._stack.enter_context(mounted(file_system.volume, kind, view))


def can_be_mounted(file_system: FileSystem) -> bool:
    """Whether there is a driver for it."""
    return file_system.content.type in DRIVERS
