"""Hostile VMDKs: extents and parents elsewhere, and sparse headers that lie."""

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from tests.builders.hostile_place import Hostile, Maker, Place
from tests.builders.qcow2 import MIB, Qcow2
from tests.builders.vmdk_chain import (
    GRAIN,
    SECTOR,
    Ids,
    descriptor,
    sparse_extent,
    write_monolithic,
)

OWN = 0x0000CAFE
_FLAT = "RW 2048 FLAT"
_HEAD = '# Disk DescriptorFile\nversion=1\nCID=0000cafe\nparentCID={}\ncreateType="{}"\n'


def text(lines: str | bytes, kind: str = "twoGbMaxExtentFlat", parent: str = "ffffffff") -> Maker:
    """A text descriptor with these lines, a good extent named `flat` beside it."""

    def make(place: Place) -> Path:
        place.write("flat", bytes(MIB))
        return place.write("disk.vmdk", _HEAD.format(parent, kind).encode() + place.named(lines))

    return make


def extent(name: str | bytes, links: Mapping[str, str] | None = None) -> Maker:
    """A flat extent of that name, and symbolic links beside it."""

    def make(place: Place) -> Path:
        for link, target in (links or {}).items():
            place.link(link, target)
        return text(b'RW 2048 FLAT "' + place.named(name) + b'" 0\n')(place)

    return make


def sparse(offset: int, form: str, value: int) -> Maker:
    """A monolithicSparse disk with another value somewhere in its header."""

    def make(place: Place) -> Path:
        path = write_monolithic(place.folder / "disk.vmdk", MIB, {0: b"own"}, Ids(1))
        data = bytearray(path.read_bytes())
        struct.pack_into(form, data, offset, value)
        path.write_bytes(data)
        return path

    return make


def _special(make_special: Maker) -> Maker:
    def make(place: Place) -> Path:
        make_special(place)
        return extent("special")(place)

    return make


def _below_a_snapshot(place: Place) -> Path:
    text('RW 2048 FLAT "@secret@" 0\n')(place).rename(place.folder / "base.vmdk")
    return write_monolithic(place.folder / "disk.vmdk", MIB, {}, Ids(1, OWN, "base.vmdk"))


def _descriptor_inside(place: Place) -> Path:
    """Capacity 0: QEMU then reads a whole descriptor, with extents, out of the sparse file."""
    line = f'RW 2048 FLAT "{place.secret}" 0'
    head = bytearray(sparse_extent(MIB, {}, descriptor("monolithicFlat", [line], Ids(1))))
    struct.pack_into("<Q", head, 12, 0)
    return place.write("disk.vmdk", bytes(head))


def _sparse_part_with_a_descriptor(place: Place) -> Path:
    (inside := _descriptor_inside(place)).rename(place.folder / "part.vmdk")
    line = 'RW 2048 SPARSE "part.vmdk"'
    inside.write_bytes(descriptor("twoGbMaxExtentSparse", [line], Ids(1)))
    return inside


def _gigabytes(place: Place) -> Path:
    path = text('RW 2048 FLAT "flat" 0\n')(place)
    with path.open("r+b") as file:
        file.truncate(8 << 30)
    return path


def _footer_differs(place: Place) -> Path:
    path = write_monolithic(place.folder / "disk.vmdk", MIB, {0: b"own"}, Ids(1))
    header = bytearray(path.read_bytes())
    footer = bytearray(header[:SECTOR])
    struct.pack_into("<Q", footer, 12, 1 << 40)
    struct.pack_into("<Q", header, 56, (1 << 64) - 1)
    marker = struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\0")
    path.write_bytes(bytes(header) + marker + bytes(footer) + bytes(SECTOR))
    return path


def _one_table(place: Place) -> Path:
    """Every entry of the directory leads to one table, every entry of that to one grain."""
    size = 64 * MIB
    data = bytearray(sparse_extent(size, {0: b"bomb" * (GRAIN // 4)}, b""))
    directory = struct.unpack_from("<Q", data, 56)[0] * SECTOR
    table = struct.unpack_from("<I", data, directory)[0] * SECTOR
    data[directory : directory + 8] = struct.pack("<II", *[table // SECTOR] * 2)
    data[table : table + 2048] = data[table : table + 4] * 512
    place.write("disk-s001.vmdk", bytes(data))
    line = f'RW {size // SECTOR} SPARSE "disk-s001.vmdk"'
    return place.write("disk.vmdk", descriptor("twoGbMaxExtentSparse", [line], Ids(1)))


def _extent_is_an_image(place: Place) -> Path:
    inner = Qcow2(backing=place.named("@secret@"), backing_format=b"raw").build()
    place.write("part", inner.ljust(MIB, b"\0"))
    return text('RW 2048 FLAT "part" 0\n')(place)


_OUTSIDE = "outside of the folders"
_PROTOCOL = "protocol"

EXTENTS: dict[str, Hostile] = {
    "extent passwd": Hostile(extent("/etc/passwd"), _OUTSIDE),
    "extent absolute": Hostile(extent("@secret@"), _OUTSIDE),
    "extent relative": Hostile(extent("../outside/secret"), _OUTSIDE),
    "extent sibling": Hostile(extent("../sibling/disk.raw"), _OUTSIDE),
    "extent backslashes": Hostile(extent("..\\outside\\secret"), _OUTSIDE),
    "extent share": Hostile(extent("\\\\server\\share\\secret"), "does not exist"),
    "extent windows": Hostile(extent("C:\\secret"), "does not exist"),
    "extent device": Hostile(extent("/dev/zero"), _OUTSIDE),
    "extent disk of the host": Hostile(extent("/dev/sda"), _OUTSIDE),
    "extent link": Hostile(extent("link", {"link": "@secret@"}), _OUTSIDE),
    "extent folder link": Hostile(extent("f/secret", {"f": "../outside"}), _OUTSIDE),
    "extent dangling link": Hostile(extent("link", {"link": "/nonexistent/x"}), _OUTSIDE),
    "extent json": Hostile(extent("json:{}"), _PROTOCOL),
    "extent json with quotes": Hostile(
        text('RW 2048 FLAT "json:{"file.filename":"@secret@"}" 0\n'), "damaged extent line"
    ),
    "extent nbd": Hostile(extent("nbd://127.0.0.1/x"), _PROTOCOL),
    "extent http": Hostile(extent("http://127.0.0.1/x"), _PROTOCOL),
    "extent ssh": Hostile(extent("ssh://127.0.0.1/x"), _PROTOCOL),
    "extent fat": Hostile(extent("fat:@outside@"), _PROTOCOL),
    "extent file": Hostile(extent("file:@secret@"), _PROTOCOL),
    "extent fd": Hostile(extent("fd:0"), _PROTOCOL),
    "extent too long": Hostile(extent("x" * 1024), "too long"),
    "extent escape": Hostile(extent("\x1b[31m"), "does not exist"),
    "extent bidi": Hostile(extent("\u202ex"), "does not exist"),
    "extent folder": Hostile(
        _special(lambda place: (place.folder / "special").mkdir() or place.folder), "a folder"
    ),
    "extent fifo": Hostile(
        _special(lambda place: os.mkfifo(place.folder / "special") or place.folder), "named pipe"
    ),
    "extent twice": Hostile(text(f'{_FLAT} "flat" 0\n' * 2), "used twice"),
    "extent is the descriptor": Hostile(extent("disk.vmdk"), "used twice|truncated"),
    "ten thousand extents": Hostile(text("RW 1 ZERO\n" * 10_000), "10000 extents"),
    "extents of exabytes": Hostile(text("RW 18014398509481983 ZERO\n" * 3), "add up"),
    "extent offset overflows": Hostile(
        text('RW 2048 FLAT "flat" 9223372036854775807\n'), "impossible extent line"
    ),
    "extent behind the end": Hostile(text('RW 2049 FLAT "flat" 0\n'), "truncated"),
    "extent of a raw disk": Hostile(text('RW 2048 VMFSRDM "/dev/sda"\n'), "VMFSRDM"),
    "whole device": Hostile(text('RW 2048 FLAT "/dev/sda" 0\n', "fullDevice"), "fullDevice"),
    "extent withheld": Hostile(text('NOACCESS 2048 FLAT "flat" 0\n'), "NOACCESS"),
    "extent below a snapshot": Hostile(_below_a_snapshot, _OUTSIDE),
    "vmfs extent elsewhere": Hostile(text('RW 2048 VMFS "@secret@"\n', "vmfs"), _OUTSIDE),
    "sparse extent elsewhere": Hostile(
        text('RW 2048 SPARSE "@outside@/secret.vmdk"\n', "twoGbMaxExtentSparse"), _OUTSIDE
    ),
    "descriptor in a sparse file": Hostile(_descriptor_inside, "capacity"),
    "descriptor in a sparse part": Hostile(_sparse_part_with_a_descriptor, "capacity"),
    "descriptor of gigabytes": Hostile(_gigabytes, "larger than 1 MiB"),
}

SPARSE: dict[str, Hostile] = {
    "sparse capacity 0": Hostile(sparse(12, "<Q", 0), "capacity"),
    "sparse capacity 2^63": Hostile(sparse(12, "<Q", 1 << 63), "capacity"),
    "sparse grain 2^62": Hostile(sparse(20, "<Q", 1 << 62), "grain"),
    "sparse descriptor of exabytes": Hostile(sparse(36, "<Q", 1 << 60), "1 MiB"),
    "sparse descriptor elsewhere": Hostile(sparse(28, "<Q", 1 << 50), "truncated"),
    "sparse directory elsewhere": Hostile(sparse(56, "<Q", 1 << 50), "truncated"),
    "sparse directory in the header": Hostile(sparse(56, "<Q", 0), "inside the header"),
    "sparse footer missing": Hostile(sparse(56, "<Q", (1 << 64) - 1), "footer"),
    "sparse footer differs": Hostile(_footer_differs, "contradict"),
    "sparse grain tables of millions": Hostile(sparse(44, "<I", 1 << 31), "grain tables"),
    "sparse version 9": Hostile(sparse(4, "<I", 9), "version 9"),
}

HARMLESS: dict[str, Hostile] = {
    "extent that is a qcow2": Hostile(
        _extent_is_an_image, content=lambda path: path.with_name("part").read_bytes()
    ),
    "extent in a comment": Hostile(
        text(f'# {_FLAT} "@secret@" 0\n{_FLAT} "flat" 0\n'), content=lambda _: bytes(MIB)
    ),
    "extent of the same last name": Hostile(
        text(f'{_FLAT} "/etc/flat" 0\n'), content=lambda _: bytes(MIB)
    ),
    "one table, one grain": Hostile(_one_table, content=lambda _: b"bomb" * MIB),
}
