"""Intel's firmware RAID (RST, Matrix Storage): its metadata at the end of each disk.

Source: mdadm's super-intel.c (struct imsm_super, imsm_disk, imsm_dev, imsm_vol, imsm_map), little
endian. The first 512 bytes are in the last sector but one, what follows them in the sectors before.
"""

from __future__ import annotations

import struct

from appliance.agent.firmware_array import Container, FirmwareArray, FirmwareError, Slot
from appliance.agent.volume import Volume
from appliance.layer import MAX_BYTES

_SIGNATURE = b"Intel Raid ISM Cfg Sig. "
_SECTOR = 512
_MAX_SIZE = 418 * _SECTOR
_HEAD = struct.Struct("<32s IIII 8x BB 6x I")
_DISKS, _DISK = 216, 48
_SPARE, _FAILED = 1, 4
_VOLUME, _MAP = 80, 112
_MAP_HEAD = struct.Struct("<IIIHBBBBBBIII 16x")
_REBUILD = 1 << 24


def read(volume: Volume) -> Container:
    """Raises FirmwareError and OSError."""
    untrusted = _block(volume)
    signature, _, size, family, generation, disks, count, first_family = _HEAD.unpack_from(
        untrusted
    )
    place = _DISKS + disks * _DISK
    if len(untrusted) < place:
        raise FirmwareError("its table of disks is cut off")
    states = [_u32(untrusted, _DISKS + index * _DISK + 24) for index in range(disks)]
    used = tuple(index for index, state in enumerate(states) if not state & _SPARE)
    failed = {index for index, state in enumerate(states) if state & _FAILED}
    identity = f"{first_family or family:08x}"
    arrays = []
    for _ in range(count):
        array, place = _array(untrusted[:size], place, failed, identity)
        arrays.append(array)
    version = signature[len(_SIGNATURE) :].split(b"\0", 1)[0].decode("ascii", "replace").strip()
    return Container("imsm", version, identity, generation, None, used, tuple(arrays))


def _block(volume: Volume) -> bytes:
    anchor = volume.read(volume.size - 2 * _SECTOR, _SECTOR)
    if len(anchor) < _SECTOR or not anchor.startswith(_SIGNATURE):
        raise FirmwareError("its metadata is not where it should be")
    checksum, size = struct.unpack_from("<II", anchor, 32)
    if not _DISKS <= size <= _MAX_SIZE:
        raise FirmwareError(f"its metadata should have {size} bytes")
    rest = (size + _SECTOR - 1) // _SECTOR * _SECTOR - _SECTOR
    whole = anchor + volume.read(volume.size - 2 * _SECTOR - rest, rest)
    words = struct.unpack_from(f"<{size // 4}I", whole)
    if (sum(words) - checksum) & 0xFFFFFFFF != checksum:
        raise FirmwareError("the checksum of its metadata does not fit")
    return whole


def _array(
    untrusted: bytes, place: int, failed: set[int], identity: str
) -> tuple[FirmwareArray, int]:
    """An array, and where the next one's description begins."""
    if len(untrusted) < place + _MAP + _MAP_HEAD.size:
        raise FirmwareError("the description of an array is cut off")
    name = untrusted[place : place + 16].split(b"\0", 1)[0].decode("utf-8", "replace")
    size = _u32(untrusted, place + 16) | _u32(untrusted, place + 20) << 32
    number = untrusted[place + 40]
    migrates, dirty = untrusted[place + _VOLUME + 8], untrusted[place + _VOLUME + 10]
    head = _MAP_HEAD.unpack_from(untrusted, place + _MAP)
    start, strip, level, members = head[0] | head[10] << 32, head[3], head[5], head[6]
    order = place + _MAP + _MAP_HEAD.size
    end = order + 4 * members
    if len(untrusted) < end or not 0 < members <= 64:
        raise FirmwareError("an array's table of members is cut off")
    slots = []
    for index in range(members):
        entry = _u32(untrusted, order + 4 * index)
        disk = entry & 0xFFFFFF
        whole = not entry & _REBUILD and disk not in failed
        slots.append(Slot(disk, min(start * _SECTOR, MAX_BYTES), whole))
    if migrates:  # the members as they will be; here comes another map, as they were
        if len(untrusted) < end + _MAP_HEAD.size:
            raise FirmwareError("an array that is being changed is not described as a whole")
        end += _MAP_HEAD.size + 4 * untrusted[end + 16]
    array = FirmwareArray(
        uuid=f"{identity}:{number}",
        name=name,
        level=_level(level, members),
        chunk_size=strip * _SECTOR,
        size=min(size * _SECTOR, MAX_BYTES),
        slots=tuple(slots),
        is_clean=not dirty,
    )
    return array, end


def _level(level: int, members: int) -> str:
    if level == 1 and members > 2:
        return "raid10"
    names = {0: "raid0", 1: "raid1", 5: "raid5_la", 10: "raid10"}
    if level not in names:
        raise FirmwareError(f"an array has the unknown level {level}")
    return names[level]


def _u32(block: bytes, offset: int) -> int:
    return int.from_bytes(block[offset : offset + 4], "little")
