"""The disks that a guest is shown: every image, and every detached header, each by an exporter."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field

from appliance.protocol import Disk
from controller.domain_xml import check_size, evidence_disk
from controller.errors import EnvironmentFailed, EvidenceRefused
from controller.places import PORT
from controller.wire import OpenCase
from images.errors import ImageError, SandboxFailed
from images.export import Export, exported
from images.graph import Plan

_EXPORTER_CPU_SECONDS = 3600
_HEADER_SECTOR = 512
"""cryptsetup reads a header in sectors of any size; its file can have any whole number of these."""


@dataclass(frozen=True, slots=True)
class ShownDisk:
    """One of them; `disk` is what the agent is told, `xml` what libvirt is."""

    plan: Plan
    keys: list[bytes]
    export: Export
    sector_size: int
    disk: Disk
    xml: str


@dataclass(slots=True)
class ShownDisks:
    """All that are shown read-only, which are exported for the length of the case."""

    disks: list[ShownDisk] = field(default_factory=list)
    headers: list[ShownDisk] = field(default_factory=list)


def export_all(order: OpenCase, stack: ExitStack) -> ShownDisks:
    """Start all exporters; they live as long as the stack. Raises ForensicError."""
    shown = ShownDisks()
    for index, (plan, keys) in enumerate(zip(order.plans, order.keys, strict=True)):
        disk = _export(index, f"disk{index}", plan, keys, order.sector_size, stack)
        shown.disks.append(disk)
    for index, header in enumerate(order.headers, start=len(order.plans)):
        disk = _export(index, header.address, header.plan, [], _HEADER_SECTOR, stack)
        shown.headers.append(disk)
    return shown


def _export(  # noqa: PLR0913, PLR0917 - what is shown, as which disk, and how long
    index: int,
    address: str,
    plan: Plan,
    keys: list[bytes],
    sector_size: int,
    stack: ExitStack,
) -> ShownDisk:
    try:
        export = stack.enter_context(
            exported(
                plan,
                PORT.parent,
                name=f"evidence{index}",
                keys=keys,
                cpu=_EXPORTER_CPU_SECONDS,
            )
        )
    except SandboxFailed as error:
        raise EnvironmentFailed(str(error), hint=error.hint) from error
    except ImageError as error:
        raise EvidenceRefused(str(error), hint=error.hint) from error
    check_size(plan.path, export.size, sector_size)
    serial = os.urandom(8).hex()
    xml = evidence_disk(index, str(export.socket), export.name, serial, sector_size)
    disk = Disk(address, serial, export.size)
    return ShownDisk(plan, keys, export, sector_size, disk, xml)
