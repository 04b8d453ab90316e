"""ReiserFS: reiserfsck(8). Status 6 is "fixable corruption", 4 is one that needs a new tree."""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, Checker

REISERFS = Checker(
    check=("/usr/sbin/reiserfsck", "--check", "--yes", NODE),
    trial=("/usr/sbin/reiserfsck", "--fix-fixable", "--yes", NODE),
    replayed=True,
)
