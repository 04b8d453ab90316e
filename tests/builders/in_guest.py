"""Runs a script as root in the appliance's kernel and root file system, with writable disks.

The host has no device-mapper; what needs one (thin pools, RAID, snapshots) is made in here. The
guest is started by plain QEMU, without any of the product's code but the archive writer.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.initramfs import pack

_FIRST = """#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin LVM_SUPPRESS_FD_WARNINGS=1
while read -r stage module _; do
    case $stage in early|late) modprobe "$module" || echo "modprobe $module failed";; esac
done < /usr/lib/forensic/modules.txt
sh -eu /usr/lib/forensic/script > /dev/ttyS0 2>&1 && echo BUILD-DONE > /dev/ttyS0
sync
/bin/busybox poweroff -f
"""

LVM_CONFIGURATION = """\
devices { use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none" }
activation { udev_sync=0 udev_rules=0 monitoring=0 }
backup { backup=0 archive=0 }
global { use_lvmpolld=0 event_activation=0 }
"""


def run_in_guest(
    base: Path,
    recipe: Path,
    script: str,
    disks: list[Path],
    folder: Path,
    drives: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
) -> str:
    """Run `script` (sh -eu) with `disks` as /dev/sda, /dev/sdb …; return the console's text.

    Disks that are not writable raw files follow as `drives`, in QEMU's words for -drive; `files`
    (path -> content) are put below /usr/lib/forensic.

    `base` is the folder of the appliance's base, `recipe` that of its recipe. Raises
    RuntimeError where the script does not come to its end.
    """
    archive = folder / "initramfs"
    packed = {
        "forensic/first": _FIRST.encode(),
        "forensic/script": script.encode(),
        "forensic/modules.txt": (recipe / "modules.txt").read_bytes(),
        **{f"forensic/{path}": content for path, content in (files or {}).items()},
    }
    archive.write_bytes(
        (base / "base.cpio").read_bytes() + pack(packed, frozenset({"forensic/first"}))
    )
    command = [
        *("qemu-system-x86_64", "-machine", "pc,accel=tcg", "-cpu", "Westmere", "-m", "512"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(base / "vmlinux"), "-initrd", str(archive)),
        *("-append", "console=ttyS0 quiet panic=1 scsi_mod.scan=sync"),
        *("-drive", f"file={base / 'rootfs.erofs'},format=raw,if=none,id=root,readonly=on"),
        *("-device", "virtio-blk-pci,drive=root", "-device", "virtio-scsi-pci,id=scsi0"),
    ]
    writable = [f"file={disk},format=raw" for disk in disks]
    for index, drive in enumerate([*writable, *(f"{each},readonly=on" for each in drives)]):
        command += ["-drive", f"{drive},if=none,id=disk{index}"]
        command += ["-device", f"scsi-hd,drive=disk{index},scsi-id={index}"]
    done = subprocess.run(command, capture_output=True, timeout=600, check=False)
    text = done.stdout.decode(errors="replace")
    if "BUILD-DONE" not in text:
        raise RuntimeError(f"the build in the guest failed:\n{text}\n{done.stderr.decode()}")
    return text
