"""The catalog of the shadow copies of an NTFS volume.

Source: libvshadow's "Volume Shadow Snapshot (VSS) format", by Joachim Metz; little endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from appliance.agent.filesystem.reading import KIB, BadSuperblock, Block, Volume

HEADER = 0x1E00
IDENTIFIER = UUID("3808876b-c176-4e48-b7ae-04046e6cc752").bytes_le
BLOCK = 16 * KIB
ENTRY = 128
VOLUME_HEADER, CATALOG = 1, 2
COPY, STORE = 2, 3
MAX_BLOCKS = 64
MAX_COPIES = 512
"""Windows keeps 64 of a volume."""

EPOCH = 11_644_473_600
"""Seconds from 1601, where FILETIME begins, to 1970."""


@dataclass(frozen=True, slots=True)
class ShadowCopy:
    """`id` is what Windows calls the shadow copy, or its store where that is not to be read;
    `created` is in seconds since the epoch."""

    id: str
    created: int
    order: int


def read_shadow_copies(volume: Volume) -> list[ShadowCopy]:
    """The shadow copies from the oldest on, which is how libvshadow numbers them.

    Raises BadSuperblock where there is a catalog that makes no sense.
    """
    header = volume.block(HEADER, 512, "little")
    if header.raw(0, 16) != IDENTIFIER or header.u32(20) != VOLUME_HEADER:
        return []
    times: dict[bytes, int] = {}
    places: dict[bytes, int] = {}
    offset = header.u64(48)
    for _ in range(MAX_BLOCKS):
        if not offset:
            return _sorted(volume, times, places)
        block = volume.block(offset, BLOCK, "little")
        if block.raw(0, 16) != IDENTIFIER or block.u32(20) != CATALOG:
            raise BadSuperblock("the catalog of its shadow copies is damaged")
        for at in range(ENTRY, BLOCK, ENTRY):
            store = block.raw(at + 16, 16)
            if block.u64(at) == COPY:
                times[store] = block.u64(at + 48)
            elif block.u64(at) == STORE:
                places[store] = block.u64(at + 32)
        if len(times) > MAX_COPIES:
            break
        offset = block.u64(40)
    raise BadSuperblock("the catalog of its shadow copies does not end")


def _sorted(volume: Volume, times: dict[bytes, int], places: dict[bytes, int]) -> list[ShadowCopy]:
    copies = [
        ShadowCopy(_identity(volume, store, places), time // 10**7 - EPOCH, time)
        for store, time in times.items()
    ]
    return sorted(copies, key=lambda copy: copy.order)


def _identity(volume: Volume, store: bytes, places: dict[bytes, int]) -> str:
    """From the store's own header; the catalog has only the name of the store."""
    try:
        block: Block = volume.block(places[store], ENTRY + 64, "little")
    except (KeyError, BadSuperblock):
        return str(UUID(bytes_le=store))
    if block.raw(0, 16) != IDENTIFIER:
        return str(UUID(bytes_le=store))
    return str(UUID(bytes_le=block.raw(ENTRY + 16, 16)))
