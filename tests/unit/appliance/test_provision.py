"""The host key that the guest makes, judged by cryptography."""

from __future__ import annotations

import base64
import re
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.agent import provision
from appliance.agent.provision import _public_of, make_key
from appliance.protocol import KEY, ProtocolError


def unpacked(data: bytes) -> list[bytes]:
    """The strings of SSH's wire format, RFC 4251, section 5."""
    found = []
    while data:
        (length,) = struct.unpack(">I", data[:4])
        assert len(data) >= 4 + length
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


def loaded(private: bytes) -> Ed25519PrivateKey:
    kind, key = unpacked(private)
    assert kind == KEY.encode()
    assert len(key) == 64
    return Ed25519PrivateKey.from_private_bytes(key[:32])


def test_halves_belong_together() -> None:
    private, public = make_key()
    key = loaded(private)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert line.decode() == public
    assert unpacked(private)[1][32:] == key.public_key().public_bytes_raw()
    assert unpacked(base64.b64decode(public.split()[1]))[1] == unpacked(private)[1][32:]


def test_every_key_is_another() -> None:
    keys = [make_key() for _ in range(20)]
    assert len({private for private, _ in keys}) == len({public for _, public in keys}) == 20


def test_seed_decides_the_public_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8032, 7.1, test 1: and what is drawn is the seed, nothing else of the process."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert _public_of(seed).hex() == public
    monkeypatch.setattr(provision.os, "urandom", lambda size: seed[:size])
    private, line = make_key()
    assert base64.b64decode(line.split()[1])[-32:].hex() == public
    assert loaded(private).private_bytes_raw() == seed
    assert re.fullmatch(r"ssh-ed25519 [A-Za-z0-9+/=]+", line)


@pytest.mark.parametrize("size", [0, 1, 31])
def test_too_little_entropy(size: int) -> None:
    with pytest.raises(ProtocolError, match="too few"):
        provision._reseed(bytes(size))
