"""The volumes of an APFS container, each a layer and a file system of its own."""

from __future__ import annotations

import base64
from dataclasses import replace

from appliance.agent.filesystem.apfs import ApfsVolume, Container
from appliance.agent.filesystem.reading import BadSuperblock
from appliance.agent.filesystem.reading import Volume as Bytes
from appliance.agent.outcome import LeftAlone
from appliance.agent.volume import Volume
from appliance.agent.work import FileSystem, Opened, Work
from appliance.layer import (
    MAX_BYTES,
    Content,
    Encryption,
    Finding,
    Kind,
    Layer,
    Severity,
    Status,
    SubvolumeFacts,
)


def apfs_container(volume: Volume, work: Work) -> Opened:
    """List the volumes, without mounting any."""
    try:
        with work.outcome.phase("list the volumes", volume.address, "subvolumes"):
            container = Container(Bytes(volume.read, volume.size))
            found = container.volumes()
    except LeftAlone:
        return Opened()
    except (BadSuperblock, OSError) as error:
        message = f"the volumes of the container cannot be listed: {error}"
        finding = Finding(Severity.WARNING, volume.address, "subvolumes-unknown", message)
        return Opened(findings=[finding])
    parts = [(each, _part(volume, each, container.block_size)) for each in found]
    return Opened(
        layers=[_layer(each, part) for each, part in parts],
        file_systems=[part for each, part in parts if not each.encrypted],
        findings=[finding for each, part in parts for finding in _findings(each, part)],
    )


def _part(volume: Volume, found: ApfsVolume, block_size: int) -> FileSystem:
    name = found.name.decode("utf-8", "replace")
    part = replace(
        volume,
        address=f"{volume.address}/apfs{found.number}",
        kind=Kind.SUBVOLUME,
        parents=[volume.address],
        offset=None,
        partition=None,
        logical_volume=None,
        subvolume=SubvolumeFacts(found.number, path=name, uuid=found.uuid),
    )
    content = Content(
        type="apfs",
        usage="filesystem",
        label=name,
        label_base64=None if name.encode() == found.name else base64.b64encode(found.name).decode(),
        uuid=found.uuid,
        block_size=block_size,
        used=found.used if found.used <= MAX_BYTES else None,
    )
    return FileSystem(part, content)


def _layer(found: ApfsVolume, part: FileSystem) -> Layer:
    volume = part.volume
    return Layer(
        address=volume.address,
        kind=volume.kind,
        parents=volume.parents,
        offset=None,
        size=volume.size,
        status=Status.LOCKED if found.encrypted else Status.MAPPED,
        content=part.content,
        encryption=Encryption("apfs") if found.encrypted else None,
        subvolume=volume.subvolume,
    )


def _findings(found: ApfsVolume, part: FileSystem) -> list[Finding]:
    findings = []
    address = part.volume.address
    if found.encrypted:
        message = "encrypted; this version cannot open it, with no key"
        findings.append(Finding(Severity.WARNING, address, "locked", message))
    if found.snapshots:
        message = f"it has {found.snapshots} snapshots, which are not shown"
        findings.append(Finding(Severity.INFO, address, "snapshots-not-shown", message))
    return findings
