"""The subvolumes and snapshots of a btrfs file system, each a layer and a file system of its own.

They are found without mounting anything.
"""

from __future__ import annotations

import base64
from dataclasses import replace

from appliance.agent.filesystem.btrfs_subvolume import Subvolume, read_subvolumes
from appliance.agent.filesystem.reading import BadSuperblock
from appliance.agent.filesystem.reading import Volume as Bytes
from appliance.agent.outcome import LeftAlone
from appliance.agent.volume import Volume
from appliance.agent.work import FileSystem, Opened, Work
from appliance.layer import Content, Finding, Kind, Layer, Severity, Status, SubvolumeFacts


def btrfs_volume(volume: Volume, work: Work) -> Opened:
    """List the subvolumes. Nothing else of the file system depends on whether that works."""
    try:
        with work.outcome.phase("list the subvolumes", volume.address, "subvolumes"):
            found, complete = read_subvolumes(Bytes(volume.read, volume.size))
    except LeftAlone:
        return Opened()
    except (BadSuperblock, OSError) as error:
        return Opened(findings=[_unknown(volume, f"its subvolumes cannot be listed: {error}")])
    parts = [_part(volume, each) for each in found]
    findings = []
    if not complete:
        findings.append(_unknown(volume, "it has more subvolumes than are listed"))
    return Opened(layers=[_layer(part) for part in parts], file_systems=parts, findings=findings)


def _unknown(volume: Volume, message: str) -> Finding:
    return Finding(Severity.WARNING, volume.address, "subvolumes-unknown", message)


def _part(volume: Volume, found: Subvolume) -> FileSystem:
    facts = SubvolumeFacts(
        id=found.id,
        parent_id=found.parent,
        path=None if found.path is None else found.path.decode("utf-8", "replace"),
        uuid=found.uuid,
        parent_uuid=found.parent_uuid,
        read_only=found.read_only,
        generation=found.generation,
        created=found.created,
    )
    part = replace(
        volume,
        address=f"{volume.address}/sv{found.id}",
        kind=Kind.SUBVOLUME,
        parents=[volume.address],
        offset=None,
        partition=None,
        logical_volume=None,
        subvolume=facts,
    )
    content = Content(
        type="btrfs",
        usage="filesystem",
        label=facts.path,
        label_base64=_exact(found.path),
        uuid=found.uuid,
    )
    return FileSystem(part, content)


def _exact(path: bytes | None) -> str | None:
    """The bytes in base64 where they are not text."""
    try:
        (path or b"").decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(path or b"").decode()
    return None


def _layer(part: FileSystem) -> Layer:
    volume = part.volume
    return Layer(
        address=volume.address,
        kind=volume.kind,
        parents=volume.parents,
        offset=None,
        size=volume.size,
        status=Status.MAPPED,
        content=part.content,
        subvolume=volume.subvolume,
    )
