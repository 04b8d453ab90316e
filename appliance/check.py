"""The words for a check of a file system, shared by agent and host.

Everything here is also JSON (docs/reference/fsck.md), and is decoded from a hostile guest, so every
constructor checks its bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from appliance.layer import check_bytes, check_list, check_text

MAX_OUTPUT = 160 * 1024
"""Bytes of a checker's output that are kept at most: three quarters from its beginning, the rest
from its end. As base64, those of four runs fit into a frame (protocol.MAX_FRAME)."""


class Verdict(StrEnum):
    """What a check says of a file system.

    `undecided`: the checker did not come to its end, or there is none that can tell.
    """

    CLEAN = "clean"
    ERRORS = "errors"
    UNDECIDED = "undecided"


class Ending(StrEnum):
    """How a checker ended."""

    EXITED = "exited"
    DEADLINE = "deadline"
    OUT_OF_MEMORY = "out-of-memory"
    TOO_MUCH_OUTPUT = "too-much-output"
    SIGNAL = "signal"


@dataclass(frozen=True, slots=True)
class ToolRun:
    """A checker's run: `purpose` is check or trial (a repair on a throw-away overlay).

    `status` is its exit status, None where it did not exit by itself. `output_base64` are the bytes
    that it wrote, `output_size` how many there were in all; `seconds` and `memory` (peak, in bytes,
    None where it is not known) are what it took.
    """

    purpose: str
    tool: str
    arguments: list[str]
    ending: Ending
    status: int | None
    output_base64: str
    output_size: int
    seconds: float
    memory: int | None

    def __post_init__(self) -> None:
        check_text(self.purpose, self.tool, *self.arguments)
        check_list(self.arguments)
        check_bytes(self.output_size, self.memory)
        if len(self.output_base64) > MAX_OUTPUT * 2:
            raise ValueError("the output of a checker is longer than what is kept of one")
        if not 0 <= self.seconds < 1e9 or not -256 < (self.status or 0) < 256:
            raise ValueError("a checker's status or time cannot be")


@dataclass(frozen=True, slots=True)
class Check:
    """What was found about the file system of type `type` on `layer`; `reason` is for people."""

    layer: str
    type: str
    verdict: Verdict
    reason: str
    runs: list[ToolRun] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_text(self.layer, self.type, self.reason)
        check_list(self.runs)


@dataclass(frozen=True, slots=True)
class Checking:
    """Which file systems are checked: those on `layers`, all where that is empty.

    `trial`: "clean" needs a repair on a throw-away overlay that changes nothing. `seconds` is what
    one run of a checker may take.
    """

    layers: list[str] = field(default_factory=list)
    trial: bool = True
    seconds: float = 600.0
