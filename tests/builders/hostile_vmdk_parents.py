"""Hostile VMDKs: parents elsewhere, and parents that only QEMU would see."""

import os
from collections.abc import Mapping
from pathlib import Path

from tests.builders.hostile_place import SECRET_ID, Hostile, Maker, Place
from tests.builders.hostile_vmdk import OWN, text
from tests.builders.qcow2 import MIB, Qcow2
from tests.builders.vmdk_chain import Ids, write_flat, write_monolithic, write_split

_OUTSIDE = "outside of the folders"
_PROTOCOL = "protocol"
_FLAT = "RW 2048 FLAT"
_HIDDEN = "where it is not a line of its descriptor"
_HINT = '"@outside@/secret.vmdk"'
_CID = f"parentCID={SECRET_ID:08x}"


def parent(hint: str, kind: str = "monolithic", links: Mapping[str, str] | None = None) -> Maker:
    """A snapshot of the disk of that name, whose content ID it knows."""

    def make(place: Place) -> Path:
        for link, target in (links or {}).items():
            place.link(link, target)
        ids = Ids(OWN, SECRET_ID, os.fsdecode(place.named(hint)))
        path = place.folder / "disk.vmdk"
        if kind == "split":
            return write_split(path, MIB, MIB, {}, ids)
        return write_monolithic(path, MIB, {}, ids)

    return make


def hidden(before: str, ids: Ids | None = None) -> Maker:
    """A disk with an embedded descriptor that names a parent in an odd way (F8)."""
    own = ids or Ids(OWN)

    def make(place: Place) -> Path:
        line = os.fsdecode(place.named(before))
        return write_monolithic(place.folder / "disk.vmdk", MIB, {0: b"own"}, own, line)

    return make


def _behind_the_text(offset: int) -> Maker:
    def make(place: Place) -> Path:
        path = hidden("")(place)
        data = bytearray(path.read_bytes())
        line = place.named(
            f'\nparentCID={SECRET_ID:08x}\nparentFileNameHint="@outside@/secret.vmdk"\n'
        )
        data[offset : offset + len(line)] = line
        path.write_bytes(data)
        return path

    return make


def _loop(*names: str) -> Maker:
    def make(place: Place) -> Path:
        for name, target in zip(names, (*names[1:], names[0]), strict=True):
            write_monolithic(place.folder / name, MIB, {}, Ids(OWN, OWN, target))
        return place.folder / names[0]

    return make


def _wrong_id(place: Place) -> Path:
    write_flat(place.folder / "base.vmdk", bytes(MIB), Ids(7))
    return parent("base.vmdk")(place)


def _parent_is_qcow2(place: Place) -> Path:
    place.write("base.vmdk", Qcow2(data_file=place.named("@secret@")).build())
    return parent("base.vmdk")(place)


PARENTS: dict[str, Hostile] = {
    "parent absolute": Hostile(parent("@outside@/secret.vmdk"), _OUTSIDE),
    "parent absolute, split": Hostile(parent("@outside@/secret.vmdk", "split"), _OUTSIDE),
    "parent relative": Hostile(parent("../outside/secret.vmdk"), _OUTSIDE),
    "parent flat": Hostile(parent("../outside/flat.vmdk"), _OUTSIDE),
    "parent windows": Hostile(parent("..\\outside\\secret.vmdk"), _OUTSIDE),
    "parent link": Hostile(parent("link", links={"link": "@outside@/secret.vmdk"}), _OUTSIDE),
    "parent json": Hostile(parent("json:{}"), _PROTOCOL),
    "parent nbd": Hostile(parent("nbd://127.0.0.1/x"), _PROTOCOL),
    "parent in a comment": Hostile(hidden(f"# parentFileNameHint={_HINT}"), _HIDDEN),
    "parent in a value": Hostile(hidden(f'ddb.x = "parentFileNameHint={_HINT[1:]}'), _HIDDEN),
    "parent in a key": Hostile(hidden(f"xparentFileNameHint={_HINT}"), _HIDDEN),
    "parent behind its line": Hostile(hidden(f'ddb.x="y" parentFileNameHint={_HINT}'), _HIDDEN),
    "parent behind NUL": Hostile(hidden(f"\0\nparentFileNameHint={_HINT}"), _HIDDEN),
    "parent behind the text": Hostile(_behind_the_text(8000), _HIDDEN),
    "parent at the end of what QEMU reads": Hostile(_behind_the_text(10_600), _HIDDEN),
    "parent ID in a comment": Hostile(hidden(f"# {_CID}"), _HIDDEN),
    "parent ID twice": Hostile(hidden(_CID), "twice"),
    "parent without its ID": Hostile(
        hidden("", Ids(OWN, 0xFFFFFFFF, "base.vmdk")), "without its content ID"
    ),
    "parent ID without a name": Hostile(hidden("", Ids(OWN, SECRET_ID)), "content ID"),
    "parent with another ID": Hostile(_wrong_id, "content ID 00000007"),
    "parent is a qcow2 with a data file": Hostile(_parent_is_qcow2, "magic"),
    "parent of a text descriptor in a comment": Hostile(
        text(f'{_FLAT} "flat" 0\n# parentFileNameHint={_HINT}\n'), _HIDDEN
    ),
    "parent itself": Hostile(_loop("disk.vmdk"), "used twice"),
    "parent loop of two": Hostile(_loop("a.vmdk", "b.vmdk"), "used twice"),
}
