"""The header of a qcow2 image, as QEMU's docs/interop/qcow2.txt defines it.

Everything is read with bounds and checked against the file before any other program sees it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Literal

from images.errors import MalformedImage, Unsupported
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
_BACKING_FORMAT_EXTENSION = 0xE2792ACA
_DATA_FILE_EXTENSION = 0x44415441
_CRYPTO_EXTENSION = 0x0537BE77
_ONLY_ONCE = (_BACKING_FORMAT_EXTENSION, _DATA_FILE_EXTENSION, _CRYPTO_EXTENSION)
_LUKS = 2
_MAX_LUKS_HEADER = 64 << 20


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
    snapshots_offset: int
    zstd: bool
    extended_l2: bool
    dirty: bool
    corrupt: bool
    encryption: Literal["", "luks"]
    has_data_file: bool
    untrusted_backing: bytes | None
    untrusted_backing_format: bytes
    untrusted_data_file: bytes


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
    """Read and check the header. Raises MalformedImage or Unsupported."""
    raw = _read_fields(source)
    _check_features(source, raw)
    _check_geometry(source, raw)
    extensions = _read_extensions(source, raw)
    _check_encryption(source, raw, extensions)
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
        snapshots_offset=raw.snapshots_offset,
        zstd=raw.compression == 1,
        extended_l2=bool(raw.incompatible & _EXTENDED_L2),
        dirty=bool(raw.incompatible & _DIRTY),
        corrupt=bool(raw.incompatible & _CORRUPT),
        encryption="luks" if raw.crypt_method == _LUKS else "",
        has_data_file=bool(raw.incompatible & _DATA_FILE),
        untrusted_backing=_backing_name(source, raw),
        untrusted_backing_format=extensions.get(_BACKING_FORMAT_EXTENSION, b""),
        untrusted_data_file=extensions.get(_DATA_FILE_EXTENSION, b""),
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
    if raw.crypt_method not in (0, _LUKS):
        raise Unsupported(
            f"is encrypted by qcow2 itself with method {raw.crypt_method}; only LUKS is supported",
            path=path,
            hint="decrypt a copy with qemu-img convert first",
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


def _read_extensions(source: Source, raw: _Untrusted) -> dict[int, bytes]:
    """The header extensions by type; they end with the first cluster, or at the backing name."""
    end = min(raw.cluster_size, raw.backing_offset or raw.cluster_size)
    area = source.read(0, end)
    offset, found = raw.header_length, dict[int, bytes]()
    while offset + 8 <= len(area):
        kind, length = struct.unpack_from(">II", area, offset)
        if kind == _END_EXTENSION:
            break
        if length > end - offset - 8:
            raise _bad(source, f"header extension {kind:#x} leaves the first cluster")
        if kind in found and kind in _ONLY_ONCE:
            raise _bad(source, f"header extension {kind:#x} is there twice")
        found[kind] = area[offset + 8 : offset + 8 + length]
        offset += 8 + -(-length // 8) * 8
    if _DATA_FILE_EXTENSION in found and not raw.incompatible & _DATA_FILE:
        raise _bad(source, "it names a data file, but says that it has none")
    return found


def _check_encryption(source: Source, raw: _Untrusted, extensions: dict[int, bytes]) -> None:
    place = extensions.get(_CRYPTO_EXTENSION)
    if (place is not None) != (raw.crypt_method == _LUKS):
        raise _bad(source, "its encryption method and its encryption header disagree")
    if place is None:
        return
    if len(place) < 16:
        raise _bad(source, "the place of its encryption header is missing")
    offset, length = struct.unpack_from(">QQ", place)
    if length > _MAX_LUKS_HEADER:
        raise _bad(source, f"an encryption header of {length} bytes is too large")
    _check_place(source, raw, offset, length, "the encryption header")


def _backing_name(source: Source, raw: _Untrusted) -> bytes | None:
    length = raw.backing_size
    if bool(raw.backing_offset) != bool(length):
        raise _bad(source, "the place and the length of its backing file's name disagree")
    if not length:
        return None
    # QEMU's own limits (qcow2_do_open): 1023 bytes, within the first cluster.
    if length > min(1023, raw.cluster_size - min(raw.cluster_size, raw.backing_offset)):
        raise _bad(source, f"the name of its backing file ({length} bytes) leaves the header")
    return read_exactly(source, raw.backing_offset, length, "the name of the backing file")


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
