"""A group under another name and UUID, on throw-away overlays, for LVM to activate.

What LVM must open itself (RAID, thin, snapshots, caches) writes in order to be read, so it gets
overlays. On these the group's metadata is written anew, from the values that were checked: with a
name and a UUID that no other active group has, and without what makes LVM refuse it (exported,
shared, another host's). So clones of a group, and groups in disks inside of it, are open together.
"""

from __future__ import annotations

import os
import secrets
import string
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

from appliance.agent.dm import MappingError
from appliance.agent.lvm2 import area
from appliance.agent.lvm2.area import SECTOR, Area
from appliance.agent.lvm2.choice import Assembled, Labelled
from appliance.agent.lvm2.group import PhysicalVolume
from appliance.agent.lvm2.text import Section, written
from appliance.agent.overlay import overlay

_LETTERS = string.ascii_letters + string.digits
_REFUSED = {"EXPORTED", "CLUSTERED", "SHARED", "PARTIAL"}
_OF_OTHERS = {"system_id", "lock_type", "lock_args"}
_numbers = count()


@dataclass(frozen=True, slots=True)
class StandIn:
    """What LVM is shown: the group's name and UUID there, and the nodes of its members."""

    name: str
    uuid: str
    nodes: list[str]


def stand_in(assembled: Assembled, left_out: Collection[str], stack: ExitStack) -> StandIn:
    """Make one, without the logical volumes `left_out`. Raises MappingError."""
    group = assembled.group
    name = f"forensic{next(_numbers)}vg"
    uuid = area.with_dashes("".join(secrets.choice(_LETTERS) for _ in range(32)).encode())
    text = _text(name, uuid, group.section, left_out)
    nodes = []
    for pv_name, member in assembled.members.items():
        node = stack.enter_context(overlay(member.volume.node or ""))
        try:
            _write(node, member, group.pvs[pv_name], group.extent_bytes, text)
        except OSError as error:
            raise MappingError(f"its metadata on an overlay: {error.strerror}") from error
        nodes.append(node)
    return StandIn(name, uuid, nodes)


def _text(name: str, uuid: str, section: Section, left_out: Collection[str]) -> bytes:
    group = {key: value for key, value in section.items() if key not in _OF_OTHERS}
    group["id"] = uuid
    for key in ("status", "flags"):
        flags = group.get(key)
        if isinstance(flags, list):
            group[key] = [each for each in flags if each not in _REFUSED]
    volumes = group.get("logical_volumes")
    if isinstance(volumes, dict):
        group["logical_volumes"] = {
            key: {inner: value for inner, value in each.items() if inner not in _OF_OTHERS}
            for key, each in volumes.items()
            if key not in left_out and isinstance(each, dict)
        }
    top: Section = {name: group, "contents": "Text Format Volume Group", "version": 1}
    return written(top) + b"\0"


def _write(node: str, member: Labelled, pv: PhysicalVolume, extent_bytes: int, text: bytes) -> None:
    label = member.label
    data_offset = pv.start * SECTOR
    usual = Area(area.USUAL_OFFSET, max(0, data_offset - area.USUAL_OFFSET))
    data_end = data_offset + pv.extents * extent_bytes
    # Where a damaged label says that an area is among the extents, nothing is written there.
    areas = [
        each
        for each in (label.areas if label else [usual])
        if each.offset + each.size <= data_offset or each.offset >= data_end
    ]
    sector = label.sector if label else 1
    device = os.open(node, os.O_WRONLY | os.O_CLOEXEC)
    try:
        head = area.packed_label(sector, pv.uuid, member.volume.size, data_offset, areas)
        os.pwrite(device, head, sector * SECTOR)
        for each in areas:
            if len(text) + SECTOR > each.size:
                raise MappingError("its metadata does not fit into its place again")
            os.pwrite(device, area.packed_area(each, text), each.offset)
        os.fsync(device)
    finally:
        os.close(device)
