"""The parent locator of a differencing VHDX ([MS-VHDX] 2.6.2.6); QEMU does not read it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from uuid import UUID

from images.errors import MalformedImage, Unsupported
from images.evidence import Source, read_exactly
from images.parent_hint import ParentHint, utf16
from images.vhdx_region import MIB, Region

_VHDX_PARENT = UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")
_HEADER = struct.Struct("<16sHH")
_ENTRY = struct.Struct("<IIHH")
# Five are defined.
_MAX_ENTRIES = 32
_PATHS = ("relative_path", "volume_path", "absolute_win32_path")
_GUID = re.compile(r"\{([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\}")


@dataclass(frozen=True, slots=True)
class ParentLocator:
    """The parent is the image whose `data_write_uuid` is `linkage`, or `linkage2` after a merge
    that was interrupted. The paths are in the order of preference.
    """

    linkage: UUID
    linkage2: UUID | None
    untrusted_paths: tuple[ParentHint, ...]


def parse_locator(source: Source, item: Region) -> ParentLocator:
    """Read and check the item. Raises MalformedImage, or Unsupported for another kind of parent."""
    if not _HEADER.size <= item.length <= MIB:
        raise _bad(source, f"{item.length} bytes are not possible")
    data = read_exactly(source, item.offset, item.length, "the parent locator")
    kind, _, count = _HEADER.unpack_from(data)
    if kind != _VHDX_PARENT.bytes_le:
        raise Unsupported(
            f"has a parent of a kind that is not known ({UUID(bytes_le=kind)})",
            path=source.path,
            hint="merge it with its parent where both can be trusted, and name the result",
        )
    values = _values(source, data, count)
    linkage = _linkage(source, values, "parent_linkage")
    if linkage is None:
        raise _bad(source, "it does not say which image the parent is")
    return ParentLocator(
        linkage=linkage,
        linkage2=_linkage(source, values, "parent_linkage2"),
        untrusted_paths=tuple(ParentHint(key, values[key]) for key in _PATHS if values.get(key)),
    )


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged VHDX parent locator: {message}",
        path=source.path,
        hint="compare the file with the original",
    )


def _values(source: Source, data: bytes, count: int) -> dict[str, str]:
    if count > _MAX_ENTRIES or _HEADER.size + count * _ENTRY.size > len(data):
        raise _bad(source, f"{count} entries are not possible")
    found: dict[str, str] = {}
    area = data[_HEADER.size : _HEADER.size + count * _ENTRY.size]
    for key_at, value_at, key_length, value_length in _ENTRY.iter_unpack(area):
        if max(key_at + key_length, value_at + value_length) > len(data):
            raise _bad(source, "an entry does not lie in it")
        key = utf16(data[key_at : key_at + key_length], "little")
        if key in found:
            raise _bad(source, "an entry is there twice")
        found[key] = utf16(data[value_at : value_at + value_length], "little")
    return found


def _linkage(source: Source, values: dict[str, str], key: str) -> UUID | None:
    if key not in values:
        return None
    match = _GUID.fullmatch(values[key])
    if match is None:
        raise _bad(source, f"{key} is not a GUID")
    # Hyper-V writes zeroes for "none".
    linkage = UUID(match[1])
    return linkage if linkage.int else None
