"""A registry hive of Windows NT, read piece by piece as it is asked for.

Source: "Windows registry file format specification" by Maxim Suhanov (github.com/msuhanov/regf);
offsets in a hive count from the end of its first 4096 bytes. What is damaged is left out and noted
in `damages`, so that one bad key does not hide the others.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

from appliance.agent.regf.record import (
    BaseBlock,
    HiveError,
    Key,
    Value,
    parse_base_block,
    parse_key,
    parse_value,
)

MAX_CELLS = 60_000
"""Records read from one hive: a rich SOFTWARE hive needs about 20,000 for what is asked of it."""

MAX_READ = 128 * 1024 * 1024
"""Bytes read from one hive, which can be larger: only what is asked for is read."""

MAX_SUBKEYS = 16_384
MAX_VALUES = 4_096
MAX_DATA = 1024 * 1024
MAX_DAMAGES = 8

_BASE_BLOCK = 4096
_CELL_HEAD = 4
_FIRST_READ = 512
"""Most cells are shorter: one read instead of two."""

_SEGMENT = 16344
"""Bytes of data in one cell; what is longer is cut in pieces (db)."""

_LONGEST_NAME = 1024
"""Bytes of a record in front of its name, and of the name: 255 characters for a key."""

_LONGEST_VALUE_NAME = 20 + 2 * 16383
_LONGEST_LIST = 4 + 8 * 0xFFFF

_Record = TypeVar("_Record")


class Hive:
    """A hive behind `read(offset, length)`, which returns less only at its end (OSError: damage).

    Raises HiveError where there is no root to begin with.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        self.damages: list[str] = []
        """What could not be read, at most MAX_DAMAGES."""
        self._cells_left = MAX_CELLS
        self._bytes_left = MAX_READ
        self._found: dict[tuple[int, str], Key | None] = {}
        self.base: BaseBlock = parse_base_block(self._bytes(0, _BASE_BLOCK))
        self._end = min(self.base.bins_size, max(0, size - _BASE_BLOCK))
        if self.base.bins_size > self._end:
            self._note(f"the file ends {self.base.bins_size - self._end} bytes too early")
        self.root: Key = self._key(self.base.root)

    @property
    def is_exhausted(self) -> bool:
        """So much was read that the rest is left out; it is among the damages."""
        return self._cells_left <= 0 or self._bytes_left <= 0

    def find(self, path: str, start: Key | None = None) -> Key | None:
        r"""The key at `path` (parts separated by \, case does not matter), None where it is not."""
        key: Key | None = start or self.root
        for part in path.split("\\"):
            if key is None:
                break
            key = self._subkey(key, part.upper())
        return key

    def subkeys(self, key: Key) -> Iterator[Key]:
        """Its subkeys, in the order of the file, at most MAX_SUBKEYS."""
        if not key.subkeys:
            return
        seen: set[int] = set()
        for offset in self._offsets_of_subkeys(key.subkeys_at):
            if self.is_exhausted:
                return
            if offset in seen:
                self._cells_left -= 1  # a small file can name one key a billion times
                self._note(f"a key list names the key at {offset:#x} twice")
                continue
            if len(seen) == MAX_SUBKEYS:
                self._note(f"a key has more than {MAX_SUBKEYS} subkeys")
                return
            seen.add(offset)
            found = self._try(self._key, offset)
            if found is not None:
                yield found

    def values(self, key: Key) -> dict[str, Value]:
        """Its values by name in upper case ("" is the default value), at most MAX_VALUES."""
        found: dict[str, Value] = {}
        if not key.values:
            return found
        if key.values > MAX_VALUES:
            self._note(f"a key has {key.values} values, more than {MAX_VALUES}")
        count = min(key.values, MAX_VALUES)
        cell = self._try(self._cell, key.values_at, 4 * count)
        for (offset,) in struct.iter_unpack("<I", _whole(cell or b"", 4)[: 4 * count]):
            if self.is_exhausted:
                break
            value = self._try(self._value, offset)
            if value is not None:
                found.setdefault(value.name.upper(), value)
        return found

    def data(self, value: Value, limit: int = MAX_DATA) -> bytes:
        """Up to `limit` bytes of a value's data; b"" where they cannot be read."""
        if value.inline is not None:
            return value.inline[:limit]
        wanted = min(value.size, limit)
        if not wanted:
            return b""
        if value.size > _SEGMENT and self.base.minor_version > 3:
            pieces = self._try(self._big_data, value.data_at, wanted)
            if pieces is not None:
                return pieces
        found = self._try(self._cell, value.data_at, wanted) or b""
        if len(found) < wanted and found:
            self._note(f"the value {value.name[:64]} is cut off")
        return found[:wanted]

    def _subkey(self, key: Key, upper_name: str) -> Key | None:
        """Also what is not there is remembered: most paths begin alike."""
        which = (key.at, upper_name)
        if which not in self._found:
            same = (each for each in self.subkeys(key) if each.name.upper() == upper_name)
            self._found[which] = next(same, None)
        return self._found[which]

    def _key(self, at: int) -> Key:
        return parse_key(self._cell(at, _LONGEST_NAME), at)

    def _value(self, at: int) -> Value:
        return parse_value(self._cell(at, _LONGEST_VALUE_NAME))

    def _offsets_of_subkeys(self, at: int) -> Iterator[int]:
        """Of a list (li, lf, lh), or of the lists in a list (ri), which cannot nest further."""
        cell = self._try(self._cell, at, _LONGEST_LIST)
        if cell is None:
            return
        if cell[:2] != b"ri":
            yield from self._offsets_of_list(cell)
            return
        seen: set[int] = set()
        for offset in _elements(cell, 4):
            if offset in seen or self.is_exhausted:
                self._note(f"a list of key lists names {offset:#x} twice")
                return
            seen.add(offset)
            inner = self._try(self._cell, offset, _LONGEST_LIST)
            if inner is not None:
                yield from self._offsets_of_list(inner)

    def _offsets_of_list(self, cell: bytes) -> Iterator[int]:
        width = {b"li": 4, b"lf": 8, b"lh": 8}.get(cell[:2])
        if width is None:
            self._note("a key list has a signature that no list has")
            return
        yield from _elements(cell, width)

    def _big_data(self, at: int, wanted: int) -> bytes | None:
        """The pieces in a row; None where it is no list of pieces but data (older formats)."""
        cell = self._cell(at, 8)
        if cell[:2] != b"db" or len(cell) < 8:
            return None
        count, list_at = struct.unpack_from("<HI", cell, 2)
        offsets = self._cell(list_at, 4 * count)
        found = bytearray()
        for (offset,) in struct.iter_unpack("<I", _whole(offsets, 4)[: 4 * count]):
            if len(found) >= wanted:
                break
            found += self._cell(offset, min(_SEGMENT, wanted - len(found)))[:_SEGMENT]
        if len(found) < wanted:
            self._note("the data of a value is cut off")
        return bytes(found[:wanted])

    def _cell(self, at: int, limit: int) -> bytes:
        """Up to `limit` bytes of the cell in use at `at`, without its size. Raises HiveError."""
        if self.is_exhausted:
            raise HiveError(f"more than {MAX_CELLS} records or {MAX_READ} bytes were to be read")
        self._cells_left -= 1
        if at % 8 or at + _CELL_HEAD > self._end:
            raise HiveError(f"there is no record at {at:#x}")
        first = self._bytes(_BASE_BLOCK + at, min(_FIRST_READ, self._end - at))
        if len(first) < _CELL_HEAD:
            raise HiveError(f"the record at {at:#x} cannot be read")
        size = -int.from_bytes(first[:_CELL_HEAD], "little", signed=True)
        if size <= _CELL_HEAD or at + size > self._end:
            raise HiveError(f"the record at {at:#x} is not in use, or leaves the file")
        wanted = min(size, limit + _CELL_HEAD)
        if wanted > len(first):
            first += self._bytes(_BASE_BLOCK + at + len(first), wanted - len(first))
        return first[_CELL_HEAD:wanted]

    def _bytes(self, offset: int, length: int) -> bytes:
        self._bytes_left -= length
        try:
            return self._read(offset, length)
        except OSError as error:
            raise HiveError(f"{length} bytes at {offset:#x}: {error.strerror}") from error

    def _try(self, read: Callable[..., _Record], *where: int) -> _Record | None:
        try:
            return read(*where)
        except HiveError as error:
            self._note(str(error))
            return None

    def _note(self, damage: str) -> None:
        if len(self.damages) < MAX_DAMAGES and damage not in self.damages:
            self.damages.append(damage)


def _elements(cell: bytes, width: int) -> Iterator[int]:
    count = int.from_bytes(cell[2:4], "little")
    elements = _whole(cell[4:], width)[: count * width]
    for at in range(0, len(elements), width):
        yield int.from_bytes(elements[at : at + 4], "little")


def _whole(data: bytes, width: int) -> bytes:
    return data[: len(data) // width * width]
