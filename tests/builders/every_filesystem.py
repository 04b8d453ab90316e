"""One disk with a file system of every type that Debian can make, and the same after a crash.

Every one holds GREETING_NAME. What its own tool cannot fill is filled in a guest, by the kernel,
which is also what crashes there: LATE_NAME was written and synchronised just before.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.builders.command import run
from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.filesystems import GREETING, GREETING_NAME
from tests.builders.hfsplus import make_hfsplus
from tests.builders.in_guest import run_in_guest
from tests.builders.sparse import make_sparse

LATE_NAME = "late.txt"
LINUX_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
UMLAUT_NAME = "Übung ж.txt"

Make = Callable[[Path, Path], object]


def sized(mebibytes: int, *command: str) -> Make:
    """A tool that is given a file of this size as its last argument, and `{tree}` to copy."""

    def make(path: Path, tree: Path) -> None:
        make_sparse(path, mebibytes * MIB)
        run(*(word.format(tree=tree) for word in command), path)

    return make


def written(*command: str) -> Make:
    """A tool that makes the file `{path}` from `{tree}` itself."""

    def make(path: Path, tree: Path) -> None:
        run(*(word.format(tree=tree, path=path) for word in command))

    return make


def make_xfs(version: int) -> Make:
    def make(path: Path, tree: Path) -> None:
        make_sparse(path, 32 * MIB)
        prototype = path.with_name("prototype")
        greeting = tree / GREETING_NAME
        prototype.write_text(f"/\n0 0\nd--755 0 0\n{GREETING_NAME} ---644 0 0 {greeting}\n$\n")
        crc = "1" if version == 5 else "0"
        run("mkfs.xfs", "-q", "-f", "--unsupported", "-m", f"crc={crc}", "-p", prototype, path)

    return make


def make_ntfs(path: Path, tree: Path) -> None:
    make_sparse(path, 16 * MIB)
    run("mkntfs", "-q", "-F", "-Q", path)
    for name in (GREETING_NAME, UMLAUT_NAME):
        run("ntfscp", "-f", path, tree / name, name)


def make_vfat(path: Path, tree: Path) -> None:
    make_sparse(path, 16 * MIB)
    run("mkfs.vfat", "-F", "16", path)
    run("mcopy", "-i", path, tree / GREETING_NAME, f"::{GREETING_NAME}")


def make_hfs(path: Path, tree: Path) -> None:
    make_sparse(path, 8 * MIB)
    home = {"HOME": str(path.parent)}
    run("hformat", "-l", "test", path, env=home)
    run("hmount", path, env=home)
    run("hcopy", "-r", tree / GREETING_NAME, f":{GREETING_NAME}", env=home)
    run("humount", env=home)


def make_ufs2(path: Path, tree: Path) -> None:
    """Debian's makefs has the superblock at byte 8192, FreeBSD's newfs (and Linux) at 65536.

    What is there is the table of inodes, of which only the first few are in use.
    """
    run("makefs", "-s", "8m", "-f", "600", "-t", "ffs", "-o", "version=2", path, tree)
    with path.open("r+b") as file:
        file.seek(8192)
        block = file.read(1376)
        file.seek(65536)
        if any(file.read(1376)):
            raise ValueError("there is something where the superblock is to be")
        file.seek(65536)
        file.write(block)


ISO = ("genisoimage", "-quiet", "-input-charset", "utf-8", "-o", "{path}")
MAKERS: dict[str, Make] = {
    "ext2": sized(8, "mke2fs", "-q", "-F", "-t", "ext2", "-d", "{tree}"),
    "ext3": sized(16, "mke2fs", "-q", "-F", "-t", "ext3", "-d", "{tree}"),
    "ext4": sized(16, "mke2fs", "-q", "-F", "-t", "ext4", "-d", "{tree}"),
    "xfs4": make_xfs(4),
    "xfs5": make_xfs(5),
    "btrfs": sized(64, "mkfs.btrfs", "-q", "-m", "single", "-d", "single", "--rootdir", "{tree}"),
    "ntfs": make_ntfs,
    "vfat": make_vfat,
    "exfat": sized(16, "mkfs.exfat"),
    "f2fs": sized(64, "mkfs.f2fs", "-q"),
    "hfs": make_hfs,
    "hfsplus": lambda path, _: make_hfsplus(path, 16 * MIB),
    "apfs": sized(520, "mkapfs", "-L", "apple"),
    "ufs1": written("makefs", "-s", "8m", "-t", "ffs", "-o", "version=1", "{path}", "{tree}"),
    "ufs2": make_ufs2,
    "jfs": sized(16, "mkfs.jfs", "-q"),
    "reiserfs": sized(40, "mkfs.reiserfs", "-q", "-ff"),
    "nilfs2": sized(64, "mkfs.nilfs2", "-q", "-B", "16"),
    "rock": written(*ISO, "-R", "{tree}"),
    "joliet": written(*ISO, "-J", "{tree}"),
    "udf": sized(16, "mkudffs"),
    "squashfs": written("mksquashfs", "{tree}", "{path}", "-quiet", "-noappend"),
    "erofs": written("mkfs.erofs", "{path}", "{tree}"),
    "minix": sized(8, "mkfs.minix", "-3"),
}
"""By the name of the partition; `blkid_type` has the type."""

WRITABLE = (
    *("ext2", "ext3", "ext4", "xfs4", "xfs5", "btrfs", "ntfs", "vfat", "exfat", "f2fs", "hfs"),
    *("hfsplus", "jfs", "reiserfs", "nilfs2", "udf", "minix"),
)
"""What the kernel writes, and so can be made to crash."""

SCRIPT = f"""
words="{GREETING.decode().strip()}"
each() {{
    for info in /sys/class/block/sd*/uevent; do
        unset PARTNAME; eval "$(grep -E '^(PARTNAME|DEVNAME)=' $info)"
        [ "${{PARTNAME:-}}" ] || continue
        case " {" ".join(WRITABLE)} " in *" ${{PARTNAME#dirty-}} "*) ;; *) continue;; esac
        case $PARTNAME in $1*) $2 $PARTNAME /dev/$DEVNAME;; esac
    done
}}
open() {{
    type=${{1#dirty-}}
    case $type in xfs*) type=xfs;; ntfs) type=ntfs3;; ext?) type=ext4;; esac
    mkdir -p /run/m/$1
    mount -t $type $2 /run/m/$1
    echo "$words" > /run/m/$1/{GREETING_NAME}
    sync /run/m/$1/{GREETING_NAME}
}}
close() {{
    case $1 in
    dirty-*) return;;
    btrfs)
        open $1 $2
        cd /run/m/btrfs
        mkdir -p folder/deeper
        btrfs -q subvolume create @home
        btrfs -q subvolume create folder/deeper/Übung
        btrfs -q subvolume create folder/deeper/Übung/inner
        echo inside > @home/inside.txt
        btrfs -q subvolume snapshot -r @home snapshot
        btrfs -q subvolume set-default @home
        btrfs subvolume list -pugR . | sed 's/^/SUBVOLUME /'
        cd /;;
    *) open $1 $2;;
    esac
    umount /run/m/$1
}}
late() {{
    echo "$words" > /run/m/$1/{LATE_NAME}
    python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDWR))' /run/m/$1/{LATE_NAME}
}}
each "" close
each dirty- open
sync
# A slow machine must not write to its place what is to be in the journals alone.
echo 0 > /proc/sys/vm/dirty_writeback_centisecs
echo 360000 > /proc/sys/vm/dirty_expire_centisecs
each dirty- late
echo BUILD-DONE
echo 1 > /proc/sys/kernel/sysrq
echo b > /proc/sysrq-trigger
sleep 60
"""


def blkid_type(name: str) -> str:
    """libblkid's TYPE of what is in the partition of that name."""
    kind = name.removeprefix("dirty-")
    if kind in ("rock", "joliet"):
        return "iso9660"
    return kind.rstrip("1245") if kind.startswith(("xfs", "ufs")) else kind


@dataclass(frozen=True)
class Every:
    """The disks, and what the file systems' own tools say: each row of `btrfs subvolume list` by
    its words, and the text of `fsapfsinfo`."""

    clean: Path
    dirty: Path
    subvolumes: list[dict[str, str]]
    apfs: str


def make_every(folder: Path, base: Path, recipe: Path) -> Every:
    """Make the disks; about half a minute."""
    tree = folder / "tree"
    tree.mkdir()
    (tree / GREETING_NAME).write_bytes(GREETING)
    (tree / UMLAUT_NAME).write_bytes(GREETING)
    images = {}
    for name, make in MAKERS.items():
        images[name] = folder / name
        make(images[name], tree)
    apfs = run("fsapfsinfo", images["apfs"]).decode()
    clean = divide(folder / "clean.raw", images)
    dirty = divide(folder / "dirty.raw", {f"dirty-{name}": images[name] for name in WRITABLE})
    text = run_in_guest(base, recipe, SCRIPT, [clean, dirty], folder)
    shutil.rmtree(tree)
    for image in images.values():
        image.unlink()
    rows = re.findall(r"SUBVOLUME ID (\d+) gen (\d+) parent (\d+) .* uuid (\S+)\s+path (\S+)", text)
    words = ("id", "gen", "parent", "uuid", "path")
    return Every(clean, dirty, [dict(zip(words, row, strict=True)) for row in rows], apfs)


def divide(path: Path, images: dict[str, Path]) -> Path:
    """A GPT disk with one partition for each image, named after it, in whole MiB."""
    start, rows = 1, []
    for name, image in images.items():
        size = -(-image.stat().st_size // MIB)
        rows.append(
            Partition(start * MIB // SECTOR, size * MIB // SECTOR, LINUX_TYPE, image, name=name)
        )
        start += size
    return make_disk(path, (start + 1) * MIB, "gpt", rows)
