"""Drive letters, from MountedDevices of the SYSTEM hive, and the layers of this run that they mean.

A letter's data (undocumented; as in virt-inspector and "The Windows NT Registry", MountedDevices):
the MBR's disk signature and the partition's first byte, or "DMIO:ID:" and the GUID of a partition
of a GPT or of a dynamic volume, or the device's path as text (removable media).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

from appliance.agent.regf.hive import Hive
from appliance.agent.regf.values import decode, values_at
from appliance.layer import MAX_TEXT, Kind, Layer
from appliance.system import MountEntry

_LETTER = re.compile(r"\\DOSDEVICES\\([A-Z]:)")
_MAX_NAMED = 8
_BY_GUID = b"DMIO:ID:"


def drives_of(system: Hive, layers: list[Layer], root: str) -> Iterator[MountEntry]:
    """One for each letter, in their order. `root` is the address of the system's file system: of
    two disks with one signature, a letter means the one that the system is on."""
    values = values_at(system, "MountedDevices")
    letters = {match[1]: name for name in values.by_name if (match := _LETTER.fullmatch(name))}
    own = _below(root, layers)
    for letter, name in sorted(letters.items()):
        data = values.data(name, MAX_TEXT)
        source, fitting = _meaning(data, layers)
        chosen = [each for each in fitting if own.issuperset(each.parents)] or fitting
        if len(chosen) == 1:
            note = "the one on the system's own disk" if len(fitting) > 1 else None
            yield MountEntry(source, letter, layer=chosen[0].address, note=note)
        else:
            # A guess would be taken for a fact.
            names = ", ".join(each.address for each in chosen[:_MAX_NAMED])
            note = f"several fit: {names}"[:MAX_TEXT] if chosen else None
            yield MountEntry(source, letter, note=note)


def _meaning(untrusted_data: bytes, layers: list[Layer]) -> tuple[str, list[Layer]]:
    """The data as text, and the layers that it can mean."""
    if len(untrusted_data) == 12:
        signature = int.from_bytes(untrusted_data[:4], "little")
        offset = int.from_bytes(untrusted_data[4:], "little")
        disks = {
            each.address
            for each in layers
            if each.table and each.table.type == "dos" and each.table.uuid == f"{signature:08x}"
        }
        fitting = [
            each
            for each in layers
            if each.kind is Kind.PARTITION
            and each.offset == offset
            and not (each.partition and each.partition.extended)
            and disks.issuperset(each.parents)
        ]
        return f"diskid={signature:08x} offset={offset}", fitting
    if len(untrusted_data) == 24 and untrusted_data.startswith(_BY_GUID):
        guid = str(uuid.UUID(bytes_le=untrusted_data[8:]))
        return f"guid={guid}", [each for each in layers if _has_uuid(each, guid)]
    return decode(untrusted_data).partition("\0")[0][:MAX_TEXT], []


def _has_uuid(layer: Layer, guid: str) -> bool:
    uuids = {
        layer.partition.uuid if layer.partition else None,
        layer.volume.uuid if layer.volume else None,
    }
    return guid in {each.lower() for each in uuids if each}


def _below(address: str, layers: list[Layer]) -> set[str]:
    """The layer and everything that it lies on."""
    parents = {each.address: each.parents for each in layers}
    found: set[str] = set()
    waiting = [address]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += parents.get(each, [])
    return found
