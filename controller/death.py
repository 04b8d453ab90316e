"""A guest that evidence has killed: what it did last, and whether another may go on."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.layer import MAX_TEXT, Finding, Severity
from appliance.protocol import Deed, Progress
from controller.errors import GuestFailed, GuestHostile
from controller.guest import Guest
from images.quoting import shown

MAX_DEATHS = 4
"""Guests that one run may lose and still go on."""

_LEAST_SECONDS = 5.0
_LINES = 5
_LOOKED_AT = 200
_CAUSES = re.compile(r"Kernel panic|BUG:|Oops|general protection|RIP: 0010|Out of memory|hung")
"""What the kernel's own words for a cause begin with; registers and stacks follow them."""


@dataclass(frozen=True, slots=True)
class Death:
    """What the guest was doing, how it ended, and the last lines of its console."""

    deed: Deed
    reason: str
    last_lines: tuple[str, ...]

    @classmethod
    def of(cls, error: GuestFailed, doing: Progress | None, guest: Guest | None) -> Death | None:
        """None where nothing is known that could be left alone: it had said nothing, or lied."""
        if doing is None or isinstance(error, GuestHostile):
            return None
        lines = guest.console.last_lines(_LOOKED_AT) if guest else []
        return cls(Deed(doing.operation, doing.layer), error.message, tuple(_telling(lines)))

    def may_be_survived(self, earlier: Sequence[Death], deadline: float) -> bool:
        """Not twice of the same, not for ever, and not when the time is over."""
        return (
            len(earlier) < MAX_DEATHS
            and all(self.deed != other.deed for other in earlier)
            and deadline - time.monotonic() > _LEAST_SECONDS
        )

    def finding(self, known: set[str]) -> Finding:
        """What the user reads; `known` are the addresses of the layers that were found."""
        said = "; ".join(self.last_lines)
        message = (
            f"the guest was lost at: {shown(self.deed.operation)}, {shown(self.deed.layer)} "
            f"({self.reason}). Another one went on and left that alone. "
            + (f"Last lines of the console: {said}" if said else "Its console said nothing.")
        )
        layer = self.deed.layer if self.deed.layer in known else None
        return Finding(Severity.ERROR, layer, "guest-lost", message[:MAX_TEXT])


def blamed(error: GuestFailed, doing: Progress | None) -> GuestFailed:
    """The error with what the agent did last: it names the evidence that may be the cause."""
    if doing is None:
        return error
    operation, layer = shown(doing.operation), shown(doing.layer)
    return type(error)(
        f"{error.message}; the last that it said: {operation}, layer {layer}",
        hint=error.hint or "the evidence may have crashed the guest: that is a finding in itself",
    )


def _telling(lines: list[str]) -> list[str]:
    """The lines that name a cause, else the last ones."""
    return [line for line in lines if _CAUSES.search(line)][-_LINES:] or lines[-_LINES:]
