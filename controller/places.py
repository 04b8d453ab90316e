"""Where things are inside a cell: the same in every cell, so that a saved domain fits each.

Apart from everything that uses them, so that the command need not load libvirt to know them.
"""

from __future__ import annotations

from pathlib import Path

from controller.domain_xml import DomainPaths

RUN = Path("/run/forensic")
LIBVIRT_ROOT = RUN / "libvirt"
PORT = RUN / "port.sock"
CONSOLE = RUN / "console.sock"

APPLIANCE = Path("/appliance")
STATE = APPLIANCE / "state"
CAPABILITIES = APPLIANCE / "capabilities"
OUTPUT = Path("/output")

PATHS = DomainPaths(
    kernel=str(APPLIANCE / "vmlinux"),
    initramfs=str(APPLIANCE / "initramfs"),
    rootfs=str(APPLIANCE / "rootfs.erofs"),
    port=str(PORT),
    console=str(CONSOLE),
)
