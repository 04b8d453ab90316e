"""A writable view of read-only evidence whose writes go to the guest's memory and are lost.

Some things cannot be opened without writing (the superblock of a RAID volume, the metadata of a
thin pool). They get this view; the evidence underneath stays a device that refuses writes.

All views of a guest share one file system in memory of a bounded size, in which each has a file of
its own: it takes only what is written, and gives it back when the view is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from appliance.agent import dm
from appliance.agent.dm import SECTOR, MappingError, mapped
from appliance.agent.loop import loop_device

STORE = Path("/run/overlays")
STORE_OPTIONS = "size=40%,mode=700"
"""For tmpfs: its share of the guest's memory, above which writes fail, which the views survive as
read errors. Without a bound the kernel would end the guest (vm.panic_on_oom)."""

_SECTORS_PER_CHUNK = 8
_LEAST = 1 << 20
_INVALID = (b"Invalid", b"Overflow")
"""What Documentation/admin-guide/device-mapper/snapshot.rst calls a view that lost writes."""

_open: dict[str, str] = {}
_lost: set[str] = set()


@contextmanager
def overlay(node: str) -> Iterator[str]:
    """Yield a device node that reads like `node` and takes writes into the guest's memory.

    When the memory for all views is full, the kernel makes the view invalid that wanted more:
    that shows as read errors, never as wrong data, and in `overflowed`. Raises MappingError.
    """
    try:
        sectors = int(Path("/sys/class/block", Path(node).name, "size").read_text())
    except (OSError, ValueError) as error:
        raise MappingError(f"no overlay for {node}: {error}") from error
    with scratch(capacity()) as store:
        # "N": the store is not kept; see Documentation/admin-guide/device-mapper/snapshot.rst.
        parameters = f"{node} {store} N {_SECTORS_PER_CHUNK}"
        with mapped(sectors * SECTOR, "snapshot", parameters, read_only=False) as made:
            _open[made] = node
            try:
                yield made
            finally:
                _note_loss(made, node)
                del _open[made]


@contextmanager
def scratch(size: int) -> Iterator[str]:
    """Yield the node of a block device of `size` bytes in the shared memory, full of zeros.

    Raises MappingError, also where that memory is used up.
    """
    if _free() < _LEAST:
        raise MappingError(
            f"the guest's memory for what must write to be read is used up ({capacity()} bytes; "
            "--memory gives the guest more)"
        )
    with ExitStack() as stack:
        try:
            # Its file has no name, and lasts as long as the device.
            file = os.open(STORE, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, file)
            os.ftruncate(file, size)
            node = stack.enter_context(loop_device(file, read_only=False))
        except OSError as error:
            raise MappingError(f"no memory for an overlay: {error.strerror}") from error
        yield node


def capacity() -> int:
    """How many bytes all views together can take."""
    state = os.statvfs(STORE)
    return state.f_blocks * state.f_frsize


def overflowed() -> list[str]:
    """The nodes whose views wanted more memory than there was: those views have read errors."""
    for made, node in _open.items():
        _note_loss(made, node)
    return sorted(_lost)


def _note_loss(made: str, node: str) -> None:
    try:
        invalid = any(word in dm.status(made) for word in _INVALID)
    except OSError:
        return
    if invalid:
        _lost.add(node)


def _free() -> int:
    state = os.statvfs(STORE)
    return state.f_bavail * state.f_frsize
