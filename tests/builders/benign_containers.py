"""Containers with nothing wrong: they must be opened and served, or the guards are useless."""

from pathlib import Path

from tests.builders.command import run
from tests.builders.hostile_place import Benign, Maker, Place
from tests.builders.qcow2 import CLUSTER, MIB, Qcow2
from tests.builders.vmdk_chain import GRAIN, Ids, write_flat, write_monolithic, write_split

DISK = b"".join(bytes([number]) * CLUSTER for number in range(1, 17)) * 2
CHANGED = DISK[:CLUSTER] + b"changed".ljust(CLUSTER, b"\0") + DISK[2 * CLUSTER :]
_LAYER = {1: b"changed"}


def converted(form: str, *options: str) -> Maker:
    """The disk in a format of qemu-img."""

    def make(place: Place) -> Path:
        disk = place.write("disk.raw", DISK)
        run("qemu-img", "convert", "-f", "raw", "-O", form, *options, disk, place.folder / "image")
        return place.folder / "image"

    return make


def _raw(place: Place) -> Path:
    return place.write("disk.raw", DISK)


def _split(place: Place) -> Path:
    for number in range(4):
        part = DISK[number * MIB // 2 : (number + 1) * MIB // 2]
        place.write(f"disk.{number + 1:03}", part)
    return place.folder / "disk.001"


def _over(name: str, form: str) -> Maker:
    def make(place: Place) -> Path:
        place.write("base", DISK)
        named = place.named(name)
        image = Qcow2(2 * MIB, backing=named, backing_format=form.encode(), clusters=_LAYER)
        return place.write("image", image.build())

    return make


def _three(place: Place) -> Path:
    place.write("a", DISK)
    for name, below, form in (("b", "a", "raw"), ("c", "b", "qcow2"), ("d", "c", "qcow2")):
        layer = _LAYER if name == "c" else {}
        image = Qcow2(2 * MIB, backing=below.encode(), backing_format=form.encode(), clusters=layer)
        place.write(name, image.build())
    return place.folder / "d"


def _linked(place: Place) -> Path:
    (place.folder / "linked").symlink_to("base")
    return _over("linked", "raw")(place)


def _data_file(place: Place) -> Path:
    place.write("data", CHANGED)
    every = dict.fromkeys(range(32), b"")
    return place.write("image", Qcow2(2 * MIB, data_file=b"data", clusters=every).build())


def _snapshots(place: Place) -> Path:
    write_flat(place.folder / "vm.vmdk", DISK, Ids(1), "vmfs")
    write_split(
        place.folder / "vm-000001.vmdk", 2 * MIB, MIB, {3: None, 1: b"x"}, Ids(2, 1, "vm.vmdk")
    )
    layer = {1: b"changed", 3: DISK[3 * GRAIN : 4 * GRAIN]}
    hint = r"C:\VMs\vm-000001.vmdk"
    return write_monolithic(place.folder / "vm-000002.vmdk", 2 * MIB, layer, Ids(3, 2, hint))


BENIGN: dict[str, Benign] = {
    "raw": Benign(_raw, DISK),
    "raw in parts": Benign(_split, DISK),
    "qcow2": Benign(converted("qcow2"), DISK),
    "qcow2 version 2": Benign(converted("qcow2", "-o", "compat=0.10"), DISK),
    "qcow2 zlib": Benign(converted("qcow2", "-c"), DISK),
    "qcow2 zstd": Benign(converted("qcow2", "-c", "-o", "compression_type=zstd"), DISK),
    "qcow2 extended L2": Benign(converted("qcow2", "-o", "extended_l2=on"), DISK),
    "VMDK sparse": Benign(converted("vmdk", "-o", "subformat=monolithicSparse"), DISK),
    "VMDK stream": Benign(converted("vmdk", "-o", "subformat=streamOptimized"), DISK),
    "VMDK flat": Benign(converted("vmdk", "-o", "subformat=monolithicFlat"), DISK),
    "VMDK split sparse": Benign(converted("vmdk", "-o", "subformat=twoGbMaxExtentSparse"), DISK),
    "VMDK split flat": Benign(converted("vmdk", "-o", "subformat=twoGbMaxExtentFlat"), DISK),
    "overlay": Benign(_over("base", "raw"), CHANGED),
    "overlay, absolute": Benign(_over("@case@/base", "raw"), CHANGED),
    "overlay, from elsewhere": Benign(_over("/var/lib/libvirt/images/base", "raw"), CHANGED),
    "overlay on a link": Benign(_linked, CHANGED),
    "overlay of four": Benign(_three, CHANGED),
    "data file": Benign(_data_file, CHANGED),
    "snapshots of VMware": Benign(_snapshots, CHANGED),
}
