"""Make office.vmdk, the sample disk of the documentation: a small office's file server.

128 MiB with an MBR: partition 1 is swap, partition 2 the LVM group `lvg1` with `lvroot` (ext4,
from the files in office/), `lvbackup` (ext4) and free extents. All names and events are invented.

Run it with the project's Python: `python docs/samples/make_office.py [TARGET]`. It needs
e2fsprogs, fdisk, util-linux and qemu-utils, but no root. The same versions of these give the same
bytes.
"""

import re
import struct
import sys
import tempfile
from pathlib import Path

SAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(SAMPLES.parents[1]))

from tests.builders.disk import MIB, SECTOR, Partition, make_disk  # noqa: E402
from tests.builders.ext4 import Entry, make_ext4  # noqa: E402
from tests.builders.filesystems import make_swap  # noqa: E402
from tests.builders.lvm import PhysicalVolume, Volume, make_group  # noqa: E402
from tests.builders.variants import convert  # noqa: E402

DISK_SIZE = 128 * MIB
SWAP_SIZE = 16 * MIB
GROUP_START = MIB + SWAP_SIZE
DISK_ID = "0x0ff1ce12"

INSTALLED = 1_705_312_800  # 2024-01-15 10:00 UTC
IN_USE = 1_711_972_800  # 2024-04-01 12:00 UTC

EMPTY_FOLDERS = ("boot", "dev", "proc", "run", "sys", "tmp", "var/backups", "var/tmp")

LINKS = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "etc/mtab": "../proc/self/mounts",
    "etc/os-release": "../usr/lib/os-release",
    "home/anna/reports": "/srv/reports",
}

# The first pattern that matches a path gives its owner, group and mode (folders need their x).
RIGHTS = (
    (r"root$", 0, 0, 0o700),
    (r"root/", 0, 0, 0o600),
    (r"(var/)?tmp$", 0, 0, 0o1777),
    (r"etc/shadow$", 0, 42, 0o640),
    (r"var/log/(auth.log|syslog)$", 0, 4, 0o640),
    (r"usr/bin/|usr/local/sbin/", 0, 0, 0o755),
    (r"srv/reports$", 0, 1002, 0o2775),
    (r"srv/reports/", 1000, 1002, 0o664),
    (r"home/anna$", 1000, 1000, 0o750),
    (r"home/ben$", 1001, 1001, 0o750),
    (r"home/anna/Documents$", 1000, 1000, 0o755),
    (r"home/\w+/.bash_history$|home/anna/Documents/", 1000, 1000, 0o600),
    (r"home/anna/", 1000, 1000, 0o644),
)


def main() -> None:
    """Make the disk where the argument says, or beside this script."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES / "office.vmdk"
    with tempfile.TemporaryDirectory(prefix="office-") as folder:
        disk = make_office(Path(folder))
        convert(disk, target, "vmdk", ("-o", "subformat=streamOptimized"))
    fix_content_id(target)


def make_office(work: Path) -> Path:
    """Make the raw disk in a folder for temporary files."""
    entries = root_entries(SAMPLES / "office")
    root = make_ext4(work / "root", 48 * MIB, "office-root", uuid(2), entries)
    copies = backup_entries(entries)
    backup = make_ext4(work / "backup", 16 * MIB, "office-backup", uuid(3), copies)
    swap = make_swap(work / "swap", SWAP_SIZE, "office-swap", uuid(1))
    group = PhysicalVolume(work / "group", DISK_SIZE - GROUP_START)
    volumes = [Volume("lvroot", 48 * MIB, root), Volume("lvbackup", 16 * MIB, backup)]
    make_group("lvg1", [group], volumes)
    partitions = [
        Partition(MIB // SECTOR, SWAP_SIZE // SECTOR, "82", swap),
        Partition(GROUP_START // SECTOR, group.size // SECTOR, "8e", group.path),
    ]
    return make_disk(work / "disk", DISK_SIZE, "dos", partitions, DISK_ID)


def uuid(number: int) -> str:
    """The UUID of the disk's numbered part."""
    return f"0ff1ce00-0000-4000-8000-{number:012}"


def root_entries(tree: Path) -> list[Entry]:
    """The files of the tree, the folders that git can't keep, and the links; parents first."""
    found = [
        entry(str(path.relative_to(tree)), path.read_bytes() if path.is_file() else None)
        for path in tree.rglob("*")
    ]
    folders = [entry(path) for path in EMPTY_FOLDERS]
    links = [Entry(path, target=target, mtime=INSTALLED) for path, target in LINKS.items()]
    return sorted([*found, *folders, *links], key=lambda made: made.path.split("/"))


def backup_entries(root: list[Entry]) -> list[Entry]:
    """What the nightly job copied: the reports and the list of users."""
    reports = [Entry("reports", mode=0o2775, gid=1002, mtime=IN_USE)]
    for source in root:
        if source.path.startswith("srv/reports/") or source.path in ("etc/passwd", "etc/group"):
            path = source.path.removeprefix("srv/").removeprefix("etc/")
            reports.append(Entry(path, source.content, None, source.mode, source.uid, source.gid))
    return reports


def entry(path: str, content: bytes | None = None) -> Entry:
    """A file or a folder with its owner, mode and time."""
    default = (0, 0, 0o755 if content is None else 0o644)
    matches = (rights[1:] for rights in RIGHTS if re.match(rights[0], path))
    uid, gid, mode = next(matches, default)
    if path.startswith("home/ben"):
        uid = gid = 1001
    changed = path.startswith(("home", "srv", "var/log", "root", "tmp"))
    return Entry(path, content, None, mode, uid, gid, IN_USE if changed else INSTALLED)


def fix_content_id(vmdk: Path) -> None:
    """Replace the random content ID (of 1 to 8 digits) that qemu-img writes.

    Where the descriptor is, in sectors, stands at byte 28 of the header.
    """
    content = vmdk.read_bytes()
    start, size = (number * SECTOR for number in struct.unpack_from("<QQ", content, 28))
    text = content[start : start + size].rstrip(b"\0")
    text = re.sub(rb"\nCID=[0-9a-f]+\n", b"\nCID=0ff1ce12\n", text, count=1)
    vmdk.write_bytes(content[:start] + text.ljust(size, b"\0") + content[start + size :])


if __name__ == "__main__":
    main()
