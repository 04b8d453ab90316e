"""The values of a key as typed facts: text, numbers, times. What has another type is not there.

Types: winnt.h (REG_SZ …), as in github.com/msuhanov/regf.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.agent.regf.hive import Hive
from appliance.agent.regf.record import Key, Value
from appliance.layer import MAX_TEXT

_TEXT, _EXPANDED_TEXT, _BINARY, _NUMBER, _BIG_ENDIAN, _TEXTS, _LONG_NUMBER = 1, 2, 3, 4, 5, 7, 11
_MAX_TEXT_BYTES = 64 * 1024
_MAX_TEXTS = 256

_TICKS = 10_000_000
_EPOCH = 11_644_473_600
"""Seconds from 1601, where a FILETIME begins, to 1970."""


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one key; names in any case."""

    hive: Hive
    by_name: dict[str, Value]

    def text(self, name: str) -> str | None:
        """A string up to its first NUL, without white space around it; None for an empty one."""
        value = self._typed(name, _TEXT, _EXPANDED_TEXT)
        if value is None:
            return None
        untrusted_data = self.hive.data(value, _MAX_TEXT_BYTES)
        return decode(untrusted_data).partition("\0")[0].strip()[:MAX_TEXT] or None

    def texts(self, name: str) -> list[str]:
        """The strings of a list that are not empty, or the one of a single string."""
        value = self._typed(name, _TEXTS)
        if value is None:
            text = self.text(name)
            return [text] if text else []
        words = decode(self.hive.data(value, _MAX_TEXT_BYTES)).split("\0")[:_MAX_TEXTS]
        return [word.strip()[:MAX_TEXT] for word in words if word.strip()]

    def number(self, name: str) -> int | None:
        """An unsigned number of 32 bits (REG_DWORD)."""
        value = self._typed(name, _NUMBER, _BIG_ENDIAN)
        untrusted_data = self.hive.data(value, 4) if value and value.size == 4 else b""
        if value is None or len(untrusted_data) < 4:
            return None
        return int.from_bytes(untrusted_data, "big" if value.type == _BIG_ENDIAN else "little")

    def filetime(self, name: str) -> int | None:
        """A FILETIME (REG_QWORD, or 8 bytes in REG_BINARY) as seconds since the epoch."""
        value = self._typed(name, _LONG_NUMBER, _BINARY)
        untrusted_data = self.hive.data(value, 8) if value and value.size == 8 else b""
        return seconds_of(int.from_bytes(untrusted_data, "little"))

    def data(self, name: str, limit: int) -> bytes:
        """Up to `limit` bytes of a value of any type; b"" where there is none."""
        value = self.by_name.get(name.upper())
        return self.hive.data(value, limit) if value else b""

    def _typed(self, name: str, *types: int) -> Value | None:
        value = self.by_name.get(name.upper())
        return value if value and value.type in types else None


def values_at(hive: Hive, path: str, start: Key | None = None) -> Values:
    """The values of the key at `path`; none where there is no such key."""
    key = hive.find(path, start)
    return values_of(hive, key)


def values_of(hive: Hive, key: Key | None) -> Values:
    """The values of a key; none for no key."""
    return Values(hive, hive.values(key) if key else {})


def decode(untrusted_bytes: bytes) -> str:
    """UTF-16; lone surrogates, and half a character at the end, become U+FFFD."""
    return untrusted_bytes.decode("utf-16-le", "replace")


def seconds_of(filetime: int | None) -> int | None:
    """Seconds since the epoch; None for what stands for "never" (0, and the highest number)."""
    if not filetime or filetime >= 0x7FFFFFFFFFFFFFFF:
        return None
    return filetime // _TICKS - _EPOCH
