"""Encrypted volumes: opened read-only by cryptsetup, with the keys that were given for them.

A key goes to cryptsetup's standard input and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count

from appliance.agent import luks
from appliance.agent.command import CommandError, run
from appliance.agent.device import DeviceError, open_device
from appliance.agent.dm import MappingError, node_by_name
from appliance.agent.slice import with_node
from appliance.agent.volume import Volume
from appliance.agent.work import Opened, Work
from appliance.layer import Encryption, Finding, Kind, Severity, Status

DERIVATION_SECONDS = 600
"""What deriving the keys of one volume may take; Argon2 at its usual cost, emulated."""

_WRONG_KEY, _NO_MEMORY = 2, 3
"""Exit statuses of cryptsetup(8)."""

_numbers = count()


@dataclass(frozen=True, slots=True)
class Scheme:
    """How cryptsetup calls a kind of encryption, what its layer is called, and who reads its
    header."""

    kind: str
    name: str
    facts: Callable[[Volume], Encryption]


LUKS = Scheme("luks", "luks", luks.facts)
BITLOCKER = Scheme("bitlk", "bitlocker", lambda _: Encryption("bitlocker"))
FILEVAULT = Scheme("fvault2", "filevault", lambda _: Encryption("filevault2"))


def luks_volume(volume: Volume, work: Work) -> Opened:
    """Open a LUKS volume with the keys that were given for it. Raises LeftAlone."""
    return _unlock(volume, LUKS, work)


def bitlocker_volume(volume: Volume, work: Work) -> Opened:
    """The same for BitLocker."""
    return _unlock(volume, BITLOCKER, work)


def filevault_volume(volume: Volume, work: Work) -> Opened:
    """The same for FileVault 2."""
    return _unlock(volume, FILEVAULT, work)


def _unlock(volume: Volume, scheme: Scheme, work: Work) -> Opened:
    try:
        facts = scheme.facts(volume)
    except OSError as error:
        return _closed(volume, Encryption(scheme.name), "unreadable", f"its header: {error}")
    keys = work.keyring.fitting(volume.address)
    if not keys:
        message = (
            "encrypted, and no key was given; what is inside is not shown "
            f"(--key {volume.address}:file:PATH)"
        )
        return _closed(volume, facts, "locked", message)
    with work.outcome.phase("derive the key", volume.address, "unlock", DERIVATION_SECONDS):
        return _try(volume, scheme, facts, keys, work.stack)


def _try(
    volume: Volume, scheme: Scheme, facts: Encryption, keys: Sequence[bytes], stack: ExitStack
) -> Opened:
    facts = replace(facts, keys_tried=len(keys))
    try:
        node = with_node(volume, stack).node or ""
        for number, key in enumerate(keys, start=1):
            if opened := _open(node, scheme.kind, key, stack):
                facts = replace(facts, keys_tried=number, opened_by=number)
                message = f"opened read-only by key {number} of {len(keys)} that were given for it"
                finding = Finding(Severity.INFO, volume.address, "unlocked", message)
                inside = _inside(volume, scheme, opened, stack)
                return Opened(Status.MAPPED, facts, [inside], findings=[finding])
    except (CommandError, MappingError, DeviceError, CryptError) as error:
        return _closed(
            volume, facts, "not-opened", f"encrypted, and it could not be opened: {error}"
        )
    message = f"encrypted, and none of the keys that were given for it fits (tried: {len(keys)})"
    return _closed(volume, facts, "wrong-key", message)


class CryptError(Exception):
    """cryptsetup refused for another reason than the key."""


def _open(node: str, kind: str, key: bytes, stack: ExitStack) -> str | None:
    """The node of what is inside, None where the key does not fit."""
    name = f"crypt{next(_numbers)}"
    argv = ["cryptsetup", "open", "--readonly", "--batch-mode", "--type", kind, "--key-file", "-"]
    done = run([*argv, node, name], timeout=DERIVATION_SECONDS - 30, stdin=key)
    if done.status == _WRONG_KEY:
        return None
    words = done.stderr.decode("utf-8", "replace").strip()[:1000]
    if done.status == _NO_MEMORY:
        raise CryptError(f"the guest has too little memory for its key derivation; {words}")
    if done.status != 0:
        raise CryptError(words or f"cryptsetup ended with status {done.status}")
    stack.callback(run, ["cryptsetup", "close", name], timeout=60)
    found = node_by_name(name)
    if found is None:
        raise CryptError("cryptsetup made no device")
    return found


def _inside(volume: Volume, scheme: Scheme, node: str, stack: ExitStack) -> Volume:
    device = open_device(node)
    stack.callback(device.close)
    return Volume(
        address=f"{volume.address}/{scheme.name}",
        kind=Kind.CRYPT,
        parents=[volume.address],
        offset=None,
        size=device.size,
        device=device,
        start=0,
        node=node,
    )


def _closed(volume: Volume, facts: Encryption, code: str, message: str) -> Opened:
    finding = Finding(Severity.WARNING, volume.address, code, message)
    return Opened(Status.LOCKED, facts, findings=[finding])
