"""The words for a repair of a file system on an overlay, shared by agent and host.

Decoded from a hostile guest as everything in appliance/layer.py: constructors check their bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from appliance.check import ToolRun
from appliance.layer import check_bytes, check_list, check_text

REPAIRABLE = frozenset(
    "ext2 ext3 ext4 ext4dev xfs vfat exfat f2fs jfs reiserfs minix".split()  # noqa: SIM905
)
"""libblkid's TYPE of what has a repair that loses nothing which was not lost before."""

WHY_NOT = {
    "btrfs": "the repair of btrfs-check is a last resort by its own words",
    "ntfs": "ntfsfix resets the journal and repairs little; only Windows' chkdsk repairs NTFS",
}
"""Why there is none, where there is more to say than that."""


class Result(StrEnum):
    """What a repair came to: `corrected` only where a second check of the result says clean."""

    CORRECTED = "corrected"
    ERRORS_LEFT = "errors-left"
    UNDECIDED = "undecided"


class Change(StrEnum):
    """How a path differs after a repair."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done to the file system of type `type` on `layer`, and what came of it.

    `entries_before` and `entries_after` are how many files and folders it had, None where it could
    not be mounted; `is_compared` is whether all of them were compared, with their contents.
    """

    layer: str
    type: str
    result: Result
    reason: str
    runs: list[ToolRun] = field(default_factory=list)
    entries_before: int | None = None
    entries_after: int | None = None
    is_compared: bool = False

    def __post_init__(self) -> None:
        check_text(self.layer, self.type, self.reason)
        check_list(self.runs)
        check_bytes(self.entries_before, self.entries_after)


@dataclass(frozen=True, slots=True)
class PathChange:
    """A path of the file system on `layer` that a repair changed.

    `path` begins with /; where its bytes are not UTF-8, `path_base64` holds them exactly. `what`
    of it changed: type, size, mode, owner, mtime, target, content, or `readable` for what could not
    be read before.
    """

    layer: str
    path: str
    change: Change
    what: list[str] = field(default_factory=list)
    path_base64: str | None = None

    def __post_init__(self) -> None:
        check_text(self.layer, self.path, self.path_base64, *self.what)
        check_list(self.what)


@dataclass(frozen=True, slots=True)
class Repairing:
    """A repair of the file systems on `layers`; `path` are all layers that may be written to: these
    and what they lie on. Nothing else is looked into.

    `seconds` is what one run of a tool may take; with `zero_log` a log that cannot be replayed is
    thrown away (XFS).
    """

    layers: list[str]
    path: list[str]
    seconds: float = 600.0
    zero_log: bool = False
