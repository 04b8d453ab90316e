"""APFS: the container of the latest valid checkpoint, and its volumes.

Source: Apple's "Apple File System Reference" of 2020-06-22 (nx_superblock_t, omap_phys_t,
btree_node_phys_t, apfs_superblock_t); little endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from appliance.agent.filesystem.account import Usage, account
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, power_of_two

MAX_CHECKPOINTS = 4096
MAX_VOLUMES = 100
MAX_DEPTH = 12
NODE_HEADER, NODE_INFO = 56, 40
IS_ROOT, IS_LEAF, IS_FIXED = 1, 2, 4
UNENCRYPTED = 1
FRAGMENTED = 1 << 31


@dataclass(frozen=True, slots=True)
class ApfsVolume:
    """One volume; `number` counts from 1 in the order of the container, as libfsapfs does."""

    number: int
    name: bytes
    uuid: str
    used: int
    encrypted: bool
    snapshots: int


class Container:
    """The container on a volume. Raises BadSuperblock, as all of its methods."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        first = volume.block(0, 4096, "little")
        if first.raw(32, 4) != b"NXSB":
            raise BadSuperblock("it does not have the magic number of APFS")
        self.block_size = power_of_two(first.u32(36), 4096, 65536, "the block size")
        self._block = self._latest(first)
        self.blocks = self._block.u64(40)

    def volumes(self) -> list[ApfsVolume]:
        """Those that are there, in the container's order."""
        numbers = [self._block.u64(184 + 8 * index) for index in range(MAX_VOLUMES)]
        found: list[ApfsVolume] = []
        for number in numbers:
            if number:
                found.append(self._described(len(found) + 1, self._find(number)))
        return found

    def _at(self, address: int) -> Block:
        return self._volume.block(address * self.block_size, self.block_size, "little")

    def _latest(self, first: Block) -> Block:
        """Block 0 is only a copy that may be old; the checkpoint area has the latest ones."""
        count, base = first.u32(104), first.u64(112)
        if count & FRAGMENTED or count > MAX_CHECKPOINTS:
            raise BadSuperblock("its area of checkpoints is not in one piece, or too large")
        blocks = [self._at(0), *(self._at(base + index) for index in range(count))]
        valid = [each for each in blocks if each.raw(32, 4) == b"NXSB" and checked(each)]
        if not valid:
            raise BadSuperblock("it has no valid checkpoint")
        return max(valid, key=lambda each: each.u64(16))

    def _find(self, number: int) -> Block:
        """The object of that number, through the container's object map."""
        address, latest = self._at(self._block.u64(160)).u64(48), self._block.u64(16)
        for _ in range(MAX_DEPTH):
            node = self._at(address)
            flags, count = node.u16(32), node.u32(36)
            if not flags & IS_FIXED:
                raise BadSuperblock("its object map is not one")
            keys = NODE_HEADER + node.u16(40) + node.u16(42)
            end = self.block_size - (NODE_INFO if flags & IS_ROOT else 0)
            best = None
            for index in range(min(count, self.block_size // 4)):
                entry = NODE_HEADER + node.u16(40) + 4 * index
                key = keys + node.u16(entry)
                if (node.u64(key), node.u64(key + 8)) <= (number, latest):
                    best = (node.u64(key), end - node.u16(entry + 2))
            if best is None:
                break
            if not flags & IS_LEAF:
                address = node.u64(best[1])
                continue
            if best[0] != number:
                break
            return self._at(node.u64(best[1] + 8))
        raise BadSuperblock("its object map does not have one of its volumes")

    def _described(self, number: int, block: Block) -> ApfsVolume:
        if block.raw(32, 4) != b"APSB":
            raise BadSuperblock("one of its volumes has no magic number")
        return ApfsVolume(
            number=number,
            name=block.raw(704, 256).partition(b"\0")[0],
            uuid=str(UUID(bytes=block.raw(240, 16))),
            used=block.u64(88) * self.block_size,
            encrypted=not block.u64(264) & UNENCRYPTED,
            snapshots=block.u64(216),
        )


def read_apfs(volume: Volume) -> Usage:
    """The size of the container. What is free is kept elsewhere, and not read."""
    container = Container(volume)
    size = container.blocks * container.block_size
    return account(volume, block_size=container.block_size, size=size, free=None)


def checked(block: Block) -> bool:
    """Fletcher's checksum, 64 bits, of all but its own place."""
    low = high = 0
    for at in range(8, len(block), 4):
        low = (low + block.u32(at)) % 0xFFFFFFFF
        high = (high + low) % 0xFFFFFFFF
    first = 0xFFFFFFFF - (low + high) % 0xFFFFFFFF
    second = 0xFFFFFFFF - (low + first) % 0xFFFFFFFF
    return block.u64(0) == second << 32 | first
