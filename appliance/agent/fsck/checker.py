"""What a checker is: how it is called, and what its exit status means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from appliance.check import Ending, ToolRun, Verdict

NODE, PROGRESS = "{node}", "{progress}"
"""Stand for the device and for the descriptor of the progress in a command line."""

CLEAN, CORRECTED, REBOOT, LEFT, OPERATIONAL = 0, 1, 2, 4, 8
"""Bits of fsck(8)."""

_ENDINGS = {
    Ending.DEADLINE: "it did not come to its end within {seconds:.0f} seconds and was ended",
    Ending.OUT_OF_MEMORY: "the guest's memory is too little for it; give it more with --memory",
    Ending.TOO_MUCH_OUTPUT: "it went on writing messages without an end, and was ended",
    Ending.SIGNAL: "it crashed",
}

Judgement = tuple[Verdict, str]
"""A verdict, and why."""


@dataclass(frozen=True, slots=True)
class Checker:
    """How file systems of a type are checked.

    `check` writes nothing; `trial` repairs, and is run on a throw-away overlay (None: there is no
    repair that could be tried, and `untried` says why). `judge` and `judge_trial` say what an exit
    status means. `replayed`: the journal must be replayed first, on an overlay, if it wants that.
    A repair is the trial's command on the device itself; `zeroing` is one that throws away a log
    which cannot be replayed.
    """

    check: tuple[str, ...]
    trial: tuple[str, ...] | None = None
    zeroing: tuple[str, ...] | None = None
    untried: str = ""
    judge: Callable[[ToolRun], Judgement] | None = None
    judge_trial: Callable[[ToolRun], Judgement] | None = None
    replayed: bool = False


def judge(run: ToolRun) -> Judgement:
    """By the bits of fsck(8)."""
    if (trouble := not_ended(run)) is not None:
        return trouble
    status = run.status or 0
    if status & (CORRECTED | REBOOT | LEFT):
        return Verdict.ERRORS, f"{run.tool} found errors (status {status})"
    if status:
        return Verdict.UNDECIDED, f"{run.tool} could not do its work (status {status})"
    return Verdict.CLEAN, f"{run.tool} found no errors"


def judge_trial(run: ToolRun) -> Judgement:
    """The same for a repair: what it corrected was wrong."""
    verdict, reason = judge(run)
    if verdict is Verdict.ERRORS:
        reason = f"a repair of it on a throw-away overlay changed something (status {run.status})"
    elif verdict is Verdict.UNDECIDED:
        reason = f"the trial repair: {reason}"
    return verdict, reason


def not_ended(run: ToolRun) -> Judgement | None:
    """Undecided where a run did not exit by itself."""
    if run.ending is Ending.EXITED:
        return None
    words = _ENDINGS[run.ending].format(seconds=run.seconds)
    return Verdict.UNDECIDED, f"{run.tool}: {words}"
