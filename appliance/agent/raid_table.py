"""Arrays that device-mapper puts together from nothing but their geometry, read-only.

For metadata that the kernel does not read itself. No superblock is looked for and none is written,
and no member has to be writable. Source: Documentation/admin-guide/device-mapper/ (linear, striped,
dm-raid) of Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from appliance.agent.dm import SECTOR, MappingError, composed, mapped


@dataclass(frozen=True, slots=True)
class Run:
    """`size` bytes at `start` of a block device."""

    node: str
    start: int
    size: int


def joined(runs: Sequence[Run], stack: ExitStack) -> str:
    """The node of a device that has these runs one behind the other. Raises MappingError."""
    parts = [(run.size, "linear", f"{run.node} {run.start // SECTOR}") for run in runs]
    return stack.enter_context(composed(parts))


def striped(runs: Sequence[Run], chunk: int, stack: ExitStack) -> str:
    """The node of a RAID 0 of runs of one size; `chunk` in bytes. Raises MappingError."""
    unit = max(chunk, SECTOR)
    size = min(run.size for run in runs) // unit * unit * len(runs)
    words = " ".join(f"{run.node} {run.start // SECTOR}" for run in runs)
    parameters = f"{len(runs)} {unit // SECTOR} {words}"
    return stack.enter_context(mapped(size, "striped", parameters))


def with_parity(
    kind: str, runs: Sequence[Run | None], chunk: int, parities: int, stack: ExitStack
) -> str:
    """The node of a RAID 4, 5 or 6 whose layout dm-raid calls `kind`; None is a member that is not
    there. Raises MappingError."""
    present = [run for run in runs if run]
    if len(present) < len(runs) - parities:
        raise MappingError(f"only {len(present)} of its {len(runs)} members are there")
    unit = max(chunk, SECTOR)
    size = min(run.size for run in present) // unit * unit
    # Without "nosync" it would start to compute parity anew.
    words = [kind, "2", str(unit // SECTOR), "nosync", str(len(runs))]
    for run in runs:
        words += ["-", joined([Run(run.node, run.start, size)], stack) if run else "-"]
    data = size * (len(runs) - parities)
    return stack.enter_context(mapped(data, "raid", " ".join(words)))
