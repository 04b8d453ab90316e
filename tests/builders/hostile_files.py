"""Hostile files of no special format: traps for the detection, and what is no file at all."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

from tests.builders.hostile_place import Hostile, Maker, Place
from tests.builders.qcow2 import MIB, Qcow2
from tests.builders.vmdk_chain import Ids, descriptor


def file(data: bytes, size: int = 0) -> Maker:
    """A file with these bytes, a hole up to `size` behind them."""

    def make(place: Place) -> Path:
        path = place.write("image", place.named(data))
        if size:
            os.truncate(path, size)
        return path

    return make


def _link(target: str) -> Maker:
    def make(place: Place) -> Path:
        place.link("image", target)
        return place.folder / "image"

    return make


def _folder(place: Place) -> Path:
    (place.folder / "image").mkdir()
    return place.folder / "image"


def _fifo(place: Place) -> Path:
    os.mkfifo(place.folder / "image")
    return place.folder / "image"


def _socket(place: Place) -> Path:
    path = place.folder / "image"
    here = os.open(place.folder, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/image")  # its own path may be too long
    finally:
        os.close(here)
    return path


def _split(third: Callable[[Place], object]) -> Maker:
    def make(place: Place) -> Path:
        for number in (1, 2, 4):
            place.write(f"image.00{number}", bytes(MIB))
        third(place)
        return place.folder / "image.001"

    return make


_BOOT = bytearray(512)
_BOOT[510:] = b"\x55\xaa"
_VHD = b"conectix".ljust(512, b"\0")
_QCOW2 = Qcow2(backing=b"/etc/passwd", backing_format=b"raw").build()
_TEXT = descriptor("monolithicFlat", ['RW 2048 FLAT "@secret@" 0'], Ids(1))

REFUSED: dict[str, Hostile] = {
    "empty": Hostile(file(b""), "is empty"),
    "folder": Hostile(_folder, "a folder"),
    "fifo": Hostile(_fifo, "named pipe"),
    "socket": Hostile(_socket, "a socket"),
    "dangling link": Hostile(_link("gone"), "does not exist"),
    "link to itself": Hostile(_link("image"), "link"),
    "link to a character device": Hostile(_link("/dev/zero"), "character device"),
    "boot sector and qcow2": Hostile(
        file(_QCOW2[:510] + b"\x55\xaa" + _QCOW2[512:]), "several formats"
    ),
    "boot sector and descriptor": Hostile(
        file(_TEXT.ljust(510, b"\n")[:510] + b"\x55\xaa" + bytes(4096)), "several formats|extent"
    ),
    "qcow2 and VHD": Hostile(file(_QCOW2 + _VHD), "several formats"),
    "descriptor behind blank lines": Hostile(file(b"\n\n" + _TEXT), "outside of the folders"),
    "descriptor by its version alone": Hostile(
        file(b'version=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "/etc/passwd" 0\n'),
        "outside of the folders",
    ),
    "unknown encrypted container": Hostile(file(b"AFF10\r\n\0".ljust(4096, b"\0")), "aff"),
    "third part is a link": Hostile(
        _split(lambda place: place.link("image.003", "@secret@")), "outside of the folders"
    ),
    "third part is a folder": Hostile(
        _split(lambda place: (place.folder / "image.003").mkdir()), "is a folder"
    ),
    "third part is the second": Hostile(
        _split(lambda place: place.link("image.003", "image.002")), "used twice"
    ),
    "third part is missing": Hostile(_split(lambda place: None), "image.003 is missing"),
}

HARMLESS: dict[str, Hostile] = {
    "one byte": Hostile(file(b"x"), content=lambda _: b"x".ljust(512, b"\0")),
    "511 bytes": Hostile(file(b"x" * 511), content=lambda _: b"x" * 511 + b"\0"),
    "half a magic": Hostile(file(b"QFI"), content=lambda _: b"QFI".ljust(512, b"\0")),
    "hole of terabytes": Hostile(file(b"x", 1 << 43), content=lambda _: b"x".ljust(MIB, b"\0")),
    "qcow2 that does not begin at 0": Hostile(
        file(bytes(512) + _QCOW2), content=lambda _: bytes(512) + _QCOW2
    ),
    "descriptor that does not begin at 0": Hostile(
        file(bytes(512) + _TEXT), content=lambda path: path.read_bytes()
    ),
    "boot sector and qcow2, declared raw": Hostile(
        file(_QCOW2[:510] + b"\x55\xaa" + _QCOW2[512:]),
        declared="raw",
        content=lambda path: path.read_bytes(),
    ),
}
