"""The filters of system calls: right numbers, right machines, and what the kernel makes of them."""

from __future__ import annotations

import platform
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from images import seccomp, syscalls
from images.seccomp import UnknownMachine, reading_filter, startup_filter

TABLES = (syscalls.READING, syscalls.STARTING, syscalls.NETWORK, syscalls.FATAL)
MACHINES = {"x86_64": 0, "aarch64": 1}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
KILL, ALLOW, ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
HEADERS = {
    0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    1: Path("/usr/include/asm-generic/unistd.h"),
}


def numbers(table, column):
    return [both[column] for both in table.values() if both[column] is not None]


def verdict(program: bytes, number: int, arguments=(), architecture=ARCHITECTURES["x86_64"]) -> int:
    """What the kernel would answer: the few instructions that we use, carried out."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *[*arguments, *[0] * 6][:6])
    code = list(struct.iter_unpack("<HBBI", program))
    position = value = 0
    while True:
        kind, yes, no, operand = code[position]
        position += 1
        if kind == 0x20:
            value = int.from_bytes(data[operand : operand + 4], "little")
        elif kind == 0x06:
            return operand
        else:
            true = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}
            position += yes if true[kind] else no


@pytest.mark.parametrize("column", [0, 1])
def test_numbers_are_the_kernels(column):
    header = HEADERS[column]
    if not header.exists():
        pytest.skip("needs the kernel's headers (linux-libc-dev)")
    found = {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    }
    found.setdefault("newfstatat", found.get("fstatat", -1))
    checked = 0
    for table in TABLES:
        for name, both in table.items():
            if both[column] is not None and name in found:
                assert both[column] == found[name], name
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("column", [0, 1])
def test_no_call_is_in_two_tables(column):
    everything = [number for table in TABLES for number in numbers(table, column)]
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize("machine", MACHINES)
def test_verdicts_before_the_start(machine):
    program, column = startup_filter(machine), MACHINES[machine]
    architecture = ARCHITECTURES[machine]

    def ask(number, *arguments):
        return verdict(program, number, arguments, architecture)

    assert {ask(number) for number in numbers(syscalls.FATAL, column)} == {KILL}
    assert {ask(number) for number in numbers(syscalls.NETWORK, column)} == {ERRNO | 13}
    clone = syscalls.READING["clone"][column]
    assert ask(clone, 0x10000000) == KILL
    assert ask(clone, 0x00020000 | 0x00010000) == KILL
    assert ask(clone, 17) == ALLOW
    assert ask(435) == ERRNO | 38
    assert ask(syscalls.STARTING["execve"][column]) == ALLOW
    assert ask(9999) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_verdicts_while_reading(machine):
    program, column = reading_filter(machine), MACHINES[machine]
    architecture = ARCHITECTURES[machine]

    def ask(number, *arguments):
        return verdict(program, number, arguments, architecture)

    for table in (syscalls.FATAL, syscalls.NETWORK, syscalls.STARTING):
        assert {ask(number) for number in numbers(table, column)} == {KILL}
    clone, mmap = syscalls.READING["clone"][column], syscalls.READING["mmap"][column]
    mprotect = syscalls.READING["mprotect"][column]
    assert ask(clone, 0x003D0F00) == ALLOW
    assert ask(clone, 17) == KILL
    assert ask(clone, 0x10010000) == KILL
    assert ask(mmap, 0, 4096, 3) == ask(mprotect, 0, 4096, 1) == ALLOW
    assert ask(mmap, 0, 4096, 7) == ask(mprotect, 0, 4096, 5) == ERRNO | 13
    plain = set(numbers(syscalls.READING, column)) - {clone, mmap, mprotect}
    assert {ask(number) for number in plain} == {ALLOW}
    openat = {0: 257, 1: 56}[column]
    assert ask(openat) == ask(435) == ask(9999) == ERRNO | 38


@pytest.mark.parametrize("program", [startup_filter("x86_64"), reading_filter("x86_64")])
def test_other_interfaces_are_closed(program):
    assert verdict(program, 0, architecture=0x40000003) == KILL  # 32 bit
    assert verdict(program, 0, architecture=ARCHITECTURES["aarch64"]) == KILL
    assert verdict(program, 0x40000000) == KILL  # x32
    assert verdict(program, 0xFFFFFFFF) == KILL


def test_programs_fit_into_the_kernel():
    for machine in MACHINES:
        for program in (startup_filter(machine), reading_filter(machine)):
            assert len(program) % 8 == 0
            assert len(program) // 8 < 4096


def test_unknown_machine_fails_closed(monkeypatch):
    for make in (startup_filter, reading_filter):
        with pytest.raises(UnknownMachine, match="riscv64"):
            make("riscv64")
    monkeypatch.setattr(platform, "machine", lambda: "mips")
    with pytest.raises(UnknownMachine):
        startup_filter()


LOCKED = """
import ctypes, hashlib, lzma, mmap, os, threading, zlib
from images.reader import lockdown
libc = ctypes.CDLL(None, use_errno=True)
lockdown.lock()
{action}
print("alive")
"""


def locked(action: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a process that does this after it has locked itself."""
    if platform.machine() not in MACHINES:
        pytest.skip("no filter for this machine")
    root = str(Path(seccomp.__file__).parents[1])
    environment = {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-c", LOCKED.format(action=action)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    "action",
    [
        "os.getpid()",
        "thread = threading.Thread(target=print); thread.start(); thread.join()",
        "bytearray(300 << 20)",
        "hashlib.sha256(zlib.compress(bytes(99999))).hexdigest()",
    ],
)
def test_reading_goes_on(action):
    done = locked(action)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("alive\n")


@pytest.mark.parametrize(
    "action",
    [
        "libc.ptrace(0, 0, 0, 0)",
        "libc.unshare(0x10000000)",
        "libc.mount(b'none', b'/', b'tmpfs', 0, None)",
        "libc.socket(2, 1, 0)",
        "libc.socket(1, 1, 0)",
        "libc.execv(b'/bin/true', None)",
        "os.fork()",
        "libc.syscall(425, 1, 0)",  # io_uring_setup
        "libc.syscall(321, 0, 0, 0)" if platform.machine() == "x86_64" else "libc.syscall(280)",
        "libc.personality(0xffffffff)",
        "libc.open_by_handle_at(0, 0, 0)",
        "libc.process_vm_readv(1, 0, 0, 0, 0, 0)",
    ],
)
def test_attack_kills(action):
    done = locked(action)
    assert done.returncode == -signal.SIGSYS, done.stdout + done.stderr


@pytest.mark.parametrize(
    "action",
    [
        "open('/etc/passwd')",
        "os.listdir('/')",
        "os.kill(1, 9)",
        "os.unlink('/nothing')",
        "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    ],
)
def test_all_else_fails(action):
    done = locked(action)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Error" in done.stderr or "Permission" in done.stderr
