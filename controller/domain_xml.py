"""The guest's domain and its evidence disks, as libvirt's XML (https://libvirt.org/formatdomain.html).

Pure functions, tested against golden files. What a name in here stands for is libvirt's word for
it, so that libvirt's documentation is the documentation.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from appliance.protocol import PORT_NAME
from controller.errors import EvidenceRefused
from images.quoting import shown

Accelerator = Literal["kvm", "tcg"]

CPU_MODEL = "Westmere"
"""A named model with AES that QEMU emulates completely and every current processor offers: a
saved state must not depend on what a host's processor has beyond it."""

KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=1 oops=panic lockdown=confidentiality "
    "module.sig_enforce=1 slab_nomerge random.trust_cpu=off"
)


@dataclass(frozen=True, slots=True)
class DomainPaths:
    """Where things are in the cell; the same in every cell, so that a saved domain fits."""

    kernel: str
    initramfs: str
    rootfs: str
    port: str
    console: str


def domain(accelerator: Accelerator, memory: int, processors: int, paths: DomainPaths) -> str:
    """Return the domain's XML. `memory` is in MiB, `processors` virtual ones.

    What is not here is not in the guest: no network, graphics, sound, USB, shared folder, balloon.
    """
    root = ET.Element("domain", type="kvm" if accelerator == "kvm" else "qemu")
    _add(root, "name", "forensic")
    _add(root, "uuid", "6f2c1f0e-6a57-4c64-9c1b-666f72656e73")
    # libvirt draws a new value at every restore, and the guest's kernel reseeds when it changes.
    _add(root, "genid")
    _add(root, "memory", str(memory), unit="MiB", dumpCore="off")
    _add(root, "vcpu", str(processors))
    os = _add(root, "os")
    _add(os, "type", "hvm", arch="x86_64", machine="pc")
    _add(os, "kernel", paths.kernel)
    _add(os, "initrd", paths.initramfs)
    _add(os, "cmdline", KERNEL_COMMAND_LINE)
    _add(_add(root, "features"), "acpi")
    cpu = _add(root, "cpu", mode="custom", match="exact", check="none")
    _add(cpu, "model", CPU_MODEL, fallback="forbid")
    _add(cpu, "feature", policy="disable", name="vmx")
    _add(root, "clock", offset="utc")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _add(root, event, "destroy")
    _devices(_add(root, "devices"), paths)
    return _text(root)


def _devices(devices: ET.Element, paths: DomainPaths) -> None:
    disk = _add(devices, "disk", type="file", device="disk")
    _add(disk, "driver", name="qemu", type="raw")
    _add(disk, "source", file=paths.rootfs)
    _add(disk, "target", dev="vda", bus="virtio")
    _add(disk, "readonly")
    _add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    _add(devices, "controller", type="usb", model="none")
    channel = _add(devices, "channel", type="unix")
    _add(channel, "source", mode="bind", path=paths.port)
    _add(channel, "target", type="virtio", name=PORT_NAME)
    serial = _add(devices, "serial", type="unix")
    _add(serial, "source", mode="bind", path=paths.console)
    _add(serial, "target", port="0")
    rng = _add(devices, "rng", model="virtio")
    _add(rng, "backend", "/dev/urandom", model="random")
    _add(devices, "memballoon", model="none")


def check_size(path: Path, size: int | None, sector_size: int) -> None:
    """Raise EvidenceRefused for a disk that does not consist of whole sectors.

    QEMU would leave out the last bytes without a word. None is a size that is not known yet.
    """
    if size is not None and size % sector_size:
        raise EvidenceRefused(
            f"{shown(str(path))}: a disk of {size} bytes cannot have sectors of {sector_size}",
            hint="leave --sector-size out; what it says is for all images of a run",
        )


def evidence_disk(  # noqa: PLR0913 - what a disk has
    index: int,
    socket: str,
    export: str,
    serial: str,
    sector_size: int = 512,
    *,
    writable: bool = False,
) -> str:
    """Return the XML of one SCSI disk that is served by an exporter at `socket`, read-only unless
    an overlay takes the writes."""
    disk = ET.Element("disk", type="network", device="disk")
    # An overlay that is full must be an error in the guest: QEMU would rather make it wait.
    policy = {"error_policy": "report", "rerror_policy": "report"} if writable else {}
    _add(disk, "driver", name="qemu", type="raw", **policy)
    source = _add(disk, "source", protocol="nbd", name=export)
    _add(source, "host", transport="unix", socket=socket)
    _add(disk, "target", dev=f"sd{_letters(index)}", bus="scsi")
    if sector_size != 512:
        sizes = {f"{each}_block_size": str(sector_size) for each in ("logical", "physical")}
        _add(disk, "blockio", **sizes)
    _add(disk, "serial", serial)
    if not writable:
        _add(disk, "readonly")
    return _text(disk)


def _letters(index: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa, as Linux names disks; libvirt only needs them to differ."""
    letters = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _text(element: ET.Element) -> str:
    ET.indent(element)
    return ET.tostring(element, encoding="unicode") + "\n"
