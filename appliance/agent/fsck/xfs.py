"""XFS: xfs_repair(8). A log with changes in it is replayed first, on an overlay."""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, Checker, Judgement, not_ended
from appliance.check import ToolRun, Verdict

_CORRUPTION, _DIRTY_LOG, _REPAIRED = 1, 2, 4


def judge(run: ToolRun) -> Judgement:
    """`-n`: 1 is corruption."""
    if (trouble := not_ended(run)) is not None:
        return trouble
    if run.status == 0:
        return Verdict.CLEAN, "xfs_repair found no errors"
    if run.status == _CORRUPTION:
        return Verdict.ERRORS, "xfs_repair found corruption (status 1)"
    return Verdict.UNDECIDED, f"xfs_repair could not do its work (status {run.status})"


def judge_trial(run: ToolRun) -> Judgement:
    """`-e`: 4 is corruption that was repaired, 2 a log that could not be replayed."""
    if (trouble := not_ended(run)) is not None:
        return trouble
    if run.status == 0:
        return Verdict.CLEAN, "xfs_repair found no errors"
    if run.status == _DIRTY_LOG:
        reason = "its log holds changes that the kernel could not replay; nothing was zeroed"
        return Verdict.ERRORS, reason
    if run.status == _REPAIRED:
        return Verdict.ERRORS, "a repair of it on a throw-away overlay changed something"
    return Verdict.ERRORS, f"xfs_repair could not repair it (status {run.status})"


XFS = Checker(
    check=("/usr/sbin/xfs_repair", "-n", NODE),
    trial=("/usr/sbin/xfs_repair", "-e", NODE),
    zeroing=("/usr/sbin/xfs_repair", "-e", "-L", NODE),
    judge=judge,
    judge_trial=judge_trial,
    replayed=True,
)
