"""What is said of a volume once it was looked at: its layer, and findings."""

from __future__ import annotations

from appliance.agent import partition
from appliance.agent.blkid import PartitionTable
from appliance.agent.content import Examined
from appliance.agent.drivers import DRIVERS
from appliance.agent.layer_types import is_looked_into
from appliance.agent.outcome import MAX_LAYERS, Outcome
from appliance.agent.unknown import first_sight
from appliance.agent.volume import Volume
from appliance.agent.work import Opened
from appliance.layer import Content, Finding, Layer, Severity, Status, Table

FILE_SYSTEM = "filesystem"
_PART_OF_SOMETHING = {"raid", "crypto"}
"""libblkid's USAGE of what is only a part of something else, or a container of it."""


def report(
    volume: Volume,
    found: Examined,
    table: PartitionTable | None,
    opened: Opened | None,
    outcome: Outcome,
) -> None:
    """Send the volume's layer, with what was found on it and what came of looking into it."""
    status, findings = _status_of(volume, found, opened)
    if found.content is None and status is Status.UNSUPPORTED and not found.findings:
        if table or partition.needs_no_content(volume):
            status = Status.MAPPED
        else:
            findings = [*findings, _unrecognised(volume)]
    if volume.incomplete and status in {Status.MAPPED, Status.UNSUPPORTED}:
        status = Status.DAMAGED
    outcome.add(
        Layer(
            address=volume.address,
            kind=volume.kind,
            parents=volume.parents,
            offset=volume.offset,
            size=volume.size if volume.total is None else volume.total,
            status=status,
            content=found.content,
            table=Table(table.type, table.uuid, volume.device.sector_size) if table else None,
            partition=volume.partition,
            volume=volume.logical_volume,
            encryption=opened.encryption if opened else None,
            shadow_copy=volume.shadow_copy,
            image=volume.image,
            array=opened.array if opened and opened.array else volume.array,
        )
    )
    outcome.repeat(findings)


def _status_of(
    volume: Volume, found: Examined, opened: Opened | None
) -> tuple[Status, list[Finding]]:
    content = found.content
    if opened:
        is_readable = found.status is Status.MAPPED or content is None
        status = opened.status if is_readable else found.status
        return status, [*found.findings, *opened.findings]
    if not content or is_looked_into(content.type) or not _holds_something(content):
        return found.status, found.findings
    message = f"{content.type} is recognised, but this version does not look inside"
    finding = Finding(Severity.WARNING, volume.address, "not-opened", message)
    return Status.UNSUPPORTED, [*found.findings, finding]


def _holds_something(content: Content) -> bool:
    """Whether there is something in it that nobody here opens."""
    if content.usage == FILE_SYSTEM:
        return content.type not in DRIVERS
    return content.usage in _PART_OF_SOMETHING


def _unrecognised(volume: Volume) -> Finding:
    message = f"nothing was recognised here; {first_sight(volume)}"
    return Finding(Severity.WARNING, volume.address, "unrecognised", message)


def stop_at_limit(volume: Volume, outcome: Outcome) -> None:
    """Send the layer of a volume that is one too many to be looked at."""
    outcome.add(
        Layer(
            address=volume.address,
            kind=volume.kind,
            parents=volume.parents,
            offset=volume.offset,
            size=volume.size,
            status=Status.LIMIT,
            partition=volume.partition,
            volume=volume.logical_volume,
            image=volume.image,
        )
    )
    message = f"more than {MAX_LAYERS} layers: this one and what follows it were not examined"
    outcome.find(Severity.ERROR, volume.address, "limit", message)
