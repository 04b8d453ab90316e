"""The hives of one Windows, opened for as long as it is read, and what is wrong with them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from appliance.agent.mount import RECOVERED
from appliance.agent.outcome import LeftAlone
from appliance.agent.regf.hive import Hive
from appliance.agent.regf.log import Log, Read, Replayed, replayed
from appliance.agent.regf.record import HiveError
from appliance.agent.system.candidate import Candidate
from appliance.agent.system.files import Files
from appliance.agent.system.root import File, RootError
from appliance.layer import Severity

_LOGS = (".LOG1", ".LOG2", ".LOG")
_SECONDS = 300
"""What replaying the logs of a hive may take: they are hashed in Python."""


@contextmanager
def opened_hive(path: str, files: Files, candidate: Candidate) -> Iterator[Hive | None]:
    """The hive in the file at `path`; None where it is absent or cannot be read. What was damaged
    in it is told at the end.

    In the recovered view, the logs of a hive that was being written are applied, in memory.
    """
    with ExitStack() as stack:
        file = stack.enter_context(files.opened(path))
        hive = _hive_of(file, path, files, candidate) if file else None
        yield hive
        if hive and hive.damages:
            files.tell(path, f"damaged, what could be read is shown: {'; '.join(hive.damages)}")


def _hive_of(file: File, path: str, files: Files, candidate: Candidate) -> Hive | None:
    is_recovered = candidate.work.wanted.view == RECOVERED
    replay = _replayed(file, path, files, candidate) if is_recovered else None
    try:
        hive = Hive(replay.read, replay.size) if replay else Hive(_reader(file), file.size)
    except HiveError as error:
        files.tell(path, f"not a registry that can be read: {error}")
        return None
    message = None
    if replay:
        message = f"{replay.sectors} sectors of its transaction logs are laid over it"
    elif hive.base.is_dirty:
        message = "what its transaction logs hold is not shown (--view recovered shows it)"
        if is_recovered:
            message = "none of its transaction logs fits to it"
    if message:
        message = f"{path}: a write to it did not end; {message}"
        address = candidate.file_system.volume.address
        candidate.work.outcome.find(Severity.INFO, address, "registry-dirty", message)
    return hive


def _replayed(file: File, path: str, files: Files, candidate: Candidate) -> Replayed | None:
    address = candidate.file_system.volume.address
    try:
        with ExitStack() as stack:
            opened = (stack.enter_context(files.opened(path + suffix)) for suffix in _LOGS)
            logs = [Log(_reader(each), each.size) for each in opened if each]
            with candidate.work.outcome.phase("replay the registry", address, "registry", _SECONDS):
                return replayed(_reader(file), file.size, logs)
    except LeftAlone:
        files.tell(path, "its transaction logs are left alone: a guest died of them")
    except OSError as error:
        files.tell(path, f"its transaction logs cannot be read: {error.strerror}")
    return None


def _reader(file: File) -> Read:
    def read(offset: int, length: int) -> bytes:
        try:
            return file.read(length, offset)
        except RootError as error:
            raise OSError(errno.EIO, str(error)) from error

    return read
