"""Processes that are started before they are needed.

A process that waits for its input is part of the saved state: after the restore it costs
nothing, where a new one costs a fifth of a second under emulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from subprocess import Popen  # noqa: TID251 - the type alone; command.py starts them

from appliance.agent.command import start


class Standby:
    """A few waiting processes of one command."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = argv
        self._waiting: list[Popen[bytes]] = []

    def fill(self, count: int) -> None:
        """Start until `count` processes wait."""
        while len(self._waiting) < count:
            self._waiting.append(start(self.argv))

    def take(self) -> Popen[bytes]:
        """Hand out a waiting process, or a new one where none is left."""
        return self._waiting.pop() if self._waiting else start(self.argv)
