"""Writes registry hives byte by byte, so that what is in them is known by hand.

Source: github.com/msuhanov/regf. Nothing here comes from the code under test; libhivex and
reglookup read the same files in the tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

ABSENT = 0xFFFFFFFF
SEGMENT = 16344
SZ, EXPAND_SZ, BINARY, DWORD, DWORD_BE, MULTI_SZ, QWORD = 1, 2, 3, 4, 5, 7, 11
FILETIME_EPOCH = 11_644_473_600


@dataclass
class Value:
    """A value; `type` is a number of winnt.h."""

    name: str
    type: int
    data: bytes


@dataclass
class Key:
    """A key; its subkeys are listed in `lists` ("lh", "lf", "li"; "ri" is a list of such)."""

    name: str
    values: list[Value] = field(default_factory=list)
    subkeys: list[Key] = field(default_factory=list)
    lists: str = "lh"
    written: int = 0

    def at(self, path: str) -> Key:
        r"""The key at a path with \ between its parts, which is made where it is missing."""
        key = self
        for part in path.split("\\"):
            found = next((each for each in key.subkeys if each.name.upper() == part.upper()), None)
            if found is None:
                found = Key(part)
                key.subkeys.append(found)
            key = found
        return key

    def put(self, path: str, *values: Value) -> Key:
        """Put values into the key at a path."""
        key = self.at(path)
        key.values += values
        return key


def sz(name: str, text: str) -> Value:
    return Value(name, SZ, utf16(text + "\0"))


def expand_sz(name: str, text: str) -> Value:
    return Value(name, EXPAND_SZ, utf16(text + "\0"))


def multi_sz(name: str, *texts: str) -> Value:
    return Value(name, MULTI_SZ, utf16("".join(f"{text}\0" for text in texts) + "\0"))


def dword(name: str, number: int) -> Value:
    return Value(name, DWORD, struct.pack("<I", number & 0xFFFFFFFF))


def qword(name: str, number: int) -> Value:
    return Value(name, QWORD, struct.pack("<Q", number))


def binary(name: str, data: bytes) -> Value:
    return Value(name, BINARY, data)


def filetime(seconds: int) -> int:
    """What Windows writes for seconds since the epoch."""
    return (seconds + FILETIME_EPOCH) * 10_000_000


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


class _Writer:
    """Hive bins with cells in them; a cell never crosses a bin's end."""

    def __init__(self, minor: int) -> None:
        self.minor = minor
        self.bins: list[bytearray] = []
        self.start = 0

    def add(self, data: bytes) -> int:
        size = (len(data) + 4 + 7) // 8 * 8
        if not self.bins or len(self.bins[-1]) + size > self._room():
            self._open(size)
        at = self.start + len(self.bins[-1])
        self.bins[-1] += struct.pack("<i", -size) + data.ljust(size - 4, b"\0")
        return at

    def patch(self, at: int, data: bytes) -> None:
        """Overwrite bytes of a cell's data in whatever bin it is."""
        base = 0
        for each in self.bins:
            length = max(4096, (len(each) + 4095) // 4096 * 4096)
            if at < base + length:
                each[at - base + 4 : at - base + 4 + len(data)] = data
                return
            base += length
        raise ValueError(at)

    def finish(self) -> bytes:
        self._close()
        return b"".join(bytes(each) for each in self.bins)

    def _room(self) -> int:
        return int.from_bytes(self.bins[-1][8:12], "little")

    def _open(self, size: int) -> None:
        self._close()
        self.start = sum(len(each) for each in self.bins)
        length = (size + 32 + 4095) // 4096 * 4096
        self.bins.append(bytearray(struct.pack("<4sIIQQI", b"hbin", self.start, length, 0, 0, 0)))

    def _close(self) -> None:
        if self.bins and (free := self._room() - len(self.bins[-1])):
            self.bins[-1] += struct.pack("<i", free).ljust(free, b"\0")


# A self-relative security descriptor without owner, group and lists.
_DESCRIPTOR = struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)


def hive(root: Key, *, dirty: bool = False, minor: int = 5) -> bytes:
    """The hive with that root key. `dirty`: as when Windows was cut off while writing."""
    writer = _Writer(minor)
    security = writer.add(b"sk" + bytes(2) + struct.pack("<IIII", 0, 0, 1, 20) + _DESCRIPTOR)
    writer.patch(security, b"sk" + bytes(2) + struct.pack("<II", security, security))
    at = _key(writer, root, ABSENT, security, is_root=True)
    bins = writer.finish()
    head = struct.pack("<4sIIQIIIIIII", b"regf", 8, 7 if dirty else 8, 0, 1, minor, 0, 1, at,
                       len(bins), 1)  # fmt: skip
    return sealed(head.ljust(4096, b"\0")) + bins


def sealed(block: bytes) -> bytes:
    """A base block with the right checksum."""
    checksum = 0
    for (word,) in struct.iter_unpack("<I", block[:508]):
        checksum ^= word
    return block[:508] + struct.pack("<I", checksum) + block[512:]


def _key(writer: _Writer, key: Key, parent: int, security: int, *, is_root: bool = False) -> int:
    is_ascii = key.name.isascii()
    name = key.name.encode("latin-1") if is_ascii else utf16(key.name)
    flags = (0x20 if is_ascii else 0) | (0x0C if is_root else 0)
    at = writer.add(bytes(76 + len(name)))
    children = [_key(writer, each, at, security) for each in key.subkeys]
    subkeys_at = _list(writer, key, children) if children else ABSENT
    values = [_value(writer, each) for each in key.values]
    values_at = writer.add(struct.pack(f"<{len(values)}I", *values)) if values else ABSENT
    longest = (
        max((2 * len(each.name) for each in key.subkeys), default=0),
        0,
        max((2 * len(each.name) for each in key.values), default=0),
        max((len(each.data) for each in key.values), default=0),
    )
    head = struct.pack(
        "<2sHQIIIIIIIIIIIIIIIHH", b"nk", flags, key.written, 0, parent, len(children), 0,
        subkeys_at, ABSENT, len(values), values_at, security, ABSENT, *longest, 0, len(name), 0,
    )  # fmt: skip
    writer.patch(at, head + name)
    return at


def _list(writer: _Writer, key: Key, children: list[int]) -> int:
    pairs = sorted(
        zip([each.name for each in key.subkeys], children, strict=True),
        key=lambda each: each[0].upper(),
    )
    if key.lists != "ri":
        return writer.add(_leaf(key.lists, pairs))
    half = (len(pairs) + 1) // 2
    halves = [part for part in (pairs[:half], pairs[half:]) if part]
    leaves = [writer.add(_leaf("lh", part)) for part in halves]
    return writer.add(struct.pack(f"<2sH{len(leaves)}I", b"ri", len(leaves), *leaves))


def _leaf(kind: str, pairs: list[tuple[str, int]]) -> bytes:
    cell = struct.pack("<2sH", kind.encode(), len(pairs))
    for name, at in pairs:
        cell += struct.pack("<I", at)
        if kind == "lf":
            cell += name.encode("latin-1", "replace")[:4].ljust(4, b"\0")
        elif kind == "lh":
            number = 0
            for character in name.upper():
                number = (number * 37 + ord(character)) & 0xFFFFFFFF
            cell += struct.pack("<I", number)
    return cell


def _value(writer: _Writer, value: Value) -> int:
    is_ascii = value.name.isascii()
    name = value.name.encode("latin-1") if is_ascii else utf16(value.name)
    size, where = len(value.data), 0
    if size <= 4:
        where = int.from_bytes(value.data, "little")
        size |= 1 << 31
    elif size > SEGMENT and writer.minor > 3:
        pieces = [value.data[i : i + SEGMENT] for i in range(0, size, SEGMENT)]
        offsets = [writer.add(piece) for piece in pieces]
        listed = writer.add(struct.pack(f"<{len(offsets)}I", *offsets))
        where = writer.add(struct.pack("<2sHI", b"db", len(offsets), listed))
    else:
        where = writer.add(value.data)
    head = struct.pack(
        "<2sHIIIHH", b"vk", len(name), size, where, value.type, 1 if is_ascii else 0, 0
    )
    return writer.add(head + name)
