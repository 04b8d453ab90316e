"""qcow2 images written here, field by field: also such as no tool would write.

After QEMU's docs/interop/qcow2.txt. Small ones: all data is in the first 512 MiB of the disk.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

CLUSTER = 64 * 1024
MIB = 1 << 20

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_COPIED = 1 << 63
_DATA_FILE_BIT, _RAW_DATA_FILE_BIT = 1 << 2, 1 << 1
BACKING_FORMAT, DATA_FILE = 0xE2792ACA, 0x44415441

HEADER_FIELDS = {
    "version": (4, ">I"),
    "backing_offset": (8, ">Q"),
    "backing_size": (16, ">I"),
    "cluster_bits": (20, ">I"),
    "size": (24, ">Q"),
    "crypt_method": (32, ">I"),
    "l1_size": (36, ">I"),
    "l1_offset": (40, ">Q"),
    "refcount_offset": (48, ">Q"),
    "refcount_clusters": (56, ">I"),
    "snapshots": (60, ">I"),
    "snapshots_offset": (64, ">Q"),
    "incompatible": (72, ">Q"),
    "autoclear": (88, ">Q"),
    "refcount_order": (96, ">I"),
    "header_length": (100, ">I"),
}
"""Where each field lies, and how it is packed."""


@dataclass(frozen=True)
class Qcow2:
    """An image to be written; `clusters` are guest clusters with their data.

    The names of other files are what the image says, whatever that is.
    """

    size: int = MIB
    backing: bytes = b""
    backing_format: bytes = b""
    data_file: bytes = b""
    data_file_is_raw: bool = False
    clusters: Mapping[int, bytes] = field(default_factory=dict)
    header: Mapping[str, int] = field(default_factory=dict)
    extensions: tuple[tuple[int, bytes], ...] = ()

    def build(self) -> bytes:
        """The file. With a data file the clusters lie in that, at their own places."""
        tables = -(-self.size // (CLUSTER * CLUSTER // 8))
        l1_clusters = -(-tables * 8 // CLUSTER)
        l2_place = 3 + l1_clusters
        used = l2_place + 1
        l2 = bytearray(CLUSTER)
        body = b""
        for number, data in sorted(self.clusters.items()):
            place = number * CLUSTER if self.data_file else (used * CLUSTER + len(body))
            struct.pack_into(">Q", l2, number * 8, place | _COPIED)
            body += b"" if self.data_file else data.ljust(CLUSTER, b"\0")
        used += len(body) // CLUSTER
        counts = struct.pack(f">{used}H", *([1] * used)).ljust(CLUSTER, b"\0")
        l1 = struct.pack(">Q", l2_place * CLUSTER | _COPIED).ljust(l1_clusters * CLUSTER, b"\0")
        table = struct.pack(">Q", 2 * CLUSTER).ljust(CLUSTER, b"\0")
        return self._first(tables) + table + counts + l1 + bytes(l2) + body

    def _first(self, tables: int) -> bytes:
        incompatible = _DATA_FILE_BIT if self.data_file else 0
        autoclear = _RAW_DATA_FILE_BIT if self.data_file_is_raw else 0
        extensions = b""
        for kind, data in (
            (BACKING_FORMAT, self.backing_format),
            (DATA_FILE, self.data_file),
            *self.extensions,
        ):
            if data:
                extensions += struct.pack(">II", kind, len(data))
                extensions += data.ljust(-(-len(data) // 8) * 8, b"\0")
        extensions += bytes(8)
        place = _HEADER.size + len(extensions) if self.backing else 0
        cluster = bytearray(CLUSTER)
        header = _HEADER.pack(
            *(b"QFI\xfb", 3, place, len(self.backing), 16, self.size, 0, tables, 3 * CLUSTER),
            *(CLUSTER, 1, 0, 0, incompatible, 0, autoclear, 4, _HEADER.size),
        )
        first = header + extensions + self.backing
        cluster[: len(first)] = first
        return patched(bytes(cluster), self.header)


def patched(image: bytes, fields: Mapping[str, int]) -> bytes:
    """The image with other values in its header."""
    data = bytearray(image)
    for name, value in fields.items():
        offset, form = HEADER_FIELDS[name]
        struct.pack_into(form, data, offset, value)
    return bytes(data)
