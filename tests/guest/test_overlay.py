"""The throw-away overlays: any number of them, one bound for all, and memory that comes back."""

from __future__ import annotations

from pathlib import Path

from controller.base import RECIPE, find
from controller.store import Store
from tests.builders.in_guest import run_in_guest
from tests.builders.lvm_layouts import agent_code

MIB = 1 << 20
SCRIPT = """
mkdir -p /run/overlays
mount -t tmpfs -o size=40M,mode=700 overlays /run/overlays
blockdev --setro /dev/sda
cd /usr/lib/forensic && python3 -B check.py
"""
CHECK = """
import os, sys
from contextlib import ExitStack
from appliance.agent import overlay
from appliance.agent.dm import MappingError

MIB = 1 << 20
def free():
    state = os.statvfs("/run/overlays")
    return state.f_bavail * state.f_frsize

def write(node, offset, data):
    fd = os.open(node, os.O_WRONLY)
    try:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)

def read(node, offset, length):
    fd = os.open(node, os.O_RDONLY)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)

at_start = free()
with ExitStack() as stack:
    nodes = [stack.enter_context(overlay.overlay("/dev/sda")) for _ in range(40)]
    for number, node in enumerate(nodes):
        write(node, MIB, b"%04d" % number * 1024)
    assert [read(node, MIB, 4) for node in nodes] == [b"%04d" % number for number in range(40)]
    assert read(nodes[7], 0, 8) == b"evidence"
    assert free() < at_start
assert read("/dev/sda", MIB, 4) == bytes(4), "the evidence is as it was"
assert free() == at_start, "its memory came back"
print("MANY")
for _ in range(100):
    with overlay.overlay("/dev/sda") as node:
        write(node, 0, bytes(MIB))
assert free() == at_start
print("AGAIN")
assert overlay.overflowed() == []
with overlay.overlay("/dev/sda") as other, overlay.overlay("/dev/sda") as greedy:
    write(other, 0, b"x" * 4096)
    try:
        for number in range(60):
            write(greedy, number * MIB, b"y" * MIB)
    except OSError as error:
        print("FULL", error.errno)
    assert overlay.overflowed() == ["/dev/sda"]
    assert read(other, 0, 4096) == b"x" * 4096, "who is within the bound keeps what it has"
    os.posix_fadvise(os.open(greedy, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        os.pread(os.open(greedy, os.O_RDONLY), 4096, 30 * MIB)
        print("NO ERROR")
    except OSError as error:
        print("READ", error.errno)
    try:
        with overlay.overlay("/dev/sda"):
            pass
    except MappingError as error:
        print("REFUSED", error)
"""


def test_overlays(tmp_path: Path) -> None:
    """40 at once and 100 one after the other; what runs out says so, and harms no other."""
    disk = tmp_path / "evidence.raw"
    with disk.open("wb") as file:
        file.write(b"evidence")
        file.truncate(64 * MIB)
    base = find(Store())
    assert base
    text = run_in_guest(
        base, RECIPE, SCRIPT, [disk], tmp_path, files=agent_code() | {"check.py": CHECK.encode()}
    )
    words = [line.strip() for line in text.splitlines()]
    assert {"MANY", "AGAIN", "FULL 5", "READ 5"} <= set(words), text
    assert any(line.startswith("REFUSED the guest's memory") for line in words), text
