"""File systems that are written once: their checkers only read, and there is no repair."""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, Checker

_UNTRIED = "there is no repair for this type"

EROFS = Checker(check=("/usr/bin/fsck.erofs", NODE), untried=_UNTRIED)
CRAMFS = Checker(check=("/usr/sbin/fsck.cramfs", NODE), untried=_UNTRIED)
