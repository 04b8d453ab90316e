"""Serves an image read-only over NBD: by QEMU where it knows the format, else by our reader."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from images import exporter, reader_export
from images.graph import READERS, Overlay, Plan
from images.read_ahead import Stop
from images.served_socket import Export

__all__ = ["Export", "exported", "start_seconds"]

_UNPACKED = 20 << 20
"""Bytes of a gzip file that are unpacked in a second, with room for a slow machine."""


@contextlib.contextmanager
def exported(  # noqa: PLR0913 - an export is what, where, under which name, and with which limits
    plan: Plan,
    directory: Path | None,
    *,
    name: str,
    keys: Sequence[bytes] = (),
    timeout: float = 10.0,
    cpu: int | None = None,
    stop: Stop = lambda: False,
    overlay: Overlay | None = None,
) -> Iterator[Export]:
    """Export what `plan` says at a Unix socket in `directory`; see images.exporter.exported.

    Where all must be unpacked first, that is given more time, and Cancelled is raised once `stop`
    says so.
    """
    if plan.top.driver not in READERS or overlay:
        with exporter.exported(
            plan, directory, name=name, keys=keys, timeout=timeout, cpu=cpu, overlay=overlay
        ) as export:
            yield export
        return
    with reader_export.served(
        plan.top.driver.removeprefix("reader:"),
        [plan.files[number] for number in plan.top.chain],
        directory,
        name=name,
        size=plan.size,
        path=plan.path,
        timeout=timeout + start_seconds(plan),
        cpu=cpu,
        stop=stop,
    ) as export:
        yield export


def start_seconds(plan: Plan) -> float:
    """How much longer than another the export may take to be ready."""
    if plan.size is not None:
        return 0.0
    return sum(plan.files[number].size for number in plan.top.chain) / _UNPACKED
