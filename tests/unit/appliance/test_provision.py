"""The host key that the guest makes, judged by OpenSSH and by cryptography."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from appliance.agent import provision
from appliance.agent.provision import _SSHD_SETTINGS, _public_of, make_key
from appliance.protocol import AGENT_ADDRESS, CIPHER, KEX, KEY, ProtocolError


def ssh_keygen(*options: str | Path) -> str:
    done = subprocess.run(["ssh-keygen", *options], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, str]:
    private, public = make_key()
    path = tmp_path / "key"
    path.write_text(private)
    path.chmod(0o600)
    return path, public


def test_ssh_keygen_reads_it(key: tuple[Path, str]) -> None:
    path, public = key
    assert ssh_keygen("-y", "-P", "", "-f", path) == public


def test_fingerprints_agree(key: tuple[Path, str], tmp_path: Path) -> None:
    path, public = key
    (tmp_path / "other.pub").write_text(public + "\n")
    fingerprint = ssh_keygen("-l", "-f", path).split()[:2]
    assert fingerprint == ssh_keygen("-l", "-f", tmp_path / "other.pub").split()[:2]
    assert fingerprint[0] == "256"


def test_cryptography_reads_it(key: tuple[Path, str]) -> None:
    path, public = key
    loaded = load_ssh_private_key(path.read_bytes(), None)
    assert isinstance(loaded, Ed25519PrivateKey)
    line = loaded.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert line.decode() == public
    load_ssh_public_key(public.encode()).verify(loaded.sign(b"x"), b"x")  # type: ignore[call-arg, union-attr]


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
    loaded = load_ssh_private_key(private.encode(), None)
    raw = loaded.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    assert raw == seed


def test_form() -> None:
    private, public = make_key()
    lines = private.splitlines()
    assert lines[0] == "-----BEGIN OPENSSH PRIVATE KEY-----"
    assert lines[-1] == "-----END OPENSSH PRIVATE KEY-----"
    assert all(len(line) <= 70 for line in lines)
    assert re.fullmatch(r"ssh-ed25519 [A-Za-z0-9+/=]+", public)
    assert len(base64.b64decode("".join(lines[1:-1]), validate=True)) % 4 >= 0


@pytest.mark.parametrize("size", [0, 1, 31])
def test_too_little_entropy(size: int) -> None:
    with pytest.raises(ProtocolError, match="too few"):
        provision._reseed(bytes(size))


@pytest.mark.parametrize(
    "line",
    [
        f"KexAlgorithms {KEX}",
        f"Ciphers {CIPHER}",
        f"HostKeyAlgorithms {KEY}",
        f"PubkeyAcceptedAlgorithms {KEY}",
        f"PermitOpen {AGENT_ADDRESS[0]}:{AGENT_ADDRESS[1]}",
        "AuthenticationMethods publickey",
        "PasswordAuthentication no",
        "AllowAgentForwarding no",
        "X11Forwarding no",
        "AllowTcpForwarding local",
        "AllowStreamLocalForwarding no",
        "Compression no",
    ],
)
def test_sshd_settings(line: str) -> None:
    assert line in _SSHD_SETTINGS.splitlines()
