"""Secrets are copied into memory of their own, and leave it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from appliance.agent.keyring import Keyring, parse_key
from appliance.protocol import ProtocolError
from appliance.secret import locked, wipe


def test_a_copy_that_can_be_wiped() -> None:
    source = bytearray(b"word")
    copy = locked(source)
    address = ctypes.addressof((ctypes.c_char * 4).from_buffer(copy))
    assert ctypes.string_at(address, 4) == b"word"
    wipe(copy)
    assert ctypes.string_at(address, 4) == bytes(4)
    assert source == b"word"
    wipe(locked(b""))


def test_it_is_locked() -> None:
    """The kernel counts it: VmLck of proc(5)."""

    def kib() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmLck"))

    before = kib()
    secret = locked(bytes(1 << 20))
    assert kib() >= before + 1000
    assert secret == bytes(1 << 20)


def test_keys_in_the_guest() -> None:
    words = [
        {"address": "all", "secret": "YQ==", "keyfile": False, "pim": None},
        {"address": "disk0", "secret": "Yg==", "keyfile": True, "pim": 1},
    ]
    ring = Keyring([parse_key(word) for word in words])
    assert ring.fitting("disk0") == [b"b", b"a"]
    assert ring.fitting("disk1") == [b"a"]
    assert [key.pim for key in ring.own("disk0")] == [1]
    assert "YQ" not in repr(ring)
    ring.wipe()
    assert ring.fitting("disk0") == [b"\0", b"\0"]


@pytest.mark.parametrize(
    "word",
    [
        {},
        {"address": "all"},
        {"address": "all", "secret": "!"},
        {"address": "all", "secret": "YQ==", "other": 1},
    ],
)
def test_a_key_that_is_none(word: dict[str, object]) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_key(word)
    assert "YQ" not in str(caught.value)
