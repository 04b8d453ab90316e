"""One ext4 file system full of images: good ones of every format, and such as are traps."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

from tests.builders.command import execute, run
from tests.builders.disk import MIB
from tests.builders.ewf import acquire
from tests.builders.ext4 import make_ext4
from tests.builders.locked import make_locked
from tests.builders.qcow2 import Qcow2
from tests.builders.vmdk_chain import GRAIN, Ids, write_split

FORMATS = {
    "qcow2": ("qcow2",),
    "vmdk": ("vmdk",),
    "split.vmdk": ("vmdk", "-o", "subformat=twoGbMaxExtentSparse"),
    "flat.vmdk": ("vmdk", "-o", "subformat=monolithicFlat"),
    "vhd": ("vpc", "-o", "force_size=on"),
    "fixed.vhd": ("vpc", "-o", "subformat=fixed,force_size=on"),
    "vhdx": ("vhdx",),
    "vdi": ("vdi",),
    "qed": ("qed",),
}
"""Ending of the file's name -> qemu-img's format and options."""
SIZE = 2 * MIB
UUID = "e4000000-0000-4000-8000-00000000c001"
LABEL = "content"
ODD_NAMES = (b"a\nb", b"\x1b[31m", b"\xff\xfe", b"back\\slash", b"sp ace", "\u202eümlaut".encode())
MANY = 3000
DEPTH = 70
"""Folders in one another; more than are searched."""
CHAIN = 70
"""Images on one another; more than are opened."""


def good_images(folder: Path, word: str) -> None:
    """`good/disk.*`: the same file system in every format; with a chain by an absolute name."""
    folder.mkdir()
    raw = make_ext4(folder / "disk.raw", SIZE, LABEL, UUID)
    for ending, (form, *options) in FORMATS.items():
        run("qemu-img", "convert", "-O", form, *options, raw, folder / f"disk.{ending}")
    acquire(raw, folder / "disk")
    (folder / "disk.raw.gz").write_bytes(gzip.compress(raw.read_bytes()))
    overlay = Qcow2(SIZE, backing=b"/good/disk.raw", backing_format=b"raw")
    (folder / "overlay.qcow2").write_bytes(overlay.build())
    split_snapshot(folder, raw.read_bytes())
    make_locked(folder / "locked.qcow2", word, raw)
    shutil.copy(folder / "locked.qcow2", folder / "locked-too.qcow2")


def split_snapshot(folder: Path, content: bytes) -> None:
    """`snapshot.vmdk` in parts on `base/disk.vmdk` in parts, which has another first grain."""
    grains = {at // GRAIN: content[at : at + GRAIN] for at in range(0, len(content), GRAIN)}
    (folder / "base").mkdir()
    below = {**grains, 0: b"x" * GRAIN}
    write_split(folder / "base/disk.vmdk", SIZE, MIB, below, Ids(own=1))
    above = Ids(own=2, parent=1, hint="base/disk.vmdk")
    write_split(folder / "snapshot.vmdk", SIZE, MIB, {0: grains[0]}, above)


def traps(folder: Path) -> None:
    """`bad/…`: what an image or a name can be besides an image."""
    folder.mkdir()
    for name, backing in (
        ("parents", b"../../../../etc/passwd"),
        ("absolute", b"/etc/passwd"),
        ("guest", b"/usr/lib/forensic/modules.txt"),
        ("proc", b"/proc/self/fd/3"),
        ("device", b"/dev/sda"),
        ("self", b"self.qcow2"),
        ("ping", b"pong.qcow2"),
        ("pong", b"ping.qcow2"),
        ("json", b'json:{"driver":"file","filename":"/etc/passwd"}'),
        ("nbd", b"nbd:127.0.0.1:1"),
        ("linked", b"outside"),
    ):
        form = b"qcow2" if name in {"self", "ping", "pong"} else b"raw"
        image = Qcow2(backing=backing, backing_format=form)
        (folder / f"{name}.qcow2").write_bytes(image.build())
    (folder / "data.qcow2").write_bytes(Qcow2(data_file=b"../../etc/passwd").build())
    (folder / "outside").symlink_to("../../../../../etc/passwd")
    (folder / "absolute-link").symlink_to("/usr/bin/python3")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    lines = ["# Disk DescriptorFile", "version=1", "CID=fffffffe", "parentCID=ffffffff"]
    lines += ['createType="monolithicFlat"', 'RW 2048 FLAT "/dev/sda" 0', ""]
    (folder / "sda.vmdk").write_text("\n".join(lines))
    (folder / "chain").mkdir()
    for number in range(CHAIN):
        below = f"{number + 1}.qcow2".encode() if number < CHAIN - 1 else b""
        image = Qcow2(backing=below, backing_format=b"qcow2" if below else b"")
        (folder / f"chain/{number}.qcow2").write_bytes(image.build())


def make_hostile(folder: Path, word: str) -> Path:
    """The file system; a device node and a file of 8 EiB are put into it by debugfs."""
    tree = folder / "tree"
    tree.mkdir()
    good_images(tree / "good", word)
    traps(tree / "bad")
    (tree / "names").mkdir()
    for name in ODD_NAMES:
        (tree / "names" / os.fsdecode(name)).write_bytes(Qcow2().build())
    (tree / "many").mkdir()
    for number in range(MANY):
        (tree / f"many/{number:04}").write_bytes(b"x" * 200)
    deep = tree.joinpath(*["d"] * DEPTH)
    deep.mkdir(parents=True)
    (deep / "unseen.qcow2").write_bytes(Qcow2().build())
    path = make_ext4(folder / "hostile.raw", 128 * MIB, "host", UUID, options=("-d", str(tree)))
    script = b"cd bad\nwrite /dev/null huge\nmknod node b 8 0\nsif huge size 0x7ffffffffffffe00\n"
    done = execute("debugfs", "-w", "-f", "-", path, stdin=script)
    assert done.returncode == 0, done.stderr
    return path
