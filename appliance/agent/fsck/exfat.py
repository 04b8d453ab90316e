"""exFAT: fsck.exfat(8) of exfatprogs."""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, Checker

EXFAT = Checker(
    check=("/usr/sbin/fsck.exfat", "-n", NODE),
    trial=("/usr/sbin/fsck.exfat", "-y", NODE),
)
