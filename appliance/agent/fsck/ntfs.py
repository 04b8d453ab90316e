"""NTFS: ntfsfix(8), which looks at little. Only Windows has a whole checker."""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, Checker, Judgement, not_ended
from appliance.check import ToolRun, Verdict


def _judge(run: ToolRun) -> Judgement:
    """Status 0 of such a tool is not "clean"."""
    if (trouble := not_ended(run)) is not None:
        return trouble
    if run.status:
        return Verdict.ERRORS, f"ntfsfix found errors (status {run.status})"
    reason = "ntfsfix found nothing, but it is no full check; only Windows' chkdsk is"
    return Verdict.UNDECIDED, reason


NTFS = Checker(
    check=("/usr/bin/ntfsfix", "--no-action", NODE),
    judge=_judge,
    untried="ntfsfix always resets the journal",
)
