"""The internal snapshots of a qcow2 image (docs/interop/qcow2.txt, "Snapshots")."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from images.errors import MalformedImage, Unreadable
from images.evidence import Source, read_exactly
from images.qcow2_header import Qcow2Header
from images.quoting import shown
from images.raw import MAX_VIRTUAL_SIZE, SECTOR

_ENTRY = struct.Struct(">QIHHIIQII")
_MAX_TABLE = 8 << 20
_MAX_L1_ENTRIES = (32 << 20) // 8
# In the header: size, then (after crypt_method) l1_size and l1_table_offset.
_SIZE_AT, _L1_SIZE_AT, _L1_OFFSET_AT, _SNAPSHOTS_AT = 24, 36, 40, 60
_AUTOCLEAR_AT, _V3_LENGTH = 88, 104


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Sizes and offsets in bytes; `created` in seconds since the epoch. Names are the image's."""

    id: bytes
    name: bytes
    created: int
    disk_size: int
    state_size: int
    l1_offset: int
    l1_entries: int


def read_snapshots(source: Source, header: Qcow2Header) -> tuple[Snapshot, ...]:
    """All entries of the snapshot table. Raises MalformedImage."""
    length = min(_MAX_TABLE, max(0, source.size - header.snapshots_offset))
    table = source.read(header.snapshots_offset, length) if header.snapshots else b""
    found, offset = [], 0
    for _ in range(header.snapshots):
        if offset + _ENTRY.size > len(table):
            raise _bad(source, "its snapshot table ends too early, or is larger than 8 MiB")
        snapshot, offset = _entry(source, header, table, offset)
        found.append(snapshot)
    return tuple(found)


def _entry(source: Source, header: Qcow2Header, table: bytes, at: int) -> tuple[Snapshot, int]:
    l1_offset, l1_entries, id_length, name_length, seconds, _, _, state, extra = _ENTRY.unpack_from(
        table, at
    )
    start = at + _ENTRY.size
    ids = start + extra
    end = ids + id_length + name_length
    if extra > 1024 or end > len(table):
        raise _bad(source, "an entry of its snapshot table leaves the table")
    disk_size = header.virtual_size
    if extra >= 8:
        state = struct.unpack_from(">Q", table, start)[0]
    if extra >= 16:
        disk_size = struct.unpack_from(">Q", table, start + 8)[0]
    snapshot = Snapshot(
        id=table[ids : ids + id_length],
        name=table[ids + id_length : end],
        created=seconds,
        disk_size=disk_size,
        state_size=state,
        l1_offset=l1_offset,
        l1_entries=l1_entries,
    )
    return snapshot, end + -(end - at) % 8


def chosen(source: Source, snapshots: tuple[Snapshot, ...], wanted: str) -> Snapshot:
    """The snapshot with that name, or else with that ID. Raises Unreadable."""
    name = wanted.encode(errors="surrogateescape")
    for matches in (
        [each for each in snapshots if each.name == name],
        [each for each in snapshots if each.id == name],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise Unreadable(
                f'has {len(matches)} snapshots named "{shown(wanted)}"',
                path=source.path,
                hint="give the ID instead; `forensic info` lists them",
            )
    raise Unreadable(
        f'has no internal snapshot "{shown(wanted)}"',
        path=source.path,
        hint="`forensic info` lists them",
    )


def seen_by(source: Source, header: Qcow2Header, snapshot: Snapshot) -> bytes:
    """The first cluster with the snapshot's table and size in the header: QEMU reads it so.

    That is what qcow2_snapshot_load_tmp() does in memory; no file is written.
    """
    _check(source, header, snapshot)
    cluster = bytearray(read_exactly(source, 0, header.cluster_size, "the first cluster"))
    struct.pack_into(">Q", cluster, _SIZE_AT, snapshot.disk_size)
    struct.pack_into(">I", cluster, _L1_SIZE_AT, snapshot.l1_entries)
    struct.pack_into(">Q", cluster, _L1_OFFSET_AT, snapshot.l1_offset)
    struct.pack_into(">I", cluster, _SNAPSHOTS_AT, 0)
    if header.version == 3:
        # Bitmaps and "the data file is the disk" describe the current state only.
        struct.pack_into(">Q", cluster, _AUTOCLEAR_AT, 0)
    return bytes(cluster)


def _check(source: Source, header: Qcow2Header, snapshot: Snapshot) -> None:
    size, entries, offset = snapshot.disk_size, snapshot.l1_entries, snapshot.l1_offset
    if not 0 < size <= MAX_VIRTUAL_SIZE or size % SECTOR:
        raise _bad(source, f"its snapshot has an impossible size of {size} bytes")
    per_table = header.cluster_size // (16 if header.extended_l2 else 8)
    if entries < -(-size // (header.cluster_size * per_table)) or entries > _MAX_L1_ENTRIES:
        raise _bad(source, f"its snapshot has an L1 table of {entries} entries")
    inside = header.cluster_size <= offset <= source.size - entries * 8
    if offset % header.cluster_size or not inside:
        raise _bad(source, f"its snapshot has its L1 table at {offset}")


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(message, path=source.path, hint="compare the file with the original")
