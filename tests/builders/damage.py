"""Small file systems with one thing wrong in each, in as many structures as a type has.

What a damage breaks is in its name. The places are those of the formats' own documentation, found
through the tools that print them (dumpe2fs, debugfs, xfs_db) or through the boot sector.
"""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.builders.command import run
from tests.builders.disk import MIB
from tests.builders.ext4 import Entry, make_ext4
from tests.builders.filesystems import make_btrfs, make_exfat, make_ntfs, make_vfat, make_xfs

Damage = Callable[[Path], None]
SIZES = {"ext4": 8, "xfs": 32, "btrfs": 64, "ntfs": 8, "vfat": 8, "exfat": 8}
"""MiB of the whole file system."""


def make_damaged(kind: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and image of one whole file system, then of each damaged copy."""
    whole = folder / f"{kind}-whole"
    _MAKERS[kind](whole)
    yield "whole", whole
    for name, damage in _DAMAGES[kind](whole).items():
        path = Path(shutil.copy(whole, folder / f"{kind}-{name.replace(' ', '-')}"))
        damage(path)
        yield name, path


def overwrite(offset: int, data: bytes) -> Damage:
    """Replace bytes."""

    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return damage


def invert(offset: int, length: int) -> Damage:
    """Turn every bit of some bytes."""

    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            data = file.read(length)
            file.seek(offset)
            file.write(bytes(each ^ 0xFF for each in data))

    return damage


def noise(offset: int, length: int, seed: int) -> Damage:
    """Random bytes, always the same ones."""
    return overwrite(offset, random.Random(seed).randbytes(length))


# --- ext4 ---------------------------------------------------------------------------------------


def _ext4(path: Path) -> None:
    files = [Entry("/dir")]
    files += [Entry(f"/dir/file{n}", bytes([n]) * 5000 * n) for n in range(1, 20)]
    files += [Entry("/link", target="dir/file1"), Entry("/long", target="x" * 100)]
    make_ext4(path, 8 * MIB, "damage", "e4000000-0000-4000-8000-00000000da3a", files)


def _debugfs(*commands: str) -> Damage:
    def damage(path: Path) -> None:
        run("debugfs", "-w", "-f", "-", path, stdin="\n".join(commands).encode() + b"\n")

    return damage


def _ext4_damages(whole: Path) -> dict[str, Damage]:
    text = run("dumpe2fs", whole).decode()
    block = int(text.split("Block size:")[1].split()[0])

    def place(name: str) -> int:
        return int(text.split(f"{name} at ")[1].split()[0].split("-")[0].rstrip(",")) * block

    directory = int(run("debugfs", "-R", "blocks /dir", whole).split()[0]) * block
    return {
        "superblock": overwrite(1024, bytes(1024)),
        "superblock free count": _debugfs("ssv free_blocks_count 7"),
        "superblock inode count": overwrite(1024, b"\xff\xff\xff\x7f"),
        "superblock checksum": invert(1024 + 1020, 4),
        "group descriptor": _debugfs("set_bg 0 inode_table 3"),
        "group descriptor checksum": _debugfs("set_bg 0 checksum 0x1234"),
        "block bitmap": invert(place("Block bitmap"), 64),
        "inode bitmap": invert(place("Inode bitmap"), 8),
        "inode mode": _debugfs("sif /dir/file3 mode 0130000"),
        "inode links": _debugfs("sif /dir/file4 links_count 9"),
        "inode size": _debugfs("sif /dir/file5 size 99999999"),
        "inode blocks": _debugfs("sif /dir/file6 blocks 7777"),
        "inode cleared": _debugfs("clri /dir/file7"),
        "inode table": noise(place("Inode table") + 11 * 256, 1024, 1),
        "extent beyond the end": _debugfs("sif /dir/file8 block[5] 0x7fffffff"),
        "extent magic": _debugfs("sif /dir/file9 block[0] 0x12345678"),
        "directory entry": overwrite(directory + 24, b"\xff\xff\xff\x7f"),
        "directory noise": noise(directory, block, 2),
        "root cleared": _debugfs("clri <2>"),
        "orphan": _debugfs("unlink /dir/file10"),
        "journal inode": _debugfs("clri <8>"),
        "link target": _debugfs("sif /long size 5000"),
    }


# --- XFS ----------------------------------------------------------------------------------------


def _xfs_db(*commands: str) -> Damage:
    def damage(path: Path) -> None:
        words = [word for command in commands for word in ("-c", command)]
        run("xfs_db", "-x", *words, path)

    return damage


def _xfs_damages(whole: Path) -> dict[str, Damage]:
    root = run("xfs_db", "-c", "sb 0", "-c", "p rootino", whole).decode().split()[-1]
    return {
        "superblock": overwrite(0, bytes(512)),
        "superblock free count": _xfs_db("sb 0", "write -d fdblocks 7"),
        "superblock inode count": _xfs_db("sb 0", "write -d icount 3"),
        "superblock noise": noise(64, 64, 3),
        "free space header": _xfs_db("agf 0", "write -d flcount 77"),
        "free space longest": _xfs_db("agf 0", "write -d longest 1"),
        "free space magic": _xfs_db("agf 1", "write -d magicnum 0"),
        "inode header count": _xfs_db("agi 0", "write -d count 9999"),
        "inode header root": _xfs_db("agi 0", "write -d root 9999"),
        "free list": noise(3 * 512, 64, 4),
        "free space tree": _xfs_db("agf 0", "addr bnoroot", "write -d numrecs 0"),
        "free size tree": _xfs_db("agf 0", "addr cntroot", "write -d magic 0"),
        "inode tree": _xfs_db("agi 0", "addr root", "write -d numrecs 0"),
        "root inode mode": _xfs_db(f"inode {root}", "write -d core.mode 0100644"),
        "root inode links": _xfs_db(f"inode {root}", "write -d core.nlinkv2 77"),
        "file size": _xfs_db(f"inode {int(root) + 3}", "write -d core.size 999999999"),
    }


# --- btrfs --------------------------------------------------------------------------------------


def _btrfs_damages(whole: Path) -> dict[str, Damage]:
    def tree(name: str) -> int:
        """Byte on the device of a tree's first node; logical and physical are told apart by the
        chunk that it lies in."""
        words = run("btrfs", "inspect-internal", "dump-tree", "-t", name, whole).decode()
        logical = int(next(w for w in words.splitlines() if w.startswith("leaf")).split()[1])
        chunks = run("btrfs", "inspect-internal", "dump-tree", "-t", "chunk", whole).decode()
        start, length = 0, 0
        for line in chunks.splitlines():
            if "CHUNK_ITEM" in line:
                start = int(line.split("CHUNK_ITEM")[1].split(")")[0])
            elif line.strip().startswith("length"):
                length = int(line.split()[1])
            elif "stripe 0" in line and start <= logical < start + length:
                return logical - start + int(line.split("offset")[1].split()[0])
        raise ValueError(f"{logical} is in no chunk")

    trees = {name: tree(name) for name in ("root", "extent", "chunk", "dev", "fs", "csum")}
    damages = {f"{name} tree checksum": invert(at, 4) for name, at in trees.items()}
    damages |= {f"{name} tree noise": noise(at + 101, 200, at) for name, at in trees.items()}
    super_at = 0x10000
    return damages | {
        "superblock checksum": invert(super_at, 4),
        "superblock generation": overwrite(super_at + 0x48, struct.pack("<Q", 999)),
        "superblock root": overwrite(super_at + 0x50, struct.pack("<Q", 12345 * 4096)),
        "fs tree cleared": overwrite(trees["fs"], bytes(16384)),
    }


# --- NTFS, FAT, exFAT ---------------------------------------------------------------------------


def _number(path: Path, offset: int, length: int) -> int:
    with path.open("rb") as file:
        file.seek(offset)
        return int.from_bytes(file.read(length), "little")


def _ntfs_damages(whole: Path) -> dict[str, Damage]:
    cluster = _number(whole, 11, 2) * _number(whole, 13, 1)
    mft, mirror = _number(whole, 48, 8) * cluster, _number(whole, 56, 8) * cluster
    damages = {f"mft record {n}": invert(mft + n * 1024 + 22, 40) for n in range(8)}
    return damages | {
        "boot sector": overwrite(0, bytes(512)),
        "boot sector end": overwrite(8 * MIB - 512, bytes(512)),
        "mft cleared": overwrite(mft, bytes(4096)),
        "mirror cleared": overwrite(mirror, bytes(4096)),
        "mirror differs": invert(mirror + 1024 + 60, 16),
        "mft place": overwrite(48, struct.pack("<Q", 3)),
        "cluster size": overwrite(13, b"\x03"),
        "fixup": invert(mft + 510, 2),
    }


def _fat_damages(whole: Path) -> dict[str, Damage]:
    sector, reserved = _number(whole, 11, 2), _number(whole, 14, 2)
    length, copies, entries = _number(whole, 22, 2), _number(whole, 16, 1), _number(whole, 17, 2)
    first = reserved * sector
    second, root = first + length * sector, first + copies * length * sector
    assert entries
    file = root + 32  # behind the label
    return {
        "dirty bit": overwrite(37, b"\x01"),
        "first table": noise(first + 4, 16, 5),
        "second table": noise(second + 4, 16, 6),
        "table differs": overwrite(second + 100, b"\x12\x34"),
        "media byte": overwrite(first, b"\x00"),
        "chain loop": overwrite(first + 4, struct.pack("<H", 2)),
        "chain beyond the end": overwrite(first + 4, struct.pack("<H", 0xFFF0 - 1)),
        "lost cluster": overwrite(first + 200, struct.pack("<H", 0xFFFF)),
        "bad start": overwrite(file + 26, struct.pack("<H", 0x7FFF)),
        "start is free": overwrite(file + 26, struct.pack("<H", 500)),
        "size too large": overwrite(file + 28, struct.pack("<I", 0x7FFFFFFF)),
        "size zero": overwrite(file + 28, struct.pack("<I", 0)),
        "name": overwrite(file, b'\x01"*<>|?'),
        "entry noise": noise(file, 32, 7),
        "second label": overwrite(file + 11, b"\x08"),
        "backup signature": overwrite(510, b"\0\0"),
    }


def _exfat_damages(whole: Path) -> dict[str, Damage]:
    table = _number(whole, 80, 4) * 512
    heap = _number(whole, 88, 4) * 512
    cluster = 512 << _number(whole, 109, 1)
    root = heap + (_number(whole, 96, 4) - 2) * cluster
    damages = {f"boot field {n}": invert(n, 4) for n in (64, 72, 80, 84, 88, 92, 96)}
    return damages | {
        "boot checksum": invert(11 * 512, 4),
        "backup boot": overwrite(12 * 512, bytes(512)),
        "dirty": overwrite(106, b"\x02"),
        "table start": invert(table, 8),
        "root chain": overwrite(table + 4 * _number(whole, 96, 4), b"\0\0\0\0"),
        "bitmap": invert(heap, 16),
        "bitmap entry": overwrite(root + 32 + 20, b"\xff\xff\xff\x7f"),
        "upcase": invert(root + 64 + 4, 4),
        "root noise": noise(root + 96, 64, 8),
    }


_MAKERS: dict[str, Callable[[Path], object]] = {
    "ext4": _ext4,
    "xfs": lambda path: make_xfs(path, 32 * MIB, "damage", "da3a0000-0000-4000-8000-000000000001"),
    "btrfs": lambda path: make_btrfs(
        path, 64 * MIB, "damage", "da3a0000-0000-4000-8000-000000000002"
    ),
    "ntfs": lambda path: make_ntfs(path, 8 * MIB, "damage", "da3a000000000003"),
    "vfat": lambda path: make_vfat(path, 8 * MIB, "DAMAGE", "DA3A0004"),
    "exfat": lambda path: make_exfat(path, 8 * MIB, "damage", "DA3A0005"),
}
_DAMAGES: dict[str, Callable[[Path], dict[str, Damage]]] = {
    "ext4": _ext4_damages,
    "xfs": _xfs_damages,
    "btrfs": _btrfs_damages,
    "ntfs": _ntfs_damages,
    "vfat": _fat_damages,
    "exfat": _exfat_damages,
}
