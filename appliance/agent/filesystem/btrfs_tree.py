"""The trees of btrfs, read from the device without mounting: chunks, nodes, and search by key.

Source: Linux include/uapi/linux/btrfs_tree.h and the btrfs documentation, "On-disk format"; little
endian. Every step down a tree must go to a lower level, so each walk ends.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.agent.filesystem.reading import KIB, BadSuperblock, Block, Volume, power_of_two

SUPERBLOCK = 64 * KIB
MAX_SYSTEM_CHUNKS = 2048
HEADER, ITEM, POINTER, KEY = 101, 25, 33, 17
CHUNK_ITEM = 228
MAX_LEVEL = 7
MAX_CHUNKS = 65536
STRIPED = 1 << 3 | 1 << 6 | 1 << 7 | 1 << 8
"""RAID0, RAID10, RAID5 and RAID6: a chunk's bytes are spread over its stripes."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What the items of a tree are sorted by."""

    objectid: int
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """`length` bytes at `logical`, which are at `physical` of this device; None: elsewhere."""

    logical: int
    length: int
    physical: int | None


class Trees:
    """The trees of the file system on one device. Raises BadSuperblock, as all of its methods."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        block = volume.block(SUPERBLOCK, 4096, "little")
        if block.raw(64, 8) != b"_BHRfS_M":
            raise BadSuperblock("it does not have the magic number of btrfs")
        self._node_size = power_of_two(block.u32(148), 4096, 65536, "the node size")
        self._device = block.u64(201)
        self.root = block.u64(80)
        self._chunks: list[Chunk] = []
        self._read_system_chunks(block)
        chunks = []
        for key, item in self.items(block.u64(88), Key(256, CHUNK_ITEM, 0)):
            if key.type == CHUNK_ITEM:
                chunks.append(self._chunk(key.offset, item))
            if len(chunks) > MAX_CHUNKS:
                raise BadSuperblock("it has more chunks than are read")
        self._keep(chunks)

    def items(self, root: int, first: Key) -> Iterator[tuple[Key, Block]]:
        """The items from `first` on, in order, of the tree whose root node is at `root`."""
        yield from self._walk(root, first, MAX_LEVEL + 1)

    def _walk(self, logical: int, first: Key, below: int) -> Iterator[tuple[Key, Block]]:
        node = self._node(logical)
        level, count = node.u8(100), node.u32(96)
        if level >= below:
            raise BadSuperblock("a tree of it does not end")
        size = POINTER if level else ITEM
        if HEADER + count * size > len(node):
            raise BadSuperblock("a node of it holds more than it can")
        keys = [_key(node, HEADER + index * size) for index in range(count)]
        start = max(0, bisect_right(keys, first) - 1)
        for index in range(start, count):
            at = HEADER + index * size
            if level:
                yield from self._walk(node.u64(at + KEY), first, level)
            elif keys[index] >= first:
                data = node.raw(HEADER + node.u32(at + KEY), node.u32(at + KEY + 4))
                yield keys[index], Block(data, "little")

    def _node(self, logical: int) -> Block:
        node = self._volume.block(self._physical(logical), self._node_size, "little")
        if node.u64(48) != logical:
            raise BadSuperblock("a node of it is not where it is said to be")
        return node

    def _physical(self, logical: int) -> int:
        index = bisect_right(self._chunks, logical, key=lambda chunk: chunk.logical) - 1
        chunk = self._chunks[index] if index >= 0 else None
        if chunk is None or logical >= chunk.logical + chunk.length:
            raise BadSuperblock("a node of it lies outside of all chunks")
        if chunk.physical is None:
            raise BadSuperblock("a node of it lies on another device")
        return chunk.physical + logical - chunk.logical

    def _read_system_chunks(self, block: Block) -> None:
        size, at = block.u32(160), 811
        if size > MAX_SYSTEM_CHUNKS:
            raise BadSuperblock("its list of system chunks is too long")
        end, chunks = at + size, []
        while at < end:
            key = _key(block, at)
            stripes = block.u16(at + KEY + 44)
            length = 48 + stripes * 32
            chunks.append(self._chunk(key.offset, Block(block.raw(at + KEY, length), "little")))
            at += KEY + length
        self._keep(chunks)

    def _chunk(self, logical: int, item: Block) -> Chunk:
        stripes = item.u16(44)
        places = [
            item.u64(48 + index * 32 + 8)
            for index in range(stripes)
            if item.u64(48 + index * 32) == self._device
        ]
        spread = item.u64(24) & STRIPED and stripes > 1
        return Chunk(logical, item.u64(0), places[0] if places and not spread else None)

    def _keep(self, chunks: list[Chunk]) -> None:
        self._chunks = sorted(chunks, key=lambda chunk: chunk.logical)


def _key(block: Block, at: int) -> Key:
    return Key(block.u64(at), block.u8(at + 8), block.u64(at + 9))
