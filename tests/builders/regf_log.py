"""Transaction logs of registry hives, written byte by byte (github.com/msuhanov/regf)."""

from __future__ import annotations

import struct

from tests.builders.regf import sealed

PAGE = 4096
SEED = bytes.fromhex("82EF4D887A4E55C5")


def dirty(hive: bytes, primary: int = 9, secondary: int = 8) -> bytes:
    """The hive with a write that did not end."""
    return sealed(hive[:4] + struct.pack("<II", primary, secondary) + hive[12:4096]) + hive[4096:]


def new_log(base: bytes, entries: list[bytes]) -> bytes:
    """A log of Windows 8.1 and later, with entries from `entry`."""
    return _head(base, 6) + b"".join(entries)


def entry(number: int, before: bytes, after: bytes) -> bytes:
    """An entry with the pages in which two states of a hive differ."""
    old, new = before[4096:], after[4096:]
    dirty = [at for at in range(0, len(new), PAGE) if old[at : at + PAGE] != new[at : at + PAGE]]
    body = b"".join(struct.pack("<II", at, PAGE) for at in dirty)
    body += b"".join(new[at : at + PAGE] for at in dirty)
    size = (40 + len(body) + 511) // 512 * 512
    return entry_of(number, len(new), len(dirty), body.ljust(size - 40, b"\0"))


def entry_of(number: int, bins_size: int, count: int, body: bytes) -> bytes:
    """An entry with good hashes, whatever is in it."""
    head = struct.pack("<4sIIIII", b"HvLE", 40 + len(body), 0, number, bins_size, count)
    head += _hash(body)
    return head + _hash(head) + body


def old_log(base: bytes, before: bytes, after: bytes, number: int = 9) -> bytes:
    """A log of Windows before 8.1: one set of sectors."""
    old, new = before[4096:], after[4096:]
    vector, pages = bytearray(len(new) // 512 // 8), b""
    for at in range(0, len(new), PAGE):
        if old[at : at + PAGE] != new[at : at + PAGE]:
            vector[at // PAGE] = 0xFF
            pages += new[at : at + PAGE]
    head = bytearray(_head(base, 1))
    struct.pack_into("<II", head, 4, number, number)
    struct.pack_into("<I", head, 40, len(new))
    listed = b"DIRT" + bytes(vector)
    return sealed(bytes(head)) + listed.ljust((len(listed) + 511) // 512 * 512, b"\0") + pages


def _head(base: bytes, kind: int) -> bytes:
    return sealed(base[:28] + struct.pack("<I", kind) + base[32:512])


def _hash(data: bytes) -> bytes:
    """Marvin32, after System.Marvin of .NET (MIT): the state as eight bytes."""
    state = list(struct.unpack("<II", SEED))

    def turn(word: int, bits: int) -> int:
        return (word << bits | word >> (32 - bits)) & 0xFFFFFFFF

    def block(word: int) -> None:
        state[0] = (state[0] + word) & 0xFFFFFFFF
        state[1] = turn(state[1] ^ state[0], 0)
        state[0] = (turn(state[0], 20) + state[1]) & 0xFFFFFFFF
        state[1] = turn(state[1], 9) ^ state[0]
        state[0] = (turn(state[0], 27) + state[1]) & 0xFFFFFFFF
        state[1] = turn(state[1], 19)

    end = len(data) - len(data) % 4
    for at in range(0, end, 4):
        block(int.from_bytes(data[at : at + 4], "little"))
    block(int.from_bytes((data[end:] + b"\x80").ljust(4, b"\0"), "little"))
    block(0)
    return struct.pack("<II", *state)
