"""Prepares a freshly booted guest for being saved: modules, settings, and every tool run once.

What a tool reads is in the page cache when the state is saved and there after every restore.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from appliance.agent import cgroup, lvm, overlay
from appliance.agent.command import run
from appliance.agent.device import seal
from appliance.agent.mapper import map_devices
from appliance.agent.outcome import Outcome
from appliance.agent.provision import make_key
from appliance.agent.system import rpm
from appliance.agent.versions import tool_versions
from appliance.agent.work import Work
from appliance.layer import Finding, Layer
from appliance.protocol import Body, ProtocolError, Wanted

_RECIPE = Path("/usr/lib/forensic/modules.txt")
_TIMEOUT = 120.0
_RAM_DISK = ("rd_nr=1", "rd_size=131072")
"""One of at most 128 MiB for the rehearsal; it takes memory only for what is written to it."""

_SETTINGS = {
    "kernel/panic_on_oops": "1",
    "kernel/kptr_restrict": "2",
    "kernel/sysrq": "0",
    # None: asking for an algorithm that is not there would start a process each time, in vain.
    "kernel/modprobe": "\n",
    "kernel/unprivileged_bpf_disabled": "1",
    "kernel/kexec_load_disabled": "1",
    "user/max_user_namespaces": "0",
    "dev/raid/speed_limit_min": "0",
    # A RAID volume on an overlay must not spend the guest's memory on a resync.
    "dev/raid/speed_limit_max": "1",
    "vm/panic_on_oom": "1",
}


def prepare() -> None:
    """Load what the recipe lists, lock the kernel down, and set up LVM. Run once at boot."""
    for line in _RECIPE.read_text().splitlines():
        if words := line.split("#")[0].split():
            arguments = _RAM_DISK if words[1] == "brd" else ()
            _must(["modprobe", words[1], *arguments])
    for name, value in _SETTINGS.items():
        Path("/proc/sys", name).write_text(value)
    # From here on no code enters the kernel, whatever evidence does to it.
    Path("/proc/sys/kernel/modules_disabled").write_text("1")
    cgroup.prepare()
    Path("/etc/lvm/lvm.conf").write_text(lvm.CONFIGURATION)
    overlay.STORE.mkdir()
    _must(["mount", "-t", "tmpfs", "-o", overlay.STORE_OPTIONS, "overlays", str(overlay.STORE)])


def rehearse() -> None:
    """Run the whole way once on a small volume group in a ram disk, then forget it.

    There are two images in its file system, one for QEMU to parse, and one for a loop device.
    """
    disk = "/dev/ram0"
    images = "/run/images"
    Path(images).mkdir()
    for command in (
        f"qemu-img create -q -f qcow2 {images}/image.qcow2 1M",
        f"truncate -s 1M {images}/image.raw",
        f"pvcreate -q -y {disk}",
        f"vgcreate -q warm {disk}",
        "lvcreate -q -y -Wn -Zn -L 16M -n linear warm",
        f"mke2fs -q -F -t ext4 -d {images} /dev/warm/linear",
        "lvcreate -q -y -s -L 8M -n copy warm/linear",
        "vgchange -q -an warm",
    ):
        _must(command.split())
    seal(disk)
    shutil.rmtree(images)
    found: list[Body] = []
    names = [f"warm/linear:/image.{each}" for each in ("qcow2", "raw")]
    with ExitStack() as stack:
        wanted = Wanted(nested=True, open=names)
        map_devices([("rehearsal", disk)], Work(Outcome(found.append), stack, wanted=wanted))
    layers = [each for each in found if isinstance(each, Layer)]
    contents = [layer.content.type for layer in layers if layer.content]
    opened = [layer.address for layer in layers if layer.image]
    if contents != ["LVM2_member", "ext4", "ext4"] or opened != names:
        findings = [each.message for each in found if isinstance(each, Finding)]
        raise ProtocolError(
            f"the rehearsal found {contents}, opened {opened} and says: {'; '.join(findings)}"
        )
    _clear(disk)
    rpm.warm("/run/no-database")
    tool_versions()
    make_key()
    lvm.standby.fill(2)


def _clear(disk: str) -> None:
    _must(["blockdev", "--setrw", disk])
    _must(["blockdev", "--flushbufs", disk])


def _must(argv: list[str]) -> None:
    done = run(argv, timeout=_TIMEOUT)
    if done.status != 0:
        raise ProtocolError(f"{' '.join(argv)}: {done.stderr.decode(errors='replace').strip()}")
