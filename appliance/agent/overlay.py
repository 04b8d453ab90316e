"""A writable view of read-only evidence whose writes go to the guest's memory and are lost.

Some things cannot be opened without writing (the superblock of a RAID volume, the metadata of a
thin pool). They get this view; the evidence underneath stays a device that refuses writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from appliance.agent.dm import SECTOR, MappingError, mapped

_SECTORS_PER_CHUNK = 8
_numbers = count()


@contextmanager
def overlay(node: str) -> Iterator[str]:
    """Yield a device node that reads like `node` and takes writes into a ram disk.

    Bounded by the ram disk's size (rd_size of the brd module); the kernel makes the view invalid
    when that is full, which shows as read errors, never as wrong data. Raises MappingError.
    """
    try:
        sectors = int(Path("/sys/class/block", Path(node).name, "size").read_text())
    except (OSError, ValueError) as error:
        raise MappingError(f"no overlay for {node}: {error}") from error
    # "N": the store is not kept; see Documentation/admin-guide/device-mapper/snapshot.rst.
    parameters = f"{node} /dev/ram{next(_numbers)} N {_SECTORS_PER_CHUNK}"
    with mapped(sectors * SECTOR, "snapshot", parameters, read_only=False) as made:
        yield made
