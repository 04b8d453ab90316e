"""Linux software RAID: what the superblock of one member says of the array and of the member.

Layouts: Linux include/uapi/linux/raid/md_p.h (mdp_superblock_1, mdp_super_t), md(4).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from appliance.agent.volume import Volume
from appliance.layer import MAX_BYTES

SECTOR = 512
MAX_DEVICES = 1920
"""mdadm's limit for metadata 1.x; the kernel's own superblock has room for no more."""

_MAGIC = struct.pack("<I", 0xA92B4EFC)
_FOREIGN = struct.pack(">I", 0xA92B4EFC)
_ARRAY = struct.Struct("<8x I 4x 16s32s 8x iIQII 8x Q")
_MEMBER = struct.Struct("<128x QQ 16x I 4x 16s x B H i")
_STATE = struct.Struct("<200x QQII")
_ROLES = 256
_ALL = 2**64 - 1

_RECOVERING, _RESHAPING, _BAD_BLOCKS, _REPLACEMENT, _JOURNAL = 2, 4, 8, 16, 512
_SPARE, _FAULTY, _JOURNAL_ROLE = 0xFFFF, 0xFFFE, 0xFFFD

_LEVELS = {-4: "multipath", -1: "linear", 0: "raid0", 1: "raid1", 4: "raid4", 5: "raid5",
           6: "raid6", 10: "raid10"}  # fmt: skip
_PARITY = {
    0: "left-asymmetric", 1: "right-asymmetric", 2: "left-symmetric", 3: "right-symmetric",
    4: "parity-first", 5: "parity-last", 8: "ddf-zero-restart", 9: "ddf-N-restart",
    10: "ddf-N-continue", 16: "left-asymmetric-6", 17: "right-asymmetric-6",
    18: "left-symmetric-6", 19: "right-symmetric-6", 20: "parity-first-6",
}  # fmt: skip


class BadSuperblock(Exception):
    """What is there is not the superblock of an array that the kernel would take."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """One member's view. Offsets and sizes in bytes.

    `role` is the member's slot, or a word: spare, faulty, journal. `roles` are those of all
    members by their number, as this one knew them; `number` is this one's.
    """

    version: str
    uuid: str
    name: str
    level: str
    layout: str | None
    chunk_size: int
    devices: int
    member_size: int
    events: int
    number: int
    member_uuid: str | None
    roles: dict[int, int | str] = field(default_factory=dict)
    is_clean: bool = True
    resync_at: int | None = None
    reshape_at: int | None = None
    is_rebuilding: bool = False
    is_replacement: bool = False
    has_journal: bool = False
    data_offset: int = 0
    data_size: int = 0
    bad_blocks: int = 0
    preferred: int | None = None

    @property
    def role(self) -> int | str:
        """What this member took itself for."""
        return self.roles.get(self.number, "spare")


def read(volume: Volume) -> Superblock:
    """Read the superblock, wherever in the volume it is. Raises BadSuperblock and OSError.

    In the kernel's order: 1.1 at the start, 1.2 behind 4 KiB, 1.0 and 0.90 near the end.
    """
    sectors = volume.size // SECTOR
    places = [("1.1", 0), ("1.2", 8), ("1.0", (sectors - 16) & ~7)]
    for version, sector in places:
        if sector < 0:
            continue
        block = volume.read(sector * SECTOR, 4096)
        # Its own place is in it: one of a partition's end can also look like one of the disk's.
        if block[:8] == _MAGIC + b"\1\0\0\0" and _u64(block, 144) == sector:
            return _version_1(volume, version, block)
    block = volume.read(((sectors & ~127) - 128) * SECTOR, 4096)
    if block[:4] == _MAGIC and len(block) == 4096:
        return _version_0(volume, block)
    if block[:4] == _FOREIGN:
        raise BadSuperblock(
            "metadata 0.90 of a machine with the other byte order, which the kernel does not take"
        )
    raise BadSuperblock("no superblock where there should be one")


def _version_1(volume: Volume, version: str, block: bytes) -> Superblock:
    if len(block) < _ROLES:
        raise BadSuperblock("it is cut off")
    features, uuid, name, level, layout, size, chunk, devices, reshape = _ARRAY.unpack_from(block)
    data_offset, data_size, number, member_uuid, shift, *log = _MEMBER.unpack_from(block)
    events, resync, checksum, count = _STATE.unpack_from(block)
    length = _ROLES + 2 * count
    if count > MAX_DEVICES or len(block) < length:
        raise BadSuperblock(f"it has room for {count} devices")
    if _checksum_1(block[:length]) != checksum:
        raise BadSuperblock("its checksum does not fit its contents")
    roles = struct.unpack_from(f"<{count}H", block, _ROLES)
    return Superblock(
        version=version,
        uuid=_grouped(uuid.hex()),
        name=name.split(b"\0", 1)[0].decode("utf-8", "replace"),
        level=_level(level),
        layout=_layout(level, layout),
        chunk_size=_bytes(chunk),
        devices=_devices(devices),
        member_size=_bytes(size),
        events=events,
        number=number,
        member_uuid=_grouped(member_uuid.hex()),
        roles={index: _role(role) for index, role in enumerate(roles)},
        is_clean=resync == _ALL,
        resync_at=None if resync == _ALL or level in {0, -1} else _bytes(resync),
        reshape_at=_bytes(reshape) if features & _RESHAPING else None,
        is_rebuilding=bool(features & _RECOVERING),
        is_replacement=bool(features & _REPLACEMENT),
        has_journal=bool(features & _JOURNAL),
        data_offset=_bytes(data_offset),
        data_size=_bytes(data_size),
        bad_blocks=_bad_blocks(volume, block, shift, *log) if features & _BAD_BLOCKS else 0,
    )


def _version_0(volume: Volume, block: bytes) -> Superblock:
    word = struct.unpack("<1024I", block)
    if word[1] != 0:
        raise BadSuperblock(f"metadata of the unknown version {word[1]}.{word[2]}")
    total = sum(word) - word[38]
    if (total + (total >> 32)) & 0xFFFFFFFF != word[38] and total & 0xFFFFFFFF != word[38]:
        raise BadSuperblock("its checksum does not fit its contents")
    level = struct.unpack_from("<i", block, 7 * 4)[0]
    is_clean = bool(word[33] & 1)
    same = word[39:41] == word[41:43]
    roles: dict[int, int | str] = {}
    for index in range(27):
        row = word[128 + 32 * index : 128 + 32 * index + 5]
        if row[4] & 1:
            roles[row[0]] = "faulty"
        elif row[4] & 6 == 6:
            roles[row[0]] = row[3]
    size = word[8] * 1024
    return Superblock(
        version=f"0.{word[2]}",
        uuid=":".join(f"{word[index]:08x}" for index in (5, 13, 14, 15)),
        name="",
        level=_level(level),
        layout=_layout(level, word[64]),
        chunk_size=word[65],
        devices=_devices(word[10]),
        member_size=size,
        events=word[39] | word[40] << 32,
        number=word[992],
        member_uuid=None,
        roles=roles,
        is_clean=is_clean,
        resync_at=None if is_clean or level in {0, -1} else word[43] * SECTOR if same else 0,
        reshape_at=_u64(block, 44 * 4) * SECTOR if word[2] > 90 else None,
        data_size=((volume.size // SECTOR & ~127) - 128) * SECTOR,
        preferred=word[11],
    )


def _checksum_1(block: bytes) -> int:
    """calc_sb_1_csum() of drivers/md/md.c: a sum of words, the checksum itself counted as 0."""
    whole = block[:216] + bytes(4) + block[220:]
    total: int = sum(struct.unpack_from(f"<{len(whole) // 4}I", whole))
    if len(whole) % 4:
        total += struct.unpack_from("<H", whole, len(whole) - 2)[0]
    return ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF


def _bad_blocks(volume: Volume, block: bytes, shift: int, length: int, offset: int) -> int:
    """How many ranges the list of bad blocks has: 54 bits where, 10 bits how many."""
    sector = _u64(block, 144) + offset
    if sector < 0 or not 0 < length <= 512 or shift > 32:
        return 0
    listed = volume.read(sector * SECTOR, length * SECTOR)
    entries: tuple[int, ...] = struct.unpack_from(f"<{len(listed) // 8}Q", listed)
    return entries.index(_ALL) if _ALL in entries else len(entries)


def _role(number: int) -> int | str:
    return {_SPARE: "spare", _FAULTY: "faulty", _JOURNAL_ROLE: "journal"}.get(number, number)


def _level(number: int) -> str:
    if number not in _LEVELS:
        raise BadSuperblock(f"it says that the array has the level {number}")
    return _LEVELS[number]


def _devices(number: int) -> int:
    if not 0 < number <= MAX_DEVICES:
        raise BadSuperblock(f"it says that the array has {number} devices")
    return number


def _layout(level: int, layout: int) -> str | None:
    if level in {5, 6}:
        return _PARITY.get(layout, str(layout))
    if level != 10:
        return None
    near, far, offset = layout & 0xFF, layout >> 8 & 0xFF, layout & 0x10000
    words = [f"near={near}"] if near > 1 or far == 1 else []
    if far > 1:
        words.append(f"{'offset' if offset else 'far'}={far}")
    return ", ".join(words) or str(layout)


def _bytes(sectors: int) -> int:
    return min(sectors * SECTOR, MAX_BYTES)


def _u64(block: bytes, offset: int) -> int:
    return int.from_bytes(block[offset : offset + 8], "little")


def _grouped(digits: str) -> str:
    """As mdadm writes it: four groups of eight."""
    return ":".join(digits[index : index + 8] for index in range(0, 32, 8))
