"""Writes qcow2 files: an empty overlay on another image, and a whole disk from front to back.

Layout: QEMU's docs/interop/qcow2.txt. A whole disk is, in this order: header, L1 table, all L2
tables, the data, the reference counts. In an overlay the counts come behind the header, since QEMU
goes on from there. A table that is not needed is a hole.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from images.quoting import shown

CLUSTER = 64 << 10
MAX_NAME = 1023
"""Bytes in the name of a backing file (QEMU's own limit)."""

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_LENGTH = 104
_COPIED = 1 << 63
_PER_L2 = CLUSTER // 8
_PER_COUNTS = CLUSTER // 2
_BACKING_FORMAT = 0xE2792ACA


def overlay(size: int, backing: Path | None, backing_format: str) -> bytes:
    """An empty qcow2 of `size` bytes; ValueError where the name of what it stands on is too long.

    Without a name (None) it can be used only by who says what is underneath.
    """
    name = os.fsencode(backing) if backing else b""
    if len(name) > MAX_NAME:
        raise ValueError(f"the path {shown(str(backing))} is too long for a qcow2")
    l1 = _l1_entries(size)
    l1_clusters = max(1, _clusters(l1 * 8))
    used = 3 + l1_clusters
    extensions = b""
    if name:
        form = backing_format.encode()
        extensions = struct.pack(">II", _BACKING_FORMAT, len(form)) + form + bytes(-len(form) % 8)
    extensions += bytes(8)
    head = _header(
        size,
        l1_offset=3 * CLUSTER,
        counts_offset=CLUSTER,
        counts_clusters=1,
        name=(_LENGTH + len(extensions), len(name)) if name else (0, 0),
    )
    first = (head + extensions + name).ljust(CLUSTER, b"\0")
    table = struct.pack(">Q", 2 * CLUSTER).ljust(CLUSTER, b"\0")
    counts = struct.pack(f">{used}H", *([1] * used)).ljust(CLUSTER, b"\0")
    return first + table + counts + bytes(l1_clusters * CLUSTER)


class Qcow2Output:
    """A qcow2 of `size` bytes that is written to `descriptor`, an empty file, front to back."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._fd = descriptor
        self._size = size
        self._l1_entries = _l1_entries(size)
        self._l2_start = CLUSTER * (1 + max(1, _clusters(self._l1_entries * 8)))
        self._next = self._l2_start + self._l1_entries * CLUSTER
        self._pending = bytearray()
        self._at = 0

    def write(self, data: memoryview | bytes) -> None:
        """The next bytes of the disk."""
        self._pending += data
        whole = len(self._pending) // CLUSTER * CLUSTER
        for start in range(0, whole, CLUSTER):
            self._put(bytes(self._pending[start : start + CLUSTER]))
        del self._pending[:whole]

    def skip(self, length: int) -> None:
        """As many zeros, which take no room."""
        begin = min(length, -len(self._pending) % CLUSTER)
        self.write(bytes(begin))
        whole = (length - begin) // CLUSTER * CLUSTER
        self._at += whole
        self.write(bytes(length - begin - whole))

    def finish(self) -> None:
        """Write what is left, the reference counts, and the header last of all."""
        if self._pending:
            self._put(bytes(self._pending).ljust(CLUSTER, b"\0"))
        entries = [self._l2_start + index * CLUSTER | _COPIED for index in range(self._l1_entries)]
        _write(self._fd, struct.pack(f">{len(entries)}Q", *entries), CLUSTER)
        table_offset, table_clusters = self._counts()
        head = _header(
            self._size,
            l1_offset=CLUSTER,
            counts_offset=table_offset,
            counts_clusters=table_clusters,
        )
        _write(self._fd, head, 0)

    def _put(self, cluster: bytes) -> None:
        index, self._at = self._at // CLUSTER, self._at + CLUSTER
        if cluster.count(0) == CLUSTER:
            return
        _write(self._fd, cluster, self._next)
        entry = struct.pack(">Q", self._next | _COPIED)
        _write(self._fd, entry, self._l2_start + index * 8)
        self._next += CLUSTER

    def _counts(self) -> tuple[int, int]:
        """(offset, clusters) of the table of reference counts: everything is used once, so they
        count themselves too."""
        used = self._next // CLUSTER
        blocks = tables = 0
        while True:
            need = _ceil(used + blocks + tables, _PER_COUNTS)
            if (blocks, tables) == (need, _clusters(need * 8)):
                break
            blocks, tables = need, _clusters(need * 8)
        total = used + blocks + tables
        start = self._next
        for block in range(blocks):
            count = min(_PER_COUNTS, total - block * _PER_COUNTS)
            _write(self._fd, (b"\0\1" * count).ljust(CLUSTER, b"\0"), start + block * CLUSTER)
        table = struct.pack(f">{blocks}Q", *(start + block * CLUSTER for block in range(blocks)))
        offset = start + blocks * CLUSTER
        _write(self._fd, table.ljust(tables * CLUSTER, b"\0"), offset)
        return offset, tables


def _header(
    size: int,
    *,
    l1_offset: int,
    counts_offset: int,
    counts_clusters: int,
    name: tuple[int, int] = (0, 0),
) -> bytes:
    return _HEADER.pack(
        *(b"QFI\xfb", 3, *name, 16, size, 0, _l1_entries(size), l1_offset),
        *(counts_offset, counts_clusters, 0, 0, 0, 0, 0, 4, _LENGTH),
    )


def _l1_entries(size: int) -> int:
    return _ceil(size, CLUSTER * _PER_L2)


def _clusters(length: int) -> int:
    return _ceil(length, CLUSTER)


def _ceil(number: int, unit: int) -> int:
    return -(-number // unit)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    """All of it. Raises OSError."""
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done
