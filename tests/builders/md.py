"""Disks with Linux software RAID, made by mdadm in a guest: the host has no md driver."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.ext4 import make_ext4
from tests.builders.in_guest import run_in_guest
from tests.builders.sparse import make_sparse

PART = 12
"""MiB of each partition."""

INNER_UUID = "e4000000-0000-4000-8000-00000000000d"

NAMES = """
number=0
for letter in a b c d e f g h i j k l; do
    set -- /sys/class/scsi_device/*:0:$number:0/device/block/sd*
    until [ -d "$1" ]; do
        sleep 1
        set -- /sys/class/scsi_device/*:0:$number:0/device/block/sd*
    done
    eval disk_$letter=/dev/${1##*/}
    number=$((number + 1))
done
until [ -b ${disk_a}9 ] && [ -b ${disk_b}9 ] && [ -b ${disk_c}9 ] && [ -b ${disk_d}9 ]; do
    sleep 1
done
"""

SCRIPT = """
make() {
    name=$1 level=$2 metadata=$3; shift 3
    mdadm --create /dev/$name --run --level=$level --raid-devices=$# --metadata=$metadata \
        --homehost=host ${label:+--name=$label} --bitmap=none --assume-clean $options "$@"
}
fill() { /usr/sbin/mke2fs -q -F -t ext4 -L $2 /dev/$1; }
options=
label=0 make md10 1 1.2 /dev/sda1 /dev/sdb1; fill md10 mirror
label=five make md11 5 1.2 /dev/sda2 /dev/sdb2 /dev/sdc2; fill md11 five
label=six make md12 6 1.1 /dev/sda3 /dev/sdb3 /dev/sdc3 /dev/sdd3; fill md12 six
label=ten make md13 10 1.0 /dev/sda4 /dev/sdb4 /dev/sdc4 /dev/sdd4; fill md13 ten
label= make md5 5 0.90 /dev/sda5 /dev/sdb5 /dev/sdc5; fill md5 old
label=7 make md14 4 1.2 /dev/sda6 /dev/sdb6 /dev/sdc6; fill md14 four
label=stale make md15 1 1.2 /dev/sda7 /dev/sdb7; fill md15 before
mdadm /dev/md15 --fail /dev/sdb7
/usr/sbin/e2label /dev/md15 after
mdadm /dev/md15 --remove /dev/sdb7
label=line make md16 0 1.2 /dev/sda8 /dev/sdb8; fill md16 line
label=zero make md18 0 1.2 /dev/sda9 /dev/sdb9 /dev/sdc9; fill md18 zero
label=10 make md17 1 1.0 /dev/sde /dev/sdf
sync
for name in 10 11 12 13 14 15 16 17 18 5; do mdadm --stop /dev/md$name; done
export IMSM_NO_PLATFORM=1 IMSM_DEVNAME_AS_SERIAL=1
firmware() {
    format=$1 label=$2; shift 2
    mdadm --create /dev/md/$format --run -e $format -n 3 "$@"
    mdadm --create /dev/md/$label --run -l 5 -n 3 -c 64 /dev/md/$format --assume-clean
    /usr/sbin/mke2fs -q -F -t ext4 -L $label /dev/md/$label
    sync
    mdadm --stop /dev/md/$label
    mdadm --stop /dev/md/$format
}
firmware imsm intel /dev/sdg /dev/sdh /dev/sdi
firmware ddf snia /dev/sdj /dev/sdk /dev/sdl
for member in a1 a2 a3 a4 a5 a6 a7 b7 a9 e; do
    eval path=\\${disk_${member%%[0-9]*}}${member#?}
    echo "EXAMINE sd$member"
    mdadm --examine --export $path
    mdadm --examine $path
    echo "END"
done
"""


def make_arrays(base: Path, recipe: Path, folder: Path) -> tuple[list[Path], str]:
    """Twelve disks, and what mdadm says of some members: four with nine partitions, two that are
    members as a whole, three of an Intel array, three of one with DDF metadata."""
    disks = []
    for index in range(4):
        rows = [
            Partition((1 + number * PART) * MIB // SECTOR, PART * MIB // SECTOR, kind)
            for number, kind in enumerate(["A19D880F-05FC-4D3B-A006-743F0F84911E"] * 9)
        ]
        path = folder / f"md{index}.raw"
        disks.append(make_disk(path, (2 + 9 * PART) * MIB, "gpt", rows))
    # Metadata 1.0 is at the end: what the disks hold at their start is what the array holds.
    inner = make_ext4(folder / "inner", 4 * MIB, "inner", INNER_UUID)
    table = [Partition(MIB // SECTOR, 4 * MIB // SECTOR, "83", inner)]
    for index in (4, 5):
        path = folder / f"md{index}.raw"
        disks.append(make_disk(path, 8 * MIB, "dos", table, "0x11223344"))
    disks += [make_sparse(folder / f"md{index}.raw", 48 * MIB) for index in range(6, 12)]
    # Disks get their letters in any order: find each by its number on the bus.
    script = re.sub(r"/dev/sd([a-l])", r"${disk_\1}", SCRIPT)
    text = run_in_guest(base, recipe, f"{NAMES}{script}", disks, folder)
    for disk in disks[:2]:
        make_linear(disk, (1 + 7 * PART) * MIB)
    return disks, text


def make_linear(disk: Path, start: int) -> None:
    """Change a member of a RAID 0 with metadata 1.2 into one of a linear array, which today's
    kernels cannot make any more. The superblock is at 4 KiB; level at 72, chunk size at 88,
    checksum (a sum of words) at 216."""
    with disk.open("r+b") as file:
        file.seek(start + 4096)
        block = bytearray(file.read(4096))
        struct.pack_into("<i", block, 72, -1)
        struct.pack_into("<I", block, 216, 0)
        length = 256 + 2 * struct.unpack_from("<I", block, 220)[0]
        total = sum(struct.unpack_from(f"<{length // 4}I", block))
        struct.pack_into("<I", block, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
        file.seek(start + 4096)
        file.write(block)


def copy_disk(disk: Path, name: str) -> Path:
    """Another image with the same bytes."""
    return Path(shutil.copy(disk, disk.with_name(name)))
