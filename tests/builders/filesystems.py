"""Small file systems other than ext4, each written by its own tools into a sparse file.

Those that can be filled without mounting hold one file, GREETING_NAME with GREETING.
"""

import tempfile
from pathlib import Path

from tests.builders.command import run
from tests.builders.sparse import make_sparse

GREETING_NAME = "hello.txt"
GREETING = b"Hello from a test image.\n"

VFAT_LABEL_BYTES = 11
VOLUME_LABEL = 0x08


def make_vfat(path: Path, size: int, label: str, serial: str) -> Path:
    """FAT16 with an 8-digit hexadecimal serial number (blkid shows it as 1234-ABCD)."""
    make_sparse(path, size)
    run("mkfs.vfat", "--invariant", "-F", "16", "-s", "1", "-n", label, "-i", serial, path)
    with tempfile.TemporaryDirectory(prefix="vfat-") as folder:
        run("mcopy", "-i", path, greeting_file(Path(folder)), f"::{GREETING_NAME}")
    return path


def set_vfat_label(path: Path, label: bytes) -> None:
    """Store any 11 bytes as the label of a FAT16 image, in boot sector and root directory."""
    if len(label) != VFAT_LABEL_BYTES:
        raise ValueError(f"a FAT label has {VFAT_LABEL_BYTES} bytes, not {len(label)}")
    with path.open("r+b") as file:
        boot = file.read(512)
        sector, reserved = number(boot, 11, 2), number(boot, 14, 2)
        root = (reserved + boot[16] * number(boot, 22, 2)) * sector
        file.seek(root)
        entries = file.read(32 * number(boot, 17, 2))
        rows = range(0, len(entries), 32)
        volume = next(row for row in rows if entries[row + 11] == VOLUME_LABEL)
        for position in (43, root + volume):
            file.seek(position)
            file.write(label)


def number(content: bytes, offset: int, length: int) -> int:
    """A little-endian number."""
    return int.from_bytes(content[offset : offset + length], "little")


def make_swap(path: Path, size: int, label: str | bytes, uuid: str) -> Path:
    """Swap space, version 1."""
    make_sparse(path, size)
    path.chmod(0o600)
    run("mkswap", "-L", label, "-U", uuid, path)
    return path


def make_xfs(path: Path, size: int, label: str | bytes, uuid: str) -> Path:
    """XFS with a greeting; `--unsupported` allows less than 300 MiB."""
    make_sparse(path, size)
    with tempfile.TemporaryDirectory(prefix="xfs-") as folder:
        greeting = greeting_file(Path(folder))
        rows = ["/", "0 0", "d--755 0 0", f"{GREETING_NAME} ---644 0 0 {greeting}", "$", ""]
        prototype = Path(folder, "prototype")
        prototype.write_text("\n".join(rows))
        options = ("--unsupported", "-m", f"uuid={uuid}", "-p", prototype)
        run("mkfs.xfs", "-q", "-f", *options, "-L", label, path)
    return path


def make_btrfs(path: Path, size: int, label: str, uuid: str) -> Path:
    """btrfs with a greeting; one copy of everything, so that 64 MiB are enough."""
    make_sparse(path, size)
    with tempfile.TemporaryDirectory(prefix="btrfs-") as folder:
        greeting_file(Path(folder))
        profile = ("-m", "single", "-d", "single", "--rootdir", folder)
        run("mkfs.btrfs", "-q", *profile, "-L", label, "-U", uuid, path)
    return path


def make_ntfs(path: Path, size: int, label: str, serial: str) -> Path:
    """NTFS with a 16-digit hexadecimal serial number and a greeting."""
    make_sparse(path, size)
    run("mkntfs", "-q", "-F", "-Q", "-s", "512", "-L", label, path)
    run("ntfslabel", f"--new-serial={serial}", path)
    with tempfile.TemporaryDirectory(prefix="ntfs-") as folder:
        run("ntfscp", "-f", path, greeting_file(Path(folder)), GREETING_NAME)
    return path


def make_exfat(path: Path, size: int, label: str, serial: str) -> Path:
    """Empty exFAT with an 8-digit hexadecimal serial number."""
    make_sparse(path, size)
    run("mkfs.exfat", "-L", label, path)
    run("tune.exfat", "-I", f"0x{serial}", path)
    return path


def greeting_file(folder: Path) -> Path:
    """The greeting as a file on the host."""
    path = folder / GREETING_NAME
    path.write_bytes(GREETING)
    return path
