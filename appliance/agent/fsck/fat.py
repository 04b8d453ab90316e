"""FAT: fsck.fat(8), whose status 1 is "errors found"."""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, Checker

FAT = Checker(
    check=("/usr/sbin/fsck.fat", "-n", NODE),
    trial=("/usr/sbin/fsck.fat", "-a", NODE),
)
