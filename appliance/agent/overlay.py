"""A writable view of read-only evidence whose writes go to the guest's memory and are lost.

Some things cannot be opened without writing (the superblock of a RAID volume, the metadata of a
thin pool). They get this view; the evidence underneath stays a device that refuses writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from appliance.agent.command import CommandError, run

_SECTORS_PER_CHUNK = 8
_TIMEOUT = 30.0
_numbers = count()


class OverlayError(Exception):
    """The kernel did not make the view."""


@contextmanager
def overlay(node: str) -> Iterator[str]:
    """Yield a device node that reads like `node` and takes writes into a ram disk.

    Bounded by the ram disk's size (rd_size of the brd module); the kernel makes the view invalid
    when that is full, which shows as read errors, never as wrong data. Raises OverlayError.
    """
    number = next(_numbers)
    name = f"overlay{number}"
    try:
        sectors = int(Path("/sys/class/block", Path(node).name, "size").read_text())
        # "N": the store is not kept; see Documentation/admin-guide/device-mapper/snapshot.rst.
        table = f"0 {sectors} snapshot {node} /dev/ram{number} N {_SECTORS_PER_CHUNK}"
        done = run(["dmsetup", "create", name, "--noudevsync", "--table", table], timeout=_TIMEOUT)
    except (CommandError, OSError, ValueError) as error:
        raise OverlayError(f"no overlay for {node}: {error}") from error
    if done.status != 0:
        raise OverlayError(f"no overlay for {node}: {done.stderr.decode('utf-8', 'replace')}")
    try:
        yield _node(name)
    finally:
        with suppress(CommandError):  # the guest is about to be destroyed anyway
            run(["dmsetup", "remove", "--noudevsync", "--retry", name], timeout=_TIMEOUT)


def _node(name: str) -> str:
    """The kernel's own node: without udev nobody makes links in /dev/mapper."""
    for path in Path("/sys/block").glob("dm-*/dm/name"):
        if path.read_text().strip() == name:
            return f"/dev/{path.parent.parent.name}"
    raise OverlayError(f"the kernel does not show {name}")
