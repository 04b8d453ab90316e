"""What a file system says about the space that it has, and what is wrong with that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from appliance.agent.filesystem.reading import BadSuperblock, Volume
from appliance.layer import MAX_BYTES, ExtState, Severity


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to tell about a file system; `code` is for programs, `message` for people."""

    severity: Severity
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Usage:
    """A file system's own account of itself, all in bytes, None where it keeps or has none.

    `size` is the whole file system and `used` is `size - free`, so the space that the file system
    takes for itself (tables, journal, reserved areas) counts as used. df(1) leaves part of that
    out of both.
    """

    block_size: int | None = None
    size: int | None = None
    used: int | None = None
    free: int | None = None
    ext: ExtState | None = None
    problems: tuple[Problem, ...] = ()


def needs_recovery() -> Problem:
    """The journal (or log) holds changes that are not yet in the rest of the file system."""
    message = "The journal has not been replayed, so the numbers are those from before it."
    return Problem(Severity.INFO, "needs-recovery", message)


def not_clean() -> Problem:
    """The mark that a clean unmount leaves is missing."""
    message = "The file system was not unmounted cleanly."
    return Problem(Severity.WARNING, "not-clean", message)


def errors_recorded(message: str = "The file system has recorded errors in itself.") -> Problem:
    """The file system's driver or checker noted that something is damaged."""
    return Problem(Severity.WARNING, "errors-recorded", message)


def orphans() -> Problem:
    """Files that were deleted while they were open."""
    message = "Inodes are waiting to be removed: files that were deleted while they were in use."
    return Problem(Severity.INFO, "orphan-inodes", message)


def usage_unknown(reason: str) -> Problem:
    """How much is used cannot be told."""
    message = f"How much of the file system is used is not known: {reason}."
    return Problem(Severity.WARNING, "usage-unknown", message)


def damaged(error: BadSuperblock) -> Usage:
    """No numbers at all, only the reason."""
    message = f"The file system's header is damaged: {error}."
    return Usage(problems=(Problem(Severity.WARNING, "damaged-superblock", message),))


def account(  # noqa: PLR0913 - one keyword for each thing that is known about a file system
    volume: Volume,
    *,
    block_size: int,
    size: int,
    free: int | None,
    problems: Iterable[Problem] = (),
    ext: ExtState | None = None,
    on_volume: int | None = None,
) -> Usage:
    """Check the numbers against each other and against the volume.

    `on_volume` says how many bytes have to lie on this volume where that is not `size`.
    """
    found = list(problems)
    if size > MAX_BYTES:
        message = f"The file system says that it has {size} bytes, more than any volume can have."
        found.append(Problem(Severity.WARNING, "size-out-of-range", message))
        return Usage(block_size=block_size, ext=ext, problems=tuple(found))
    claimed = size if on_volume is None else on_volume
    if claimed > volume.size:
        message = f"The file system says that it has {claimed} bytes, its volume {volume.size}."
        found.append(Problem(Severity.WARNING, "size-exceeds-volume", message))
    if free is not None and not 0 <= free <= size:
        found.append(usage_unknown("more is said to be free than there is"))
        free = None
    used = None if free is None else size - free
    return Usage(block_size, size, used, free, ext, tuple(found))


def counted(count: Callable[[], int], problems: list[Problem]) -> int | None:
    """The result of `count`, or None with a problem where the structures it needs are damaged.

    The size that the header gave stays worth telling then.
    """
    try:
        return count()
    except BadSuperblock as error:
        problems.append(usage_unknown(str(error)))
        return None
