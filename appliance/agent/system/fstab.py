"""What a system mounts: fstab(5), each entry with the layer that it means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from appliance.agent.system.devices import Devices
from appliance.agent.system.files import Files, clipped
from appliance.layer import MAX_TEXT
from appliance.system import MountEntry

_MAX_MOUNTS = 512
_OCTAL = re.compile(r"\\([0-7]{3})")
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smbfs",
    "smb3",
    "sshfs",
    "fuse.sshfs",
    "ceph",
    "glusterfs",
    "9p",
}
_WITHOUT_DEVICE = {
    "tmpfs", "proc", "sysfs", "devpts", "devtmpfs", "cgroup", "cgroup2", "debugfs", "securityfs",
    "efivarfs", "hugetlbfs", "mqueue", "configfs", "tracefs", "binfmt_misc", "usbfs", "overlay",
    "autofs", "ramfs", "fdescfs", "procfs", "linprocfs", "kernfs", "ptyfs", "mfs",
}  # fmt: skip


def read_fstab(files: Files, devices: Devices, path: str = "etc/fstab") -> list[MountEntry]:
    """The entries in their order."""
    entries = files.bounded(parse(files.lines(path, 1 << 20)), "mounts", _MAX_MOUNTS)
    return [resolved(each, devices) for each in entries]


def parse(lines: Iterable[str]) -> Iterator[MountEntry]:
    """Entries without layers. What is short of fields is none."""
    for line in lines:
        fields = line.split()
        if len(fields) < 2 or fields[0].startswith("#"):
            continue
        source, path, kind, options = [*map(_decoded, fields[:4]), "", ""][:4]
        yield MountEntry(source, path, clipped(kind), clipped(options))


def resolved(entry: MountEntry, devices: Devices) -> MountEntry:
    """The entry with its layer, or with the reason why it has none."""
    options = (entry.options or "").split(",")
    layer: str | None = None
    note: str | None
    if entry.type in _WITHOUT_DEVICE or entry.source in {"none", "tmpfs", "proc"}:
        note = "not on a disk"
    elif entry.type in _NETWORK or re.match(r"//|[^/]+:/", entry.source):
        note = "on the network"
    elif {"bind", "rbind"} & set(options):
        note = "a folder of this system"
    else:
        layer, note = devices.find(entry.source)
    if layer and (subvolume := subvolume_of(entry)):
        note = "; ".join(filter(None, [note, f"subvolume {subvolume}"]))
    return MountEntry(entry.source, entry.path, entry.type, entry.options, layer, clipped(note))


def subvolume_of(entry: MountEntry) -> str | None:
    """The btrfs subvolume that an entry names by its path."""
    for option in (entry.options or "").split(","):
        key, _, value = option.partition("=")
        if key == "subvol":
            return value.strip('"') or None
    return None


def subvolume_number(entry: MountEntry) -> int | None:
    """The btrfs subvolume that an entry names by its number; None for the default one."""
    match = re.search(r"(?:^|,)subvolid=(\d{1,19})(?:,|$)", entry.options or "")
    return int(match[1]) if match else None


def _decoded(field: str) -> str:
    """Blanks are octal escapes, see getmntent(3)."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8) & 0xFF), field)[:MAX_TEXT]
