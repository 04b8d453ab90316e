"""The benchmark's disk: 2 GiB with swap and an LVM volume full of files, as one qcow2."""

import random
import tempfile
from pathlib import Path

from tests.builders.command import run
from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.filesystems import make_swap
from tests.builders.lvm import PhysicalVolume, Volume, make_group
from tests.builders.sparse import make_sparse
from tests.builders.variants import convert

DISK_SIZE = 2048 * MIB
SWAP_SIZE = 128 * MIB
ROOT_SIZE = 1536 * MIB
CONTENT_SIZE = 127_000_000
LARGEST_FILE = 4 * MIB
EPOCH = 1_711_972_800

SWAP_UUID = "be9c0000-0000-4000-8000-000000000001"
ROOT_UUID = "be9c0000-0000-4000-8000-000000000002"

WORDS = b"the a file system holds many small text files with words that repeat often "


def make_bench_image(path: Path, files: int = 6000, seed: int = 1) -> Path:
    """Build the disk: MBR, partition 1 swap, partition 2 group lvg1 with lvroot (ext4).

    The names, sizes and contents of the files depend only on `files` and `seed`.
    """
    with tempfile.TemporaryDirectory(prefix="bench-", dir=path.parent) as folder:
        work = Path(folder)
        write_tree(work / "tree", files, random.Random(seed))
        root = make_root(work / "root.ext4", work / "tree")
        swap = make_swap(work / "swap", SWAP_SIZE, "bench-swap", SWAP_UUID)
        group_start = MIB + SWAP_SIZE
        group = PhysicalVolume(work / "group", DISK_SIZE - group_start)
        make_group("lvg1", [group], [Volume("lvroot", ROOT_SIZE, root)])
        partitions = [
            Partition(MIB // SECTOR, SWAP_SIZE // SECTOR, "82", swap),
            Partition(group_start // SECTOR, group.size // SECTOR, "8e", group.path),
        ]
        disk = make_disk(work / "disk", DISK_SIZE, "dos", partitions, "0xbe9c0001")
        return convert(disk, path, "qcow2")


def make_root(path: Path, tree: Path) -> Path:
    """The root file system with a copy of the tree."""
    make_sparse(path, ROOT_SIZE)
    names = ("-L", "bench-root", "-U", ROOT_UUID, "-E", "root_owner=0:0")
    env = {"E2FSPROGS_FAKE_TIME": str(EPOCH)}
    run("mke2fs", "-q", "-F", "-t", "ext4", *names, "-d", tree, path, env=env)
    return path


def write_tree(folder: Path, files: int, numbers: random.Random) -> None:
    """Write the files into three levels of directories."""
    for index, size in enumerate(file_sizes(files, numbers)):
        place = folder / f"area{index % 10}" / f"year{index // 10 % 12}" / f"set{index % 7}"
        place.mkdir(parents=True, exist_ok=True)
        name = f"text{index:05}.txt" if index % 2 else f"data{index:05}.bin"
        content = repeated_text(size, index) if index % 2 else numbers.randbytes(size)
        (place / name).write_bytes(content)


def file_sizes(files: int, numbers: random.Random) -> list[int]:
    """Mixed sizes, most of them small, that add up to nearly CONTENT_SIZE."""
    shares = [min(numbers.lognormvariate(0, 1.6), 60) for _ in range(files)]
    scale = CONTENT_SIZE / sum(shares)
    return [min(int(share * scale), LARGEST_FILE) for share in shares]


def repeated_text(size: int, index: int) -> bytes:
    """Text that compresses well, different in every file."""
    line = b"%05d " % index + WORDS + b"\n"
    return (line * (size // len(line) + 1))[:size]
