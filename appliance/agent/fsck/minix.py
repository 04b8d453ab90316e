"""Minix: fsck.minix(8)."""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, Checker

MINIX = Checker(
    check=("/usr/sbin/fsck.minix", "-f", NODE),
    trial=("/usr/sbin/fsck.minix", "-f", "-a", NODE),
)
