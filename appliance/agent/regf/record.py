"""The records of a registry hive: base block, key (nk) and value (vk), parsed with bounds.

Source: github.com/msuhanov/regf, as in hive.py.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from appliance.layer import MAX_TEXT

_REGF_HEAD = struct.Struct("<4sIIQ6I")
_NK_HEAD = struct.Struct("<2sHQ15IHH")
_VK_HEAD = struct.Struct("<2sHIIIHH")
_NAME_IS_ASCII_KEY, _NAME_IS_ASCII_VALUE = 0x20, 0x01
_IS_PREDEFINED_HANDLE = 0x40
_IS_INLINE = 1 << 31


class HiveError(Exception):
    """A hive, or a record in it, cannot be read."""


@dataclass(frozen=True, slots=True)
class BaseBlock:
    """The head of a hive. `root` and `bins_size` are bytes, counted from byte 4096.

    `is_dirty`: a write was begun and not ended, so what was to be written is in the logs.
    """

    minor_version: int
    root: int
    bins_size: int
    is_dirty: bool
    has_good_checksum: bool


@dataclass(frozen=True, slots=True)
class Key:
    """A key; `written` is a FILETIME. The lists of subkeys and values are at `…_at`."""

    name: str
    at: int
    written: int
    subkeys: int
    subkeys_at: int
    values: int
    values_at: int


@dataclass(frozen=True, slots=True)
class Value:
    """A value: its data are `inline`, or `size` bytes in the record at `data_at`."""

    name: str
    type: int
    size: int
    data_at: int
    inline: bytes | None


def parse_base_block(untrusted_block: bytes) -> BaseBlock:
    """Raises HiveError where it is none, or not as Windows NT 4 and later write it."""
    if len(untrusted_block) < 4096 or untrusted_block[:4] != b"regf":
        raise HiveError("it does not begin like a registry hive")
    head = _REGF_HEAD.unpack_from(untrusted_block)
    _, primary, secondary, _, major, minor, file_type, file_format, root, bins_size = head
    if (major, file_type, file_format) != (1, 0, 1) or not 3 <= minor <= 6:
        raise HiveError(f"version {major}.{minor} of the format, or a log instead of a hive")
    good = has_good_checksum(untrusted_block)
    return BaseBlock(minor, root, bins_size, primary != secondary or not good, good)


def has_good_checksum(untrusted_block: bytes) -> bool:
    """Whether the first 512 bytes of a base block fit to their checksum."""
    return sealed(untrusted_block)[508:512] == untrusted_block[508:512]


def sealed(block: bytes) -> bytes:
    """The block with the checksum that its first 508 bytes have."""
    checksum = 0
    for (word,) in struct.iter_unpack("<I", block[:508]):
        checksum ^= word
    # Windows keeps these two results for itself, as ReactOS does (sdk/lib/cmlib/hiveinit.c).
    checksum = {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(checksum, checksum)
    return block[:508] + struct.pack("<I", checksum) + block[512:]


def parse_key(untrusted_cell: bytes, at: int) -> Key:
    """Raises HiveError where it is none."""
    if len(untrusted_cell) < _NK_HEAD.size or untrusted_cell[:2] != b"nk":
        raise HiveError(f"there is no key at {at:#x}")
    head = _NK_HEAD.unpack_from(untrusted_cell)
    flags, written, subkeys, subkeys_at, values, values_at = (head[i] for i in (1, 2, 5, 7, 9, 10))
    if flags & _IS_PREDEFINED_HANDLE:  # then the number of values is that of the handle
        values = 0
    name = _name(untrusted_cell[_NK_HEAD.size :], head[18], bool(flags & _NAME_IS_ASCII_KEY))
    return Key(name, at, written, subkeys, subkeys_at, values, values_at)


def parse_value(untrusted_cell: bytes) -> Value:
    """Raises HiveError where it is none."""
    if len(untrusted_cell) < _VK_HEAD.size or untrusted_cell[:2] != b"vk":
        raise HiveError("there is something else where a value should be")
    _, length, size, data_at, kind, flags, _ = _VK_HEAD.unpack_from(untrusted_cell)
    name = _name(untrusted_cell[_VK_HEAD.size :], length, bool(flags & _NAME_IS_ASCII_VALUE))
    inline = None
    if size & _IS_INLINE:
        size = min(size & ~_IS_INLINE, 4)
        inline = untrusted_cell[8 : 8 + size]
    return Value(name, kind, size, data_at, inline)


def _name(untrusted_bytes: bytes, length: int, is_ascii: bool) -> str:
    if length > len(untrusted_bytes):
        raise HiveError("a name leaves its record")
    encoding = "latin-1" if is_ascii else "utf-16-le"
    return untrusted_bytes[:length].decode(encoding, "replace")[:MAX_TEXT]
