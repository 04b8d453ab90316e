"""Hostile qcow2 images: what they name, and headers that lie."""

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from tests.builders.hostile_place import Hostile, Maker, Place
from tests.builders.qcow2 import BACKING_FORMAT, DATA_FILE, MIB, Qcow2, patched
from tests.builders.vmdk_chain import Ids, descriptor


def over(name: str | bytes, form: bytes = b"raw", links: Mapping[str, str] | None = None) -> Maker:
    """An overlay on a backing file of that name, and symbolic links beside it."""

    def make(place: Place) -> Path:
        for link, target in (links or {}).items():
            place.link(link, target)
        image = Qcow2(backing=place.named(name), backing_format=form)
        return place.write("image", image.build())

    return make


def data_in(name: str | bytes, links: Mapping[str, str] | None = None, **more: object) -> Maker:
    """An image whose data is in another file of that name (CVE-2024-32498)."""
    every = dict.fromkeys(range(16), b"")

    def make(place: Place) -> Path:
        for link, target in (links or {}).items():
            place.link(link, target)
        image = Qcow2(data_file=place.named(name), clusters=every, **more)  # type: ignore[arg-type]
        return place.write("image", image.build())

    return make


def header(**fields: int) -> Maker:
    """A plain image with other values in its header."""
    return lambda place: place.write("image", patched(Qcow2().build(), fields))


def bytes_at(offset: int, data: bytes, image: Qcow2 | None = None) -> Maker:
    """A plain image with other bytes somewhere."""

    def make(place: Place) -> Path:
        content = bytearray((image or Qcow2(clusters={0: b"x"})).build())
        content[offset : offset + len(data)] = data
        return place.write("image", bytes(content))

    return make


def _below(inner: Maker, name: str = "inner", form: bytes = b"qcow2") -> Maker:
    """An innocent overlay on a hostile image."""

    def make(place: Place) -> Path:
        inner(place).rename(place.folder / name)
        image = Qcow2(backing=name.encode(), backing_format=form)
        return place.write("image", image.build())

    return make


def _loop(*names: str) -> Maker:
    def make(place: Place) -> Path:
        for name, target in zip(names, (*names[1:], names[0]), strict=True):
            image = Qcow2(backing=target.encode(), backing_format=b"qcow2")
            place.write(name, image.build())
        return place.folder / names[0]

    return make


def _deep(place: Place) -> Path:
    for number in range(66):
        image = Qcow2(backing=b"%d" % (number - 1), backing_format=b"qcow2") if number else Qcow2()
        place.write(str(number), image.build())
    return place.folder / "65"


def _special(make_special: Maker) -> Maker:
    def make(place: Place) -> Path:
        make_special(place)
        return over("special")(place)

    return make


def _twice(place: Place) -> Path:
    place.write("both", bytes(MIB))
    inner = Qcow2(backing=b"both", backing_format=b"raw", data_file=b"both")
    return place.write("image", inner.build())


def _extent_below(place: Place) -> Path:
    line = f'RW 2048 FLAT "{place.secret}" 0'
    place.write("base", descriptor("monolithicFlat", [line], Ids(1)))
    return over("base", b"vmdk")(place)


def _two_of(kind: int, name: str) -> Maker:
    """An extension twice: an innocent one, and another behind it."""

    def make(place: Place) -> Path:
        place.write("base", bytes(MIB))
        image = Qcow2(
            backing=b"base", backing_format=b"raw" if kind == BACKING_FORMAT else b"",
            data_file=b"base" if kind == DATA_FILE else b"",
            extensions=((kind, place.named(name)),),
        )  # fmt: skip
        return place.write("image", image.build())

    return make


def looks_like_qcow2(place: Place) -> bytes:
    return Qcow2(backing=place.named("@secret@"), backing_format=b"raw").build().ljust(MIB, b"\0")


def _guessed_base(place: Place) -> Path:
    place.write("base", looks_like_qcow2(place))
    return over("base", b"")(place)


_OUTSIDE = "outside of the folders"
_PROTOCOL = "protocol"
_JSON = 'json:{"driver":"raw","file":{"driver":"file","filename":"@secret@"}}'

NAMES: dict[str, Hostile] = {
    "backing passwd": Hostile(over("/etc/passwd"), _OUTSIDE),
    "backing absolute": Hostile(over("@secret@"), _OUTSIDE),
    "backing relative": Hostile(over("../outside/secret"), _OUTSIDE),
    "backing far up": Hostile(over("../" * 40 + "etc/hostname"), _OUTSIDE),
    "backing sibling": Hostile(over("../sibling/disk.raw"), _OUTSIDE),
    "backing link": Hostile(over("link", links={"link": "@secret@"}), _OUTSIDE),
    "backing relative link": Hostile(over("link", links={"link": "../outside/secret"}), _OUTSIDE),
    "backing folder link": Hostile(over("f/secret", links={"f": "@outside@"}), _OUTSIDE),
    "backing two links": Hostile(
        over("a", links={"a": "b", "b": "./c/secret", "c": "@outside@"}), _OUTSIDE
    ),
    "backing dangling link": Hostile(over("link", links={"link": "/nonexistent/x"}), _OUTSIDE),
    "backing link to itself": Hostile(over("link", links={"link": "link"}), "symbolic link"),
    "backing json": Hostile(over(_JSON), _PROTOCOL),
    "backing json dotted": Hostile(over('json:{"file.filename":"@secret@"}'), _PROTOCOL),
    "backing json, format qcow2": Hostile(over(_JSON, b"qcow2"), _PROTOCOL),
    "backing nbd": Hostile(over("nbd://127.0.0.1:10809/x"), _PROTOCOL),
    "backing nbd socket": Hostile(over("nbd:unix:/run/x:exportname=x"), _PROTOCOL),
    "backing http": Hostile(over("http://127.0.0.1/x"), _PROTOCOL),
    "backing ssh": Hostile(over("ssh://127.0.0.1/x"), _PROTOCOL),
    "backing file": Hostile(over("file:@secret@"), _PROTOCOL),
    "backing fat": Hostile(over("fat:@outside@"), _PROTOCOL),
    "backing fat writable": Hostile(over("fat:rw:@outside@"), _PROTOCOL),
    "backing host_device": Hostile(over("host_device:/dev/zero"), _PROTOCOL),
    "backing blkdebug": Hostile(over("blkdebug::@secret@"), _PROTOCOL),
    "backing fd": Hostile(over("fd:0"), _PROTOCOL),
    "backing null": Hostile(over("null-co://"), _PROTOCOL),
    "backing descriptor": Hostile(over("/dev/fd/0"), _OUTSIDE),
    "backing descriptor set": Hostile(over("/dev/fdset/0"), _OUTSIDE),
    "backing device": Hostile(over("/dev/zero"), _OUTSIDE),
    "backing environment": Hostile(over("/proc/self/environ"), _OUTSIDE),
    "backing share": Hostile(over("\\\\server\\share\\secret"), "does not exist"),
    "backing windows": Hostile(over("C:\\outside\\secret"), "does not exist"),
    "backing backslashes": Hostile(over("..\\outside\\secret"), _OUTSIDE),
    "backing behind NUL": Hostile(over(b"base\0@secret@"), "NUL"),
    "backing NUL first": Hostile(over(b"\0@secret@"), "NUL"),
    "backing newline": Hostile(over("base\n@secret@"), "does not exist"),
    "backing escape": Hostile(over("\x1b]0;x\x07/../secret"), "does not exist"),
    "backing bidi": Hostile(over("\u202eterces"), "does not exist"),
    "backing not text": Hostile(over(b"\xff\xfe\xfd"), "does not exist"),
    "backing too long": Hostile(over("x" * 1024), "leaves the header"),
    "backing of one long part": Hostile(over("x" * 1000), "File name too long"),
    "backing own folder": Hostile(over("."), "is a folder"),
    "backing parent folder": Hostile(over(".."), _OUTSIDE),
    "backing root": Hostile(over("/"), _OUTSIDE),
    "backing folder": Hostile(
        _special(lambda place: (place.folder / "special").mkdir() or place.folder), "a folder"
    ),
    "backing fifo": Hostile(
        _special(lambda place: os.mkfifo(place.folder / "special") or place.folder), "named pipe"
    ),
    "backing itself": Hostile(_loop("image"), "used twice"),
    "backing loop of two": Hostile(_loop("a", "b"), "used twice"),
    "backing loop of three": Hostile(_loop("a", "b", "c"), "used twice"),
    "backing too deep": Hostile(_deep, "more than 64"),
    "backing and data in one": Hostile(_twice, "used twice"),
    "backing below an overlay": Hostile(_below(over("@secret@")), _OUTSIDE),
    "backing guessed to be qcow2": Hostile(_guessed_base, _OUTSIDE),
    "backing format nbd": Hostile(over("@secret@", b"nbd"), "not known"),
    "backing format twice": Hostile(_two_of(BACKING_FORMAT, "qcow2"), "there twice"),
    "backing name only claimed": Hostile(header(backing_offset=512), "disagree"),
    "backing name of 4 GiB": Hostile(
        header(backing_offset=512, backing_size=0xFFFFFFFF), "leaves the header"
    ),
    "backing name beyond the end": Hostile(
        header(backing_offset=(1 << 64) - 8, backing_size=64), "leaves the header"
    ),
    "backing is a VMDK with an extent elsewhere": Hostile(_extent_below, _OUTSIDE),
    "data absolute": Hostile(data_in("@secret@"), _OUTSIDE),
    "data passwd": Hostile(data_in("/etc/passwd"), _OUTSIDE),
    "data relative": Hostile(data_in("../outside/secret"), _OUTSIDE),
    "data declared to be the disk": Hostile(data_in("@secret@", data_file_is_raw=True), _OUTSIDE),
    "data json": Hostile(data_in('json:{"driver":"file","filename":"@secret@"}'), _PROTOCOL),
    "data nbd": Hostile(data_in("nbd://127.0.0.1/x"), _PROTOCOL),
    "data device": Hostile(data_in("/dev/zero"), _OUTSIDE),
    "data link": Hostile(data_in("link", links={"link": "@secret@"}), _OUTSIDE),
    "data behind NUL": Hostile(data_in(b"data\0@secret@"), "NUL"),
    "data is the image": Hostile(data_in("image"), "used twice"),
    "data below an overlay": Hostile(_below(data_in("@secret@")), _OUTSIDE),
    "data without a name": Hostile(header(incompatible=4), "does not name it"),
    "data of 4 GiB": Hostile(bytes_at(104, struct.pack(">II", DATA_FILE, 0xFFFFFFFF)), "leaves"),
    "data named, but not announced": Hostile(
        bytes_at(104, struct.pack(">II", DATA_FILE, 8) + b"/etc/abc"), "says that it has none"
    ),
    "data named twice": Hostile(_two_of(DATA_FILE, "@secret@"), "there twice"),
}
