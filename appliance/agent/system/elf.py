"""The processor that a system is for, by the headers of its programs (elf(5), elf-em.h)."""

from __future__ import annotations

import struct

from appliance.agent.system.root import Root, RootError

_MACHINES = {
    2: "sparc",
    3: "i386",
    4: "m68k",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    42: "sh",
    43: "sparc64",
    50: "ia64",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
    0x9026: "alpha",
    15: "parisc",
}
"""By e_machine; virt-inspector's names (uname -m)."""

PROGRAMS = (
    "bin/sh",
    "bin/ls",
    "usr/bin/ls",
    "bin/bash",
    "usr/bin/bash",
    "bin/busybox",
    "sbin/init",
    "lib/systemd/systemd",
    "usr/lib/systemd/systemd",
    "bin/cat",
)


def architecture(root: Root) -> str | None:
    """None where no program of the usual ones is an ELF file."""
    for path in PROGRAMS:
        try:
            found = parse_header(root.read(path, 20))
        except RootError:
            continue
        if found:
            return found
    return None


def parse_header(data: bytes) -> str | None:
    """The machine in the first 20 bytes of an ELF file; None for anything else."""
    if len(data) < 20 or data[:4] != b"\x7fELF" or data[5] not in {1, 2}:
        return None
    little = data[5] == 1
    (machine,) = struct.unpack_from("<H" if little else ">H", data, 18)
    name = _MACHINES.get(machine)
    if name == "ppc64" and little:
        return "ppc64le"
    if name == "mips" and data[4] == 2:
        return "mips64"
    return name
