"""Checks the file systems that a mapping found: forced, and without writing to any of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from appliance.agent.command import CommandError
from appliance.agent.dm import MappingError
from appliance.agent.drivers import DRIVERS
from appliance.agent.fsck import (
    btrfs,
    exfat,
    ext,
    f2fs,
    fat,
    jfs,
    minix,
    ntfs,
    read_only,
    reiserfs,
    xfs,
)
from appliance.agent.fsck.checker import NODE, PROGRESS, Checker, Judgement, judge, judge_trial
from appliance.agent.mount import RECOVERED, options_of
from appliance.agent.mount_call import MountError, attached
from appliance.agent.outcome import LeftAlone, Outcome
from appliance.agent.overlay import overlay
from appliance.agent.slice import with_node
from appliance.agent.supervised import supervise
from appliance.agent.work import FileSystem
from appliance.check import MAX_OUTPUT, Check, Checking, ToolRun, Verdict
from appliance.layer import Severity

CHECKERS: dict[str, Checker] = {
    "ext2": ext.EXT,
    "ext3": ext.EXT,
    "ext4": ext.EXT,
    "ext4dev": ext.EXT,
    "xfs": xfs.XFS,
    "btrfs": btrfs.BTRFS,
    "ntfs": ntfs.NTFS,
    "vfat": fat.FAT,
    "exfat": exfat.EXFAT,
    "f2fs": f2fs.F2FS,
    "jfs": jfs.JFS,
    "reiserfs": reiserfs.REISERFS,
    "minix": minix.MINIX,
    "erofs": read_only.EROFS,
    "cramfs": read_only.CRAMFS,
}
"""By libblkid's TYPE."""

OPERATION, TRIAL = "check", "try a repair"
_GRACE = 30
TEXT, _LEAST_TEXT = 12 << 20, 2048
"""Bytes of checkers' output (as base64) that a run brings back, and what one may have of it even
when that is used up."""

_EVERY = 1.0


def check_all(file_systems: Sequence[FileSystem], wanted: Checking, outcome: Outcome) -> None:
    """Report a Check for each that was asked for; a wrong address is a finding."""
    asked = wanted.layers
    left = TEXT
    for file_system in file_systems:
        if not asked or file_system.volume.address in asked:
            found = check(file_system, wanted, outcome, kept(left))
            left -= said(found.runs)
            outcome.add_check(found)
    known = {each.volume.address for each in file_systems}
    for address in asked:
        if address not in known:
            message = "a check of this layer was asked for, and no file system is there"
            outcome.find(Severity.ERROR, address, "no-file-system", message)


def kept(left: int) -> int:
    """Bytes of one run's output that are kept where `left` of TEXT are not used up."""
    return min(MAX_OUTPUT, max(_LEAST_TEXT, left // 8))


def said(runs: Sequence[ToolRun]) -> int:
    """What these have used up of it."""
    return sum(len(run.output_base64) for run in runs)


def check(file_system: FileSystem, wanted: Checking, outcome: Outcome, keep: int) -> Check:
    """Check one file system, and keep so many bytes of what each tool says.

    It never raises: what went wrong is in the reason.
    """
    volume, kind = file_system.volume, file_system.content.type
    checker = CHECKERS.get(kind)
    if checker is None:
        reason = f"there is no read-only checker for {kind}; nothing was checked"
        return Check(volume.address, kind, Verdict.UNDECIDED, reason)
    runs: list[ToolRun] = []
    try:
        verdict, reason = _Process(file_system, checker, wanted, outcome, keep, runs).verdict()
    except LeftAlone:
        verdict, reason = Verdict.UNDECIDED, "the check killed a guest before; it was left out"
    except (CommandError, MappingError, MountError) as error:
        verdict, reason = Verdict.UNDECIDED, str(error)
    return Check(volume.address, kind, verdict, reason, runs)


def replay(node: str, file_system: FileSystem) -> None:
    """Have the journal of a file system replayed at `node`, which takes writes. Raises MountError.

    The kernel does it when it mounts what takes writes; see recovery.py.
    """
    driver = DRIVERS[file_system.content.type]
    with attached(node, driver.name or "", options_of(file_system.volume, driver, RECOVERED)):
        pass


@dataclass(frozen=True, slots=True)
class _Process:
    """One file system's check; `runs` fills as it goes."""

    file_system: FileSystem
    checker: Checker
    wanted: Checking
    outcome: Outcome
    keep: int
    runs: list[ToolRun]

    def verdict(self) -> Judgement:
        """First without writing; where that finds nothing, a repair on a throw-away overlay must
        find nothing to repair either."""
        with ExitStack() as stack:
            node = with_node(self.file_system.volume, stack).node or ""
            note = ""
            if self.checker.replayed and self.file_system.wants_replay:
                node = stack.enter_context(overlay(node))
                with self._phase("replay the journal"):
                    replay(node, self.file_system)
                note = "; its journal was replayed before, on a throw-away overlay"
            run = self._run("check", OPERATION, self.checker.check, node)
            verdict, reason = (self.checker.judge or judge)(run)
            if verdict is not Verdict.ERRORS:
                verdict, reason = self._tried(node, verdict, reason)
        return verdict, reason + note

    def _tried(self, node: str, checked: Verdict, reason: str) -> Judgement:
        """What a trial repair adds: a reason to call it clean, or errors that were not seen."""
        if self.checker.trial is None:
            return checked, f"{reason}; no repair was tried: {self.checker.untried}"
        if not self.wanted.trial:
            return checked, f"{reason}; no repair was tried (--no-trial)"
        with overlay(node) as copy:
            run = self._run("trial", TRIAL, self.checker.trial, copy)
        verdict, why = (self.checker.judge_trial or judge_trial)(run)
        if verdict is Verdict.CLEAN and checked is Verdict.CLEAN:
            return verdict, f"{reason}; a repair on a throw-away overlay found none either"
        if verdict is Verdict.CLEAN:
            return checked, f"{reason}; a repair on a throw-away overlay found no errors"
        return verdict, f"{reason}; {why}" if checked is Verdict.CLEAN else f"{why} ({reason})"

    def _run(self, purpose: str, operation: str, words: tuple[str, ...], node: str) -> ToolRun:
        argv = [node if word == NODE else word for word in words]
        with self._phase(operation):
            run = supervise(
                purpose,
                argv,
                seconds=self.wanted.seconds,
                keep=self.keep,
                watch=self._tell(operation),
                progress=PROGRESS,
            )
        self.runs.append(run)
        return run

    def _phase(self, operation: str) -> AbstractContextManager[None]:
        return self.outcome.phase(operation, self._address, "check", self._silence)

    @property
    def _address(self) -> str:
        return self.file_system.volume.address

    @property
    def _silence(self) -> int:
        return int(self.wanted.seconds) + _GRACE

    def _tell(self, operation: str) -> Callable[[bytes], None]:
        """Tells the host how far a checker is, once a second at most."""
        last = time.monotonic()

        def see(untrusted_progress: bytes) -> None:
            nonlocal last
            share = ext.share_done(untrusted_progress)
            if share is not None and time.monotonic() - last >= _EVERY:
                last = time.monotonic()
                self.outcome.advance(operation, self._address, share, self._silence)

        return see
