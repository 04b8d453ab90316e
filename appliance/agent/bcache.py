"""bcache: a backing device is read behind its header, without its cache.

Source: Linux drivers/md/bcache/bcache_ondisk.h (struct cache_sb_disk at byte 4096, little endian).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from appliance.agent.volume import Volume
from appliance.agent.work import Opened, Work
from appliance.layer import ArrayFacts, ArrayMember, Finding, Kind, Severity, Status

TYPE = "bcache"
_PLACE, _SECTOR = 4096, 512
_MAGIC = bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")
_BACKING = {1, 4, 6}
_CACHES = {0, 3, 5}
_DEFAULT_START = 16
_MODES = {0: "writethrough", 1: "writeback", 2: "writearound", 3: "none"}
_STATES = {0: "no cache", 1: "clean", 2: "dirty", 3: "stale"}


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    uuid: str
    set_uuid: str
    label: str
    mode: str
    state: str
    start: int


def open_volume(volume: Volume, _work: Work) -> Opened:
    """The inside of a backing device; nothing for a cache, which holds only parts of others."""
    try:
        header = _read(volume)
    except OSError as error:
        return _closed(volume, Severity.ERROR, "unreadable", f"its header: {error}")
    if header is None or header.version not in _BACKING | _CACHES:
        return _closed(volume, Severity.WARNING, "not-opened", "its bcache header makes no sense")
    if header.version in _CACHES:
        text = (
            f"a cache of the set {header.set_uuid}: it holds copies of blocks of its backing "
            "devices, and is not read"
        )
        return _closed(volume, Severity.WARNING, "not-opened", text)
    if not 0 < header.start < volume.size:
        text = f"its data should begin at byte {header.start}, behind its end"
        return _closed(volume, Severity.ERROR, "not-activated", text)
    return Opened(volumes=[_inside(volume, header)], findings=_findings(volume, header))


def _read(volume: Volume) -> _Header | None:
    block = volume.read(_PLACE, 256)
    if len(block) < 256 or block[24:40] != _MAGIC:
        return None
    version, flags = (int.from_bytes(block[at : at + 8], "little") for at in (16, 104))
    start = int.from_bytes(block[184:192], "little") if version in {4, 6} else _DEFAULT_START
    return _Header(
        version=version,
        uuid=str(uuid.UUID(bytes=block[40:56])),
        set_uuid=str(uuid.UUID(bytes=block[56:72])),
        label=block[72:104].split(b"\0", 1)[0].decode("utf-8", "replace"),
        mode=_MODES.get(flags & 0xF, "unknown"),
        state=_STATES[flags >> 61 & 3],
        start=start * _SECTOR,
    )


def _inside(volume: Volume, header: _Header) -> Volume:
    member = ArrayMember(volume.address, 0, "active", header.uuid)
    facts = ArrayFacts(
        format="bcache",
        version=str(header.version),
        level=header.mode,
        uuid=header.set_uuid if header.state != "no cache" else header.uuid,
        name=header.label or None,
        devices=1,
        missing=0,
        members=[member],
        state=header.state,
    )
    return Volume(
        address=f"{volume.address}/bcache",
        kind=Kind.ARRAY,
        parents=[volume.address],
        offset=header.start,
        size=volume.size - header.start,
        device=volume.device,
        start=volume.start + header.start,
        node=None,
        array=facts,
    )


def _findings(volume: Volume, header: _Header) -> list[Finding]:
    if header.state in {"no cache", "clean"}:
        return []
    text = (
        f"its cache (set {header.set_uuid}) was {header.state}: blocks that had not been written "
        "back are only there, and what is read here can be older or damaged"
    )
    return [Finding(Severity.WARNING, f"{volume.address}/bcache", "cache-not-read", text)]


def _closed(volume: Volume, severity: Severity, code: str, message: str) -> Opened:
    finding = Finding(severity, volume.address, code, message)
    return Opened(Status.UNSUPPORTED, findings=[finding])
