"""Disks with a made-up Windows on them, in an MBR and in a GPT, and with what is hostile.

NTFS gets its folders in a guest, by the kernel's driver: no tool writes them into a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.builders.command import run
from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.ext4 import Entry, make_ext4
from tests.builders.filesystems import make_ntfs, make_vfat
from tests.builders.in_guest import run_in_guest
from tests.builders.regf import Key, binary, hive, sz
from tests.builders.regf_log import dirty, entry, new_log
from tests.builders.windows import (
    UNINSTALL,
    by_guid,
    by_signature,
    hives,
    program,
    software_hive,
    system_hive,
)

SIGNATURE = 0x0BADCAFE
DATA = "6a1f9a3e-0c2d-4e5b-8f70-1a2b3c4d5e6f"
HOSTILE = "6a1f9a3e-0c2d-4e5b-8f70-1a2b3c4d5e70"
OLD = "6a1f9a3e-0c2d-4e5b-8f70-1a2b3c4d5e71"
_BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
_PART = MIB // SECTOR
_COPY = """
mkdir /from /to
mount -t ext4 -o ro,noload /dev/sdb /from
mount -t ntfs3 /dev/sda2 /to
cp -r /from/. /to/
rm -r /to/lost+found
umount /to
"""


def letters() -> dict[str, bytes]:
    """C: is disk0/p2, D: is disk1/p1, X: is nowhere."""
    return {
        "C:": by_signature(SIGNATURE, 17 * MIB),
        "D:": by_guid(DATA),
        "X:": by_signature(0x11111111, MIB),
    }


def windows_disks(folder: Path, base: Path, recipe: Path) -> list[Path]:
    """The MBR disk with two NTFS partitions, and the GPT disk with NTFS and two of FAT."""
    return [_system_disk(folder, base, recipe), _other_disk(folder)]


def _system_disk(folder: Path, base: Path, recipe: Path) -> Path:
    reserved = make_ntfs(folder / "reserved", 8 * MIB, "System Reserved", "0011223344556677")
    windows = make_ntfs(folder / "windows", 24 * MIB, "Windows", "0011223344556688")
    rows = [
        Partition(1 * _PART, 16 * _PART, "7", reserved, bootable=True),
        Partition(17 * _PART, 32 * _PART, "7", windows),
    ]
    disk = make_disk(folder / "system.raw", 64 * MIB, "dos", rows, f"{SIGNATURE:#x}")
    config = "WINDOWS/system32/Config"
    found = hives(letters())
    changed = software_hive()
    changed.put(UNINSTALL + r"\New", sz("DisplayName", "Installed last"))
    unended = dirty(found["SOFTWARE"])
    found["SOFTWARE.LOG1"] = new_log(unended, [entry(8, found["SOFTWARE"], hive(changed))])
    found["SOFTWARE"] = unended
    files = {
        "WINDOWS/system32/NTOSKRNL.exe": program(0x8664),
        **{f"{config}/{name.lower()}": data for name, data in found.items()},
        "winnt/System32/config/software": hive(software_hive()),
        "winnt/System32/config/system": hive(system_hive({})),
        "hiberfil.sys": b"HIBR".ljust(8192, b"\0"),
    }
    payload = make_ext4(folder / "payload", 8 * MIB, "payload", DATA, _entries(files))
    run_in_guest(base, recipe, _COPY, [disk, payload], folder)
    return disk


def _entries(files: Mapping[str, bytes]) -> list[Entry]:
    folders = {str(each) for name in files for each in Path(name).parents if str(each) != "."}
    inside = [Entry(name, content) for name, content in files.items()]
    return [*(Entry(each) for each in sorted(folders)), *inside]


def _other_disk(folder: Path) -> Path:
    hostile = make_vfat(folder / "hostile", 8 * MIB, "HOSTILE", "1a2b3c4d")
    _put(hostile, folder, _hostile_files())
    old = make_vfat(folder / "old", 8 * MIB, "OLD", "1a2b3c4e")
    _put(
        old, folder, {"WINDOWS/SYSTEM.DAT": b"CREG", "MSDOS.SYS": b"[Options]\r\nWinVer=4.10.2222"}
    )
    data = make_ntfs(folder / "data", 8 * MIB, "Data", "0011223344556699")
    rows = [
        Partition(1 * _PART, 8 * _PART, _BASIC_DATA, data, uuid=DATA),
        Partition(9 * _PART, 8 * _PART, _BASIC_DATA, hostile, uuid=HOSTILE),
        Partition(17 * _PART, 8 * _PART, _BASIC_DATA, old, uuid=OLD),
    ]
    return make_disk(folder / "other.raw", 32 * MIB, "gpt", rows)


def _hostile_files() -> dict[str, bytes]:
    """SYSTEM loses its end, SOFTWARE's root is its own child, twice, and SAM is none."""
    root = system_hive({})
    root.values.append(binary("last", bytes(16000)))
    system = hive(root)
    root = software_hive()
    root.lists = "li"
    root.subkeys += [Key("X"), Key("Y")]
    software = bytearray(hive(root))
    at = software.index(b"li\4\0")
    software[at + 12 : at + 20] = software[36:40] * 2
    config = "Windows/System32/config"
    return {
        f"{config}/SYSTEM": system[: len(system) - 4096],
        f"{config}/SOFTWARE": bytes(software),
        f"{config}/SAM": b"regf" + bytes(range(256)) * 64,
        "hiberfil.sys": b"\xff" * 4096,
    }


def _put(image: Path, folder: Path, files: Mapping[str, bytes]) -> None:
    source = folder / "file"
    for each in _entries(files):
        if each.content is None:
            run("mmd", "-i", image, f"::{each.path}")
        else:
            source.write_bytes(each.content)
            run("mcopy", "-i", image, source, f"::{each.path}")
