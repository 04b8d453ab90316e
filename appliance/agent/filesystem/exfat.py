"""exFAT: the boot sector and the allocation bitmap.

Source: Microsoft's "exFAT file system specification", sections 3.1, 6 and 7.1; little endian.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from appliance.agent.filesystem.account import (
    Problem,
    Usage,
    account,
    counted,
    errors_recorded,
    not_clean,
)
from appliance.agent.filesystem.reading import MAX_READ, BadSuperblock, Block, Volume, shifted

ENTRY = 32
BITMAP_ENTRY = 0x81
MAX_ROOT_CLUSTERS = 256
MAX_ROOT_BYTES = MAX_READ
"""How much of the root directory is searched; every driver puts the bitmap at its start."""

SECOND_TABLE, DIRTY, MEDIA_FAILURE = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte sizes and offsets from the boot sector; `clusters` is their number."""

    cluster: int
    clusters: int
    table: int
    heap: int
    second_table: bool

    def offset(self, cluster: int) -> int:
        """Where a cluster is; they are numbered from 2."""
        if not 2 <= cluster < self.clusters + 2:
            raise BadSuperblock(f"there is no cluster {cluster}")
        return self.heap + (cluster - 2) * self.cluster


def read_exfat(volume: Volume) -> Usage:
    """Size of the volume; used is what the active allocation bitmap marks, and all overhead."""
    boot = volume.block(0, 512, "little")
    if boot.raw(3, 8) != b"EXFAT   ":
        raise BadSuperblock("it does not have the name of exFAT")
    sector = shifted(boot.u8(108), 9, 12, "the sector size")
    cluster = sector * shifted(
        boot.u8(109), 0, 25 - boot.u8(108), "the number of sectors in a cluster"
    )
    layout = Layout(
        cluster=cluster,
        clusters=boot.u32(92),
        table=boot.u32(80) * sector,
        heap=boot.u32(88) * sector,
        second_table=bool(boot.u16(106) & SECOND_TABLE),
    )
    problems = _problems(boot)
    root = boot.u32(96)
    free = counted(lambda: layout.clusters - _used(volume, layout, root), problems)
    return account(
        volume,
        block_size=cluster,
        size=boot.u64(72) * sector,
        free=None if free is None else free * cluster,
        problems=problems,
    )


def _problems(boot: Block) -> list[Problem]:
    problems = []
    if boot.u16(106) & DIRTY:
        problems.append(not_clean())
    if boot.u16(106) & MEDIA_FAILURE:
        message = "Errors while reading or writing the disk were recorded in the file system."
        problems.append(errors_recorded(message))
    return problems


def _used(volume: Volume, layout: Layout, root: int) -> int:
    """In clusters. The bitmap is taken to be contiguous, as the kernel takes it."""
    for entry in _root_entries(volume, layout, root):
        if entry.u8(0) == BITMAP_ENTRY and bool(entry.u8(1) & 1) == layout.second_table:
            if entry.u64(24) * 8 < layout.clusters:
                raise BadSuperblock("the bitmap of clusters is incomplete")
            return volume.set_bits(layout.offset(entry.u32(20)), layout.clusters)
    raise BadSuperblock("it has no bitmap of clusters")


def _root_entries(volume: Volume, layout: Layout, cluster: int) -> Iterator[Block]:
    """Entries of the root directory up to its end mark or the limits; a loop meets those too."""
    left = MAX_ROOT_BYTES
    for _ in range(MAX_ROOT_CLUSTERS):
        start = layout.offset(cluster)
        size = min(layout.cluster, left)
        block = volume.block(start, size, "little")
        for at in range(0, size, ENTRY):
            if block.u8(at) == 0:
                return
            if block.u8(at) == BITMAP_ENTRY:
                yield Block(block.raw(at, ENTRY), "little")
        left -= size
        if left <= 0 or size < layout.cluster:
            return
        cluster = volume.block(layout.table + cluster * 4, 4, "little").u32(0)
        if not 2 <= cluster < layout.clusters + 2:
            return
