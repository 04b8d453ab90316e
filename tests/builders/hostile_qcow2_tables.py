"""Hostile qcow2 images: headers and tables that lie, and names that only look dangerous."""

import struct
from pathlib import Path

from tests.builders.hostile_place import Hostile, Maker, Place
from tests.builders.hostile_qcow2 import bytes_at, data_in, header, looks_like_qcow2, over
from tests.builders.qcow2 import CLUSTER, MIB, Qcow2

_TABLE, _COUNTS, _L1, _L2 = (number * CLUSTER for number in range(1, 5))
_COPIED = 1 << 63


def _compressed_bomb(place: Place) -> Path:
    """Every L2 entry is the same compressed cluster, said to reach far beyond the file's end."""
    entry = struct.pack(">Q", 1 << 62 | 0xFF << 54 | 5 * CLUSTER)
    return bytes_at(_L2, entry * (CLUSTER // 8), Qcow2(512 * MIB, clusters={0: b"\xff" * 99}))(
        place
    )


def _terabyte(place: Place) -> Path:
    """A TiB that is not zero, in less than half a MiB: all tables lead to one cluster."""
    image = Qcow2(1 << 40, clusters={0: b"bomb" * (CLUSTER // 4)}).build()
    data = bytearray(image)
    l2, cluster = _L2, 5 * CLUSTER
    data[_L1 : _L1 + 2048 * 8] = struct.pack(">Q", l2 | _COPIED) * 2048
    data[l2 : l2 + CLUSTER] = struct.pack(">Q", cluster | _COPIED) * (CLUSTER // 8)
    return place.write("image", bytes(data))


def _raw_base(place: Place) -> Path:
    place.write("base", looks_like_qcow2(place))
    return over("base")(place)


def _raw_data(place: Place) -> Path:
    place.write("data", looks_like_qcow2(place))
    return data_in("data")(place)


def _moved(name: str, found: str) -> Maker:
    """The case has a file of the last part's name: that one is meant, whatever the rest says."""

    def make(place: Place) -> Path:
        place.write(found, b"own" * 100_000)
        return over(name)(place)

    return make


HEADERS: dict[str, Hostile] = {
    "l1 of 16 GiB": Hostile(header(l1_size=1 << 31), "too large"),
    "l1 in the header": Hostile(header(l1_offset=0), "inside the header"),
    "l1 behind the end": Hostile(header(l1_offset=1 << 50), "truncated"),
    "l1 too small": Hostile(header(size=1 << 60), "too small"),
    "refcounts of 128 TiB": Hostile(header(refcount_clusters=1 << 31), "not possible"),
    "refcounts in the header": Hostile(header(refcount_offset=0), "inside the header"),
    "refcount block elsewhere": Hostile(bytes_at(_TABLE, b"\x7f" * 8), "refcount block"),
    "refcounts of a cut file": Hostile(bytes_at(_COUNTS + 8192, b"\0\1"), "truncated"),
    "refcounts of 2^7 bits": Hostile(header(refcount_order=7), "not possible"),
    "65537 snapshots": Hostile(header(snapshots=65537), "snapshots"),
    "65535 snapshots of nothing": Hostile(
        header(snapshots=65535, snapshots_offset=_TABLE), "snapshot"
    ),
    "cluster of 2^63": Hostile(header(cluster_bits=63), "not possible"),
    "size of 2^64": Hostile(header(size=(1 << 64) - 512), "not possible"),
    "size of no sectors": Hostile(header(size=1000), "not possible"),
    "unknown feature": Hostile(header(incompatible=1 << 40), "not known"),
    "encryption without a header": Hostile(header(crypt_method=2), "disagree"),
    "encryption AES": Hostile(header(crypt_method=1), "method 1"),
    "header of 4 GiB": Hostile(header(header_length=0xFFFFFFF8), "not possible"),
    "header of nothing": Hostile(header(header_length=0), "not possible"),
    "version 4": Hostile(header(version=4), "version 4"),
    "extension of 4 GiB": Hostile(bytes_at(104, struct.pack(">II", 1, 0xFFFFFFFF)), "leaves"),
    "only a magic": Hostile(lambda place: place.write("image", b"QFI\xfb\0\0\0\3"), "truncated"),
    "cut in the middle": Hostile(
        lambda place: place.write("image", Qcow2().build()[: 3 * CLUSTER]), "truncated"
    ),
}

HARMLESS: dict[str, Hostile] = {
    "base of format raw that is a qcow2": Hostile(
        _raw_base, content=lambda path: path.with_name("base").read_bytes()
    ),
    "data file that is a qcow2": Hostile(
        _raw_data, content=lambda path: path.with_name("data").read_bytes()
    ),
    "declared raw, but a qcow2": Hostile(
        over("@secret@"), declared="raw", content=lambda path: path.read_bytes()
    ),
    "passwd of its own": Hostile(_moved("/etc/passwd", "passwd"), content=lambda _: b"ownown"),
    "share of its own": Hostile(
        _moved("\\\\server\\share\\base", "base"), content=lambda _: b"ownown"
    ),
    "name with a newline of its own": Hostile(_moved("a\nb", "a\nb"), content=lambda _: b"own"),
    "corrupt and dirty": Hostile(header(incompatible=3), content=lambda _: bytes(MIB)),
    "terabyte of one cluster": Hostile(_terabyte, content=lambda _: b"bomb" * MIB),
    "compressed bomb": Hostile(_compressed_bomb, error="read"),
    "L2 table that is its own data": Hostile(
        bytes_at(_L2, struct.pack(">Q", _L2 | _COPIED)),
        content=lambda path: path.read_bytes()[_L2 : _L2 + CLUSTER],
    ),
    "data in the refcount table": Hostile(
        bytes_at(_L2, struct.pack(">Q", _TABLE | _COPIED)),
        content=lambda path: path.read_bytes()[_TABLE : _TABLE + CLUSTER],
    ),
    "data beyond the end": Hostile(
        bytes_at(_L2, struct.pack(">Q", 1 << 50 | _COPIED)), content=lambda _: bytes(512)
    ),
    "L1 that leads into itself": Hostile(
        bytes_at(_L1, struct.pack(">Q", _L1 | _COPIED)),
        content=lambda path: path.read_bytes()[_L1 : _L1 + CLUSTER],
    ),
    "unknown extension that looks like a name": Hostile(
        bytes_at(104, struct.pack(">II", 0x12345678, 16) + b"json:/etc/passwd"),
        content=lambda _: b"x\0",
    ),
}
