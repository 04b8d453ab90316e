"""Btrfs: btrfs-check(8). Its repair is a last resort by its own words, so none is tried."""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, Checker

BTRFS = Checker(
    check=("/usr/bin/btrfs", "check", "--readonly", "--force", NODE),
    untried="the repair of btrfs is a last resort and proves nothing",
)
