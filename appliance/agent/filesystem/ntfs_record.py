"""File records of NTFS: fixups, attributes and data runs.

Source: the NTFS documentation of the Linux-NTFS project; Linux fs/ntfs3/ntfs.h (struct MFT_REC,
struct ATTRIB) and fs/ntfs3/run.c (run_unpack); little endian.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.agent.filesystem.reading import BadSuperblock, Block

STRIDE = 512
"""Bytes that each fixup protects, whatever the sector size."""

VOLUME_INFORMATION = 0x70
DATA = 0x80
END = 0xFFFFFFFF

MAX_CLUSTER = 2**54
"""Highest cluster number; at the least cluster size, 512 bytes, the volume ends at 2^63."""

Record = Block


@dataclass(frozen=True, slots=True)
class Run:
    """A contiguous part of a file in clusters; `start` is None for a hole."""

    start: int | None
    clusters: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a file record, with its header."""

    block: Block

    def value(self) -> Block:
        """What a resident attribute holds."""
        if self.block.u8(8):
            raise BadSuperblock("a resident attribute is not resident")
        return Block(self.block.raw(self.block.u16(20), self.block.u32(16)), "little")


def file_record(untrusted_record: bytes) -> Record:
    """Check the magic and undo the fixups: the last two bytes of each 512 are kept elsewhere."""
    block = Block(untrusted_record, "little")
    if block.raw(0, 4) != b"FILE":
        raise BadSuperblock("a system file's record has no magic number")
    array, count = block.u16(4), block.u16(6)
    if count != len(untrusted_record) // STRIDE + 1:
        raise BadSuperblock("a system file's record has a wrong number of fixups")
    mark = block.raw(array, 2)
    fixed = bytearray(untrusted_record)
    for index in range(1, count):
        end = index * STRIDE
        if block.raw(end - 2, 2) != mark:
            raise BadSuperblock("a system file's record was written only in part")
        fixed[end - 2 : end] = block.raw(array + index * 2, 2)
    return Block(bytes(fixed), "little")


def find_attribute(record: Record, kind: int) -> Attribute:
    """The unnamed attribute of this kind. Each step goes forward, so the walk ends."""
    offset = record.u16(20)
    while (found := record.u32(offset)) != END:
        length = record.u32(offset + 4)
        if length < 24 or length % 8:
            raise BadSuperblock(f"an attribute of {length} bytes is impossible")
        if found == kind and record.u8(offset + 9) == 0:
            return Attribute(Block(record.raw(offset, length), "little"))
        offset += length
    raise BadSuperblock(f"a system file lacks its attribute {kind:#x}")


def data_runs(attribute: Attribute) -> list[Run]:
    """The runs of a non-resident attribute, all of which its one record must hold."""
    block = attribute.block
    if not block.u8(8) or block.u64(16):
        raise BadSuperblock("a system file is resident or starts in another record")
    offset, start = block.u16(32), 0
    runs: list[Run] = []
    while (sizes := block.u8(offset)) != 0:
        length_size, start_size = sizes & 0xF, sizes >> 4
        if not 1 <= length_size <= 8 or start_size > 8:
            raise BadSuperblock("a data run has no possible length")
        clusters = int.from_bytes(block.raw(offset + 1, length_size), "little", signed=True)
        untrusted_step = block.raw(offset + 1 + length_size, start_size)
        start += int.from_bytes(untrusted_step, "little", signed=True)
        if not 0 < clusters <= MAX_CLUSTER or not 0 <= start <= MAX_CLUSTER:
            raise BadSuperblock("a data run lies outside of the volume")
        runs.append(Run(start if start_size else None, clusters))
        offset += 1 + length_size + start_size
    return runs
