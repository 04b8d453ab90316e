"""The header of a qcow2 image, as QEMU's docs/interop/qcow2.txt defines it.

Everything is read with bounds and checked against the file before any other program sees it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from images.errors import MalformedImage, PolicyViolation, Unsupported
from images.evidence import Source, read_exactly, truncated
from images.qcow2_refcounts import highest_allocated_cluster
from images.raw import MAX_VIRTUAL_SIZE, SECTOR

MAGIC = b"QFI\xfb"
# The same limits as QEMU's block/qcow2.h.
_MAX_L1_BYTES = 32 << 20
_MAX_REFTABLE_BYTES = 8 << 20
_MAX_SNAPSHOTS = 65536
_SNAPSHOT_MIN_BYTES = 40

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED_L2

_END_EXTENSION = 0
_DATA_FILE_EXTENSION = 0x44415441
_CRYPTO_EXTENSION = 0x0537BE77


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """Checked values; offsets and sizes in bytes."""

    version: int
    virtual_size: int
    cluster_size: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    refcount_order: int
    snapshots: int
    zstd: bool
    extended_l2: bool
    dirty: bool
    corrupt: bool


@dataclass(frozen=True, slots=True)
class _Untrusted:
    """The header's fields as they are written in the file."""

    version: int
    backing_offset: int
    backing_size: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_size: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int = 0
    refcount_order: int = 4
    header_length: int = _V2.size
    compression: int = 0

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits


def parse(source: Source) -> Qcow2Header:
    """Read and check the header. Raises MalformedImage, PolicyViolation or Unsupported."""
    raw = _read_fields(source)
    _check_features(source, raw)
    _check_geometry(source, raw)
    _check_extensions(source, raw)
    _check_tables(source, raw)
    header = Qcow2Header(
        version=raw.version,
        virtual_size=raw.size,
        cluster_size=raw.cluster_size,
        l1_entries=raw.l1_size,
        l1_offset=raw.l1_offset,
        refcount_offset=raw.refcount_offset,
        refcount_clusters=raw.refcount_clusters,
        refcount_order=raw.refcount_order,
        snapshots=raw.snapshots,
        zstd=raw.compression == 1,
        extended_l2=bool(raw.incompatible & _EXTENDED_L2),
        dirty=bool(raw.incompatible & _DIRTY),
        corrupt=bool(raw.incompatible & _CORRUPT),
    )
    if not header.dirty and not header.corrupt:
        _check_end_of_data(source, header)
    return header


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged qcow2 header: {message}",
        path=source.path,
        hint="compare the file with the original; qemu-img check may tell more about a copy",
    )


def _read_fields(source: Source) -> _Untrusted:
    head = read_exactly(source, 0, _V2.size, "the qcow2 header")
    magic, version, *fields = _V2.unpack(head)
    if magic != MAGIC:
        raise _bad(source, "the magic number is missing")
    if version not in (2, 3):
        raise Unsupported(
            f"is qcow2 version {version}; only versions 2 and 3 are known", path=source.path
        )
    raw = _Untrusted(version, *fields)
    if version == 2:
        return raw
    more = read_exactly(source, _V2.size, _V3.size, "the qcow2 header")
    incompatible, _, _, refcount_order, header_length = _V3.unpack(more)
    compression = 0
    if header_length > _V2.size + _V3.size:
        compression = read_exactly(source, _V2.size + _V3.size, 1, "the qcow2 header")[0]
    return replace(
        raw,
        incompatible=incompatible,
        refcount_order=refcount_order,
        header_length=header_length,
        compression=compression,
    )


def _check_features(source: Source, raw: _Untrusted) -> None:
    path = source.path
    if raw.incompatible & _DATA_FILE:
        raise PolicyViolation(
            "keeps its data in another file (qcow2 external data file)",
            path=path,
            hint="convert it to one self-contained image where it can be trusted",
        )
    if raw.backing_offset or raw.backing_size:
        raise PolicyViolation(
            "depends on another image (qcow2 backing file)",
            path=path,
            hint="name a self-contained image, for example one flattened by qemu-img convert "
            "where it can be trusted",
        )
    if raw.crypt_method:
        raise Unsupported(
            f"is encrypted by qcow2 itself (method {raw.crypt_method})",
            path=path,
            hint="decrypt it with qemu-img convert first; LUKS inside an image is no problem",
        )
    unknown = raw.incompatible & ~_KNOWN
    if unknown:
        raise Unsupported(f"needs qcow2 features that are not known (bits {unknown:#x})", path=path)
    _check_compression(source, raw)


def _check_compression(source: Source, raw: _Untrusted) -> None:
    if raw.compression > 1:
        raise Unsupported(
            f"uses compression type {raw.compression}; only zlib and zstd are known",
            path=source.path,
        )
    if bool(raw.compression) != bool(raw.incompatible & _COMPRESSION):
        raise _bad(source, "the compression type and its feature bit disagree")


def _check_geometry(source: Source, raw: _Untrusted) -> None:
    if not 9 <= raw.cluster_bits <= 21:
        raise _bad(source, f"a cluster of 2^{raw.cluster_bits} bytes is not possible")
    if raw.incompatible & _EXTENDED_L2 and raw.cluster_bits < 14:
        raise _bad(source, "clusters are too small for extended L2 entries")
    minimum = _V2.size + (_V3.size if raw.version == 3 else 0)
    if not minimum <= raw.header_length <= raw.cluster_size or raw.header_length % 8:
        raise _bad(source, f"a header length of {raw.header_length} bytes is not possible")
    if raw.refcount_order > 6:
        raise _bad(source, f"refcount order {raw.refcount_order} is not possible")
    if not 0 < raw.size <= MAX_VIRTUAL_SIZE or raw.size % SECTOR:
        raise _bad(source, f"a virtual size of {raw.size} bytes is not possible")


def _check_extensions(source: Source, raw: _Untrusted) -> None:
    """Walk the header extensions, which end at the latest with the first cluster."""
    area = source.read(0, raw.cluster_size)
    offset = raw.header_length
    while offset + 8 <= len(area):
        kind, length = struct.unpack_from(">II", area, offset)
        if kind == _END_EXTENSION:
            return
        if length > raw.cluster_size - offset - 8:
            raise _bad(source, f"header extension {kind:#x} leaves the first cluster")
        if kind == _DATA_FILE_EXTENSION:
            raise PolicyViolation(
                "names an external data file in a header extension",
                path=source.path,
                hint="convert it to one self-contained image where it can be trusted",
            )
        if kind == _CRYPTO_EXTENSION:
            raise Unsupported("carries a qcow2 encryption header", path=source.path)
        offset += 8 + -(-length // 8) * 8


def _check_tables(source: Source, raw: _Untrusted) -> None:
    l2_entries = raw.cluster_size // (16 if raw.incompatible & _EXTENDED_L2 else 8)
    l1_needed = -(-raw.size // (raw.cluster_size * l2_entries))
    if raw.l1_size < l1_needed:
        raise _bad(source, f"its L1 table of {raw.l1_size} entries is too small for the disk")
    if raw.l1_size * 8 > _MAX_L1_BYTES:
        raise _bad(source, f"its L1 table of {raw.l1_size} entries is too large")
    reftable = raw.refcount_clusters * raw.cluster_size
    if not 0 < reftable <= _MAX_REFTABLE_BYTES:
        raise _bad(source, f"a refcount table of {reftable} bytes is not possible")
    if raw.snapshots > _MAX_SNAPSHOTS:
        raise _bad(source, f"it claims {raw.snapshots} snapshots")
    _check_place(source, raw, raw.l1_offset, raw.l1_size * 8, "the L1 table")
    _check_place(source, raw, raw.refcount_offset, reftable, "the refcount table")
    if raw.snapshots:
        length = raw.snapshots * _SNAPSHOT_MIN_BYTES
        _check_place(source, raw, raw.snapshots_offset, length, "the snapshot table")


def _check_place(source: Source, raw: _Untrusted, offset: int, length: int, what: str) -> None:
    if offset % raw.cluster_size:
        raise _bad(source, f"{what} does not start at a cluster (offset {offset})")
    if offset < raw.cluster_size:
        raise _bad(source, f"{what} lies inside the header")
    if offset + length > source.size:
        raise truncated(source, offset + length, what)


def _check_end_of_data(source: Source, header: Qcow2Header) -> None:
    """Reference counts say how far the file must reach; a cut copy ends before."""
    cluster = highest_allocated_cluster(
        source,
        table_offset=header.refcount_offset,
        table_length=header.refcount_clusters * header.cluster_size,
        cluster_size=header.cluster_size,
        refcount_order=header.refcount_order,
    )
    # The last cluster may be cut short: QEMU itself ends a file inside it.
    if cluster is not None and cluster * header.cluster_size >= source.size:
        raise truncated(source, cluster * header.cluster_size + 1, "the data of the image")
