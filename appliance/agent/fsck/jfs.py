"""JFS: jfs_fsck(8)."""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, Checker

JFS = Checker(
    check=("/usr/sbin/jfs_fsck", "-n", "-f", "-v", NODE),
    trial=("/usr/sbin/jfs_fsck", "-f", "-p", NODE),
)
