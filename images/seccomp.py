"""Two filters of system calls for the reader, as programs for the kernel (seccomp(2), BPF).

The first is given to bubblewrap and holds from the first program in the sandbox on: it kills
whoever calls what no reader needs. The second is installed by the reader itself, before it looks at
the evidence: of what is left it allows only what serving bytes takes. Filters add up, and none can
be taken off again.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable, Iterator

from images.syscalls import FATAL, NETWORK, READING, STARTING

_KILL = 0x80000000
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
# What libraries take for "this kernel is too old" and then do without.
_UNKNOWN = _ERRNO | errno.ENOSYS
_REFUSED = _ERRNO | errno.EACCES

# struct seccomp_data: number, architecture, instruction pointer, six arguments of 64 bits.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
# linux/bpf_common.h: load a word, and jumps.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# linux/audit.h, and the column of images.syscalls.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
# Calls of the x32 interface would slip past the numbers of x86_64.
_X32 = 0x40000000
_CLONE3 = 435
# linux/sched.h: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; CLONE_THREAD.
_NEW_NAMESPACE = 0x7E020000
_THREAD = 0x00010000
_PROT_EXEC = 4

_Instruction = tuple[int, int, int, int]


class UnknownMachine(Exception):
    """There is no filter for this processor; without one nothing is started."""


def startup_filter(machine: str = "") -> bytes:
    """For bubblewrap's --seccomp: all but what is fatal, no new namespaces, no new sockets.

    `machine` as uname(2) has it, by default this one. Raises UnknownMachine.
    """
    column, program = _prologue(machine)
    program += _each(_numbers(FATAL, column), _KILL)
    program += _each(_numbers(NETWORK, column), _REFUSED)
    program += _clone(column, threads_only=False)
    # Its flags lie in memory, where no filter can see them. glibc then uses clone.
    program += _each([_CLONE3], _UNKNOWN)
    program.append(_return(_ALLOW))
    return _packed(program)


def reading_filter(machine: str = "") -> bytes:
    """For the reader itself: what READING names, threads, and no memory that can be executed.

    What is fatal, makes a socket, or starts a program, kills; any other call fails. Raises
    UnknownMachine.
    """
    column, program = _prologue(machine)
    for name, action in (("mmap", _not_executable), ("mprotect", _not_executable)):
        program += action(READING[name][column])
    program += _clone(column, threads_only=True)
    with_conditions = {"mmap", "mprotect", "clone"}
    plain = {name: both for name, both in READING.items() if name not in with_conditions}
    program += _each(_numbers(plain, column), _ALLOW)
    for table in (FATAL, NETWORK, STARTING):
        program += _each(_numbers(table, column), _KILL)
    program.append(_return(_UNKNOWN))
    return _packed(program)


def _prologue(machine: str) -> tuple[int, list[_Instruction]]:
    """The column of the numbers; and code that checks the architecture and loads the number."""
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise UnknownMachine(f"there is no filter of system calls for {machine}")
    architecture, column = _MACHINES[machine]
    return column, [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        _return(_KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        _return(_KILL),
    ]


def _numbers(table: dict[str, tuple[int, int | None]], column: int) -> Iterator[int]:
    for both in table.values():
        number = both[column]
        if number is not None:
            yield number


def _each(numbers: Iterable[int], action: int) -> list[_Instruction]:
    """Each comparison jumps only over its own return: jumps reach 255 instructions at most."""
    return [step for number in numbers for step in ((_EQUAL, 0, 1, number), _return(action))]


def _clone(column: int, *, threads_only: bool) -> list[_Instruction]:
    number = READING["clone"][column]
    assert number is not None  # noqa: S101
    body = [
        (_LOAD, 0, 0, _ARGUMENTS),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACE),
        _return(_KILL),
        (_ANY_BIT, 0, 1, _THREAD),
        _return(_ALLOW),
        _return(_KILL if threads_only else _ALLOW),
    ]
    return [(_EQUAL, 0, len(body), number), *body]


def _not_executable(number: int | None) -> list[_Instruction]:
    assert number is not None  # noqa: S101
    body = [
        (_LOAD, 0, 0, _ARGUMENTS + 2 * 8),
        (_ANY_BIT, 0, 1, _PROT_EXEC),
        _return(_REFUSED),
        _return(_ALLOW),
    ]
    return [(_EQUAL, 0, len(body), number), *body]


def _return(action: int) -> _Instruction:
    return (_RETURN, 0, 0, action)


def _packed(program: list[_Instruction]) -> bytes:
    # struct sock_filter; both machines are little-endian.
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
