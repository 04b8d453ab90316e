"""Firmware RAID with SNIA's Common RAID Disk Data Format: its metadata at the end of each disk.

Source: Common RAID DDF Specification 1.2 (SNIA), in the words of mdadm's super-ddf.c; big endian.
An anchor in the last sector leads to a header, and that to sections behind it. Which arrays a disk
has a part in is written on that disk alone.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from appliance.agent.firmware_array import Container, FirmwareArray, FirmwareError, Slot
from appliance.agent.volume import Volume
from appliance.layer import MAX_BYTES

_SECTOR = 512
_HEADER_MAGIC, _DISKS_MAGIC, _ARRAYS_MAGIC, _CONFIG_MAGIC, _DISK_MAGIC = (
    bytes.fromhex(each) for each in ("de11de11", "22222222", "dddddddd", "eeeeeeee", "33333333")
)
_HEADER = struct.Struct(">8x 24s 8s I 52x QQ 16x HHHHH 54x 8x IIIIIIII")
_CONFIG = struct.Struct(">8x 24s 32x HBBBBBBQQ")
_REFERENCES = 512
_MAX_SECTION = 4 << 20
_LEVELS = {
    (0, 0): "raid0", (1, 0): "raid1", (1, 1): "raid1", (4, 0): "raid4", (4, 1): "raid5_n",
    (5, 0): "raid5_ra", (5, 2): "raid5_la", (5, 3): "raid5_ls", (6, 1): "raid6_zr",
    (6, 2): "raid6_nr", (6, 3): "raid6_nc", (0x11, 0): "raid10",
}  # fmt: skip
_NOT_ONLINE = 2 | 4 | 64
_INCONSISTENT = 0x10


@dataclass(frozen=True, slots=True)
class _Header:
    guid: str
    version: str
    sequence: int
    record_size: int
    elements: int
    sections: dict[str, bytes]


def read(volume: Volume) -> Container:
    """Raises FirmwareError and OSError."""
    header = _header(volume)
    data = header.sections["data"]
    if len(data) < 36 or data[:4] != _DISK_MAGIC:
        raise FirmwareError("it does not say which disk it is")
    states = _states(header.sections["disks"])
    names = _names(header.sections["arrays"])
    records = header.sections["config"]
    arrays = [
        _array(record, header.elements, states, names)
        for offset in range(0, len(records), header.record_size)
        if (record := records[offset : offset + header.record_size])[:4] == _CONFIG_MAGIC
    ]
    own = int.from_bytes(data[32:36])
    return Container(
        "ddf", header.version, header.guid, header.sequence, own, tuple(states), tuple(arrays)
    )


def _header(volume: Volume) -> _Header:
    anchor = volume.read(volume.size - _SECTOR, _SECTOR)
    _check(anchor, _HEADER_MAGIC, "its anchor")
    places = _HEADER.unpack_from(anchor)[3:5]
    for place in places:  # the second copy counts where the first is damaged
        block = volume.read(min(place * _SECTOR, volume.size), _SECTOR)
        try:
            _check(block, _HEADER_MAGIC, "its header")
        except FirmwareError:
            if place == places[-1]:
                raise
            continue
        break
    guid, version, sequence, _, _, _, _, _, record, elements, *spans = _HEADER.unpack_from(block)
    if not 0 < record <= 1024 or not 0 < elements <= 4096:
        raise FirmwareError("its header makes no sense")
    names = ("disks", "arrays", "config", "data")
    sections = {}
    for name, offset, length in zip(names, spans[::2], spans[1::2], strict=True):
        size = min(length * _SECTOR, _MAX_SECTION)
        sections[name] = volume.read(min((place + offset) * _SECTOR, volume.size), size)
    text = version.decode("ascii", "replace").strip()
    return _Header(guid.hex(), text, sequence, record * _SECTOR, elements, sections)


def _check(block: bytes, magic: bytes, what: str) -> None:
    """The checksum counts itself as ones; CRC-32 without the usual inversions."""
    if len(block) < _SECTOR or block[:4] != magic:
        raise FirmwareError(f"{what} is not where it should be")
    checksum = zlib.crc32(block[:4] + b"\xff" * 4 + block[8:], 0xFFFFFFFF) ^ 0xFFFFFFFF
    if checksum != int.from_bytes(block[4:8]):
        raise FirmwareError(f"the checksum of {what} does not fit")


def _states(section: bytes) -> dict[int, int]:
    """The state of each disk by its reference: entries of 64 bytes behind a head of 64."""
    if section[:4] != _DISKS_MAGIC:
        return {}
    return {
        int.from_bytes(section[at + 24 : at + 28]): int.from_bytes(section[at + 30 : at + 32])
        for at in range(64, len(section) - 63, 64)
        if section[at : at + 24] != b"\xff" * 24
    }


def _names(section: bytes) -> dict[bytes, tuple[str, int]]:
    """Name and state of each array by its GUID: entries like those of disks."""
    if section[:4] != _ARRAYS_MAGIC:
        return {}
    return {
        section[at : at + 24]: (
            section[at + 48 : at + 64].split(b"\0", 1)[0].decode("utf-8", "replace").strip(),
            section[at + 32],
        )
        for at in range(64, len(section) - 63, 64)
    }


def _array(
    record: bytes, elements: int, states: dict[int, int], names: dict[bytes, tuple[str, int]]
) -> FirmwareArray:
    _check(record, _CONFIG_MAGIC, "the description of an array")
    guid, count, shift, level, qualifier, seconds, _, _, _, size = _CONFIG.unpack_from(record)
    offsets = _REFERENCES + 4 * elements
    if not 0 < count <= elements or len(record) < offsets + 8 * count or shift > 32:
        raise FirmwareError("the description of an array is cut off")
    if seconds > 1:
        raise FirmwareError("an array of arrays (secondary RAID level), which is not supported")
    if (level, qualifier) not in _LEVELS:
        raise FirmwareError(f"an array has the unknown level 0x{level:02x}.{qualifier}")
    slots = []
    for index in range(count):
        disk = int.from_bytes(record[_REFERENCES + 4 * index : _REFERENCES + 4 * index + 4])
        start = int.from_bytes(record[offsets + 8 * index : offsets + 8 * index + 8])
        slots.append(
            Slot(disk, min(start * _SECTOR, MAX_BYTES), not states.get(disk, 0) & _NOT_ONLINE)
        )
    name, state = names.get(guid, ("", 0))
    return FirmwareArray(
        uuid=":".join(guid.hex()[at : at + 8] for at in range(0, 48, 8)),
        name=name,
        level=_LEVELS[level, qualifier],
        chunk_size=_SECTOR << shift,
        size=min(size * _SECTOR, MAX_BYTES),
        slots=tuple(slots),
        is_clean=not state & _INCONSISTENT,
    )
