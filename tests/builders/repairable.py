"""Damages file systems in known ways, with the tools that come with them or by hand."""

from collections.abc import Callable
from pathlib import Path

from tests.builders.command import ToolError, execute, run

EXT_DAMAGES: dict[str, Callable[[Path], None]] = {}
"""By name: what it does to an ext4 image that holds /etc/a, /etc/b and /docs/c."""


def _debugfs(name: str, *commands: str) -> None:
    def damage(image: Path) -> None:
        script = "\n".join([*commands, ""]).encode()
        done = execute("debugfs", "-w", "-f", "-", image, stdin=script)
        errors = [line for line in done.stderr.splitlines() if not line.startswith(b"debugfs 1.")]
        if errors or done.returncode != 0:
            raise ToolError(f"debugfs: {errors}")

    EXT_DAMAGES[name] = damage


_debugfs("free counts of the superblock", "ssv free_blocks_count 7", "ssv free_inodes_count 1")
_debugfs("an inode without a name", "unlink /etc/a")
_debugfs("a name without an inode", "clri /etc/a")
_debugfs("a link count", "sif /etc/a links_count 9")
_debugfs("the size of a file", "sif /docs/c size 1")
_debugfs("a folder that is a file", "sif /etc mode 0100644")
_debugfs("blocks that count as free", "freeb 1000 64")
_debugfs("an inode that counts as free", "freei /etc/b")
_debugfs("a block count", "sif /docs/c blocks 2")
_debugfs("a lost root of lost+found", "rmdir /lost+found")
_debugfs("counts of a group", "set_bg 0 free_blocks_count 3", "set_bg 0 used_dirs_count 77")


def damage_vfat(image: Path) -> None:
    """The two copies of the table differ."""
    boot = image.read_bytes()[:512]
    reserved, length = int.from_bytes(boot[14:16], "little"), int.from_bytes(boot[22:24], "little")
    with image.open("r+b") as file:
        file.seek((reserved + length) * 512 + 100)
        file.write(b"\x12\x34\x56\x78")


def damage_xfs(image: Path) -> None:
    """The counts of the first group are wrong, with a right checksum."""
    run("xfs_db", "-x", "-c", "agf 0", "-c", "write -d freeblks 5", image)
