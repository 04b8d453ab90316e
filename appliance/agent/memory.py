"""The guest's memory, and what deriving a key needs of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.layer import Keyslot

MIB = 1 << 20
_RESERVE = 64 * MIB
"""What stays free beside a derivation: cryptsetup itself, and the kernel."""

_STEP = 512
"""MiB; each size of guest costs a saved state, so that there should be few."""

IMPOSSIBLE = 4 << 30
"""Bytes: no keyslot that cryptsetup makes asks for more (lib/crypto_backend/pbkdf_check.c)."""


def available() -> int:
    """MemAvailable of /proc/meminfo, in bytes."""
    return _fields()["MemAvailable"]


def _fields() -> dict[str, int]:
    text = Path("/proc/meminfo").read_text()
    found = re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)
    return {name: int(kib) << 10 for name, kib in found}


@dataclass(frozen=True, slots=True)
class Derivations:
    """The keyslots of a volume: those that can be tried here, those for which a guest needs
    `guest` MiB, and those that ask for what no guest gets."""

    possible: Sequence[Keyslot]
    too_large: Sequence[Keyslot]
    impossible: Sequence[Keyslot]
    guest: int

    @classmethod
    def of(cls, keyslots: Sequence[Keyslot]) -> Derivations:
        """What this guest, as it is now, can do with them."""
        fields = _fields()
        return cls.within(keyslots, fields["MemTotal"], fields["MemAvailable"])

    @classmethod
    def within(cls, keyslots: Sequence[Keyslot], total: int, free: int) -> Derivations:
        """The same for a guest with `total` bytes of memory, of which `free` can be had."""
        impossible = [slot for slot in keyslots if (slot.memory or 0) > IMPOSSIBLE]
        rest = [slot for slot in keyslots if slot not in impossible]
        possible = [slot for slot in rest if (slot.memory or 0) + _RESERVE <= free]
        too_large = [slot for slot in rest if slot not in possible]
        largest = max((slot.memory or 0 for slot in too_large), default=0)
        return cls(possible, too_large, impossible, _guest(largest, total - free))


def _guest(memory: int, used: int) -> int:
    """MiB of a guest with room for `memory` bytes beside the `used` ones.

    The kernel keeps a fortieth for itself (page structures, and what MemTotal does not count).
    """
    if not memory:
        return 0
    wanted = (memory + used + _RESERVE) * 40 // 39 + 64 * MIB
    return -(-wanted // (_STEP * MIB)) * _STEP
