"""Repairs file systems on devices that a writable overlay of the host's is under.

A repair counts only when a second check, as strict as the first, calls the result clean.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from appliance.agent.command import CommandError
from appliance.agent.device import flush
from appliance.agent.dm import MappingError, mapped
from appliance.agent.drivers import DRIVERS
from appliance.agent.fsck import tree
from appliance.agent.fsck.checker import NODE, PROGRESS, Checker, not_ended
from appliance.agent.fsck.run import CHECKERS, TEXT, check, kept, replay, said
from appliance.agent.fsck.tree import Tree
from appliance.agent.mount import options_of
from appliance.agent.mount_call import MountError, attached
from appliance.agent.outcome import LeftAlone, Outcome
from appliance.agent.slice import with_node
from appliance.agent.supervised import supervise
from appliance.agent.work import FileSystem
from appliance.check import Checking, ToolRun, Verdict
from appliance.layer import Severity
from appliance.repair import REPAIRABLE, PathChange, Repair, Repairing, Result

OPERATION = "repair"
MAX_PATHS = 2000
"""Changed paths that are reported for one file system."""

_ROUNDS = 2
"""A repair may uncover what only a second one mends."""

_AS_FOUND = "as-found"
_DIRTY_LOG = 2
"""xfs_repair's status for a log with changes in it."""

_GRACE = 30
_WALK_SECONDS = 120
_FLUSH_SECONDS = 600
_LOG_KEPT = (
    "its log holds changes that the kernel could not replay; nothing was changed "
    "(--force-log-zeroing throws that log away)"
)


class NotRepaired(Exception):
    """Why nothing was repaired, in words."""


def repair_all(file_systems: Sequence[FileSystem], wanted: Repairing, outcome: Outcome) -> None:
    """Report a Repair, and the second Check, for each of the layers that are to be repaired."""
    found = {each.volume.address: each for each in file_systems}
    left = TEXT
    for address in wanted.layers:
        if address in found:
            left -= _repair(found[address], wanted, outcome, kept(left))
        else:
            reason = "it was not found again when it was to be repaired"
            outcome.add_repair(Repair(address, "", Result.UNDECIDED, reason), [])


def _repair(file_system: FileSystem, wanted: Repairing, outcome: Outcome, keep: int) -> int:
    """Repair one, and return how much was said of it."""
    address, kind = file_system.volume.address, file_system.content.type
    with ExitStack() as stack:
        process = _Process(file_system, wanted, outcome, stack, keep)
        try:
            result, reason = process.result()
        except LeftAlone:
            result, reason = Result.UNDECIDED, "the repair killed a guest before; it was left out"
        except NotRepaired as error:
            result, reason = Result.ERRORS_LEFT, str(error)
        except (CommandError, MappingError, OSError) as error:
            result, reason = Result.UNDECIDED, str(error)
        before, after = process.before, process.after
        outcome.add_repair(
            Repair(
                layer=address,
                type=kind,
                result=result,
                reason=reason,
                runs=process.runs,
                entries_before=len(before.entries) if before else None,
                entries_after=len(after.entries) if after else None,
                is_compared=bool(before and after and tree.is_compared(before, after)),
            ),
            process.paths(),
        )
        return said(process.runs) + process.said_by_checks


@dataclass(slots=True)
class _Process:
    """One repair; `runs`, `before` and `after` fill as it goes."""

    file_system: FileSystem
    wanted: Repairing
    outcome: Outcome
    stack: ExitStack
    keep: int
    runs: list[ToolRun] = field(default_factory=list)
    before: Tree | None = None
    after: Tree | None = None
    note: str = ""
    said_by_checks: int = 0

    def result(self) -> tuple[Result, str]:
        """Repair, then check the result. Raises NotRepaired, LeftAlone, CommandError,
        MappingError, OSError."""
        checker = CHECKERS.get(self.file_system.content.type)
        if checker is None or checker.trial is None or not self.is_known:
            raise NotRepaired(f"there is no safe repair for {self.file_system.content.type}")
        # From here on all use one and the same device, so that none sees another's old cache.
        volume = with_node(self.file_system.volume, self.stack)
        self.file_system = replace(self.file_system, volume=volume)
        self.before = self._listed("before")
        verdict, reason = self._repaired(checker)
        self.after = self._listed("after")
        return verdict, reason + self.note

    @property
    def is_known(self) -> bool:
        """Whether host and guest agree that it can be repaired."""
        return self.file_system.content.type in REPAIRABLE

    def _repaired(self, checker: Checker) -> tuple[Result, str]:
        words = self._command(checker)
        wanted = Checking(trial=True, seconds=self.wanted.seconds)
        for _ in range(_ROUNDS):
            run = self._run(words)
            if checker.zeroing and run.status == _DIRTY_LOG:
                if not self.wanted.zero_log or words == checker.zeroing:
                    raise NotRepaired(_LOG_KEPT)
                words = checker.zeroing
                run = self._run(words)
            if (trouble := not_ended(run)) is not None:
                return Result.UNDECIDED, f"the repair: {trouble[1]}"
            found = check(
                replace(self.file_system, wants_replay=False), wanted, self.outcome, self.keep
            )
            if found.verdict is not Verdict.ERRORS:
                break
            words = checker.trial or words
        self.outcome.add_check(found)
        self.said_by_checks = said(found.runs)
        if found.verdict is Verdict.CLEAN:
            return Result.CORRECTED, f"repaired, and a second check says: {found.reason}"
        if found.verdict is Verdict.ERRORS:
            return Result.ERRORS_LEFT, f"errors are left after the repair: {found.reason}"
        return Result.UNDECIDED, f"the second check came to no verdict: {found.reason}"

    def _command(self, checker: Checker) -> tuple[str, ...]:
        """How to repair it, once its journal is replayed where the repair cannot do that."""
        assert checker.trial is not None  # noqa: S101 - asked before
        if not checker.replayed or not self.file_system.wants_replay:
            return checker.trial
        try:
            with self.outcome.phase("replay the journal", self._address, "repair"):
                replay(self._node, self.file_system)
        except MountError as error:
            if checker.zeroing is None or not self.wanted.zero_log:
                raise NotRepaired(f"{_LOG_KEPT}: {error}") from error
            self.note = "; its log could not be replayed and was thrown away"
            return checker.zeroing
        self.note = "; its journal was replayed before"
        flush(self._node)
        return checker.trial

    def _run(self, words: tuple[str, ...]) -> ToolRun:
        argv = [self._node if word == NODE else word for word in words]
        seconds = int(self.wanted.seconds) + _GRACE
        with self.outcome.phase(OPERATION, self._address, "repair", seconds):
            run = supervise(
                "repair",
                argv,
                seconds=self.wanted.seconds,
                keep=self.keep,
                watch=lambda _untrusted: None,
                progress=PROGRESS,
            )
        self.runs.append(run)
        with self.outcome.phase("write out the repair", self._address, "repair", _FLUSH_SECONDS):
            flush(self._node)
            flush(self.file_system.volume.device.path)
        return run

    def _listed(self, when: str) -> Tree | None:
        """What is in it, None where it cannot be mounted.

        Through a device that refuses writes: a read-only mount alone would still let the kernel
        finish deletions that a crash interrupted.
        """
        driver = DRIVERS.get(self.file_system.content.type)
        if driver is None or driver.name is None:
            return None
        options = options_of(self.file_system.volume, driver, _AS_FOUND)
        size = self.file_system.volume.size
        try:
            with (
                self.outcome.phase(
                    f"list the files {when} the repair", self._address, "list", _WALK_SECONDS * 2
                ),
                mapped(size, "linear", f"{self._node} 0") as node,
                attached(node, driver.name, options) as folder,
            ):
                return tree.walk(folder, _WALK_SECONDS)
        except (LeftAlone, MountError, MappingError, OSError):
            return None

    def paths(self) -> list[PathChange]:
        """What changed, up to a limit that is told."""
        if self.before is None or self.after is None:
            return []
        found: list[PathChange] = []
        for change in self._changes(self.before, self.after):
            if len(found) == MAX_PATHS:
                message = f"the repair changed more than {MAX_PATHS} paths; the rest is not listed"
                self.outcome.find(Severity.WARNING, self._address, "repair-paths", message)
                break
            found.append(change)
        return found

    def _changes(self, before: Tree, after: Tree) -> Iterator[PathChange]:
        for untrusted_path, change, what in tree.differences(before, after):
            text = untrusted_path.decode("utf-8", "replace")
            exact = text.encode() == untrusted_path
            encoded = None if exact else base64.b64encode(untrusted_path[:3000]).decode()
            yield PathChange(self._address, text[:4000], change, what, encoded)

    @property
    def _node(self) -> str:
        return self.file_system.volume.node or ""

    @property
    def _address(self) -> str:
        return self.file_system.volume.address
