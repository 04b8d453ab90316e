"""LUKS: what the header says of the ways to open it.

Layouts: LUKS1 On-Disk Format 1.2.3; LUKS2 On-Disk Format 1.1.3 (gitlab.com/cryptsetup).
"""

from __future__ import annotations

import json
import struct
from typing import Any

from appliance.agent.volume import Volume
from appliance.layer import Encryption, Keyslot

_MAGIC = b"LUKS\xba\xbe"
_LUKS1 = struct.Struct(">6sH32s32s32sII")
_LUKS1_SLOTS, _LUKS1_SLOT, _LUKS1_ACTIVE = 208, 48, 0x00AC71F3
_LUKS2_JSON = 4096
_LUKS2_SIZES = range(16 << 10, (4 << 20) + 1)


def facts(volume: Volume) -> Encryption:
    """What the first header says; a scheme alone where it makes no sense. Raises OSError."""
    head = volume.read(0, 4096)
    if head[:8] == _MAGIC + b"\0\1":
        return _luks1(head)
    size = int.from_bytes(head[8:16], "big")
    if head[:8] != _MAGIC + b"\0\2" or size not in _LUKS2_SIZES:
        return Encryption("luks")  # the second header may be good: that is for cryptsetup to say
    try:
        untrusted_json = volume.read(_LUKS2_JSON, size - _LUKS2_JSON).split(b"\0", 1)[0]
        return _luks2(json.loads(untrusted_json))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Encryption("luks2")


def _luks1(head: bytes) -> Encryption:
    _, _, name, mode, digest, _, key_bytes = _LUKS1.unpack_from(head)
    slots = []
    for number in range(8):
        active, iterations = struct.unpack_from(">II", head, _LUKS1_SLOTS + number * _LUKS1_SLOT)
        if active == _LUKS1_ACTIVE:
            slots.append(Keyslot(number, f"pbkdf2-{_text(digest)}", iterations, None))
    return Encryption("luks1", f"{_text(name)}-{_text(mode)}", key_bytes * 8, slots)


def _luks2(untrusted: dict[str, Any]) -> Encryption:
    slots = [_keyslot(int(number), slot) for number, slot in sorted(untrusted["keyslots"].items())]
    sizes = {int(slot["key_size"]) * 8 for slot in untrusted["keyslots"].values()}
    ciphers = {str(each["encryption"]) for each in untrusted["segments"].values()}
    return Encryption(
        "luks2",
        ", ".join(sorted(ciphers))[:200] or None,
        sizes.pop() if len(sizes) == 1 else None,
        slots,
    )


def _keyslot(number: int, untrusted: dict[str, Any]) -> Keyslot:
    kdf = untrusted["kdf"]
    kind = str(kdf["type"])
    if kind == "pbkdf2":
        return Keyslot(number, f"pbkdf2-{kdf['hash']}"[:100], int(kdf["iterations"]), None)
    return Keyslot(number, kind[:100], int(kdf["time"]), int(kdf["memory"]) * 1024)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", "replace")
