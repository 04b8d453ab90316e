"""F2FS: fsck.f2fs(8)."""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, Checker

F2FS = Checker(
    check=("/usr/sbin/fsck.f2fs", "-f", "--dry-run", NODE),
    trial=("/usr/sbin/fsck.f2fs", "-f", NODE),
)
