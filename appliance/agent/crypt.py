"""Encrypted volumes with a header: opened with the keys that were given for them, and read-only
unless what is inside is to be repaired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from appliance.agent import luks
from appliance.agent.command import CommandError
from appliance.agent.cryptsetup import (
    DERIVATION_SECONDS,
    Attempt,
    CryptError,
    inside,
    open_with,
)
from appliance.agent.device import DeviceError
from appliance.agent.dm import MappingError
from appliance.agent.memory import MIB, Derivations
from appliance.agent.slice import with_node
from appliance.agent.volume import Volume
from appliance.agent.work import Opened, Work
from appliance.layer import Encryption, Finding, Keyslot, Severity, Status


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
    header = work.headers.get(volume.address)
    try:
        facts = scheme.facts(header or volume)
    except OSError as error:
        return _closed(volume, Encryption(scheme.name), "unreadable", f"its header: {error}")
    keys = work.keyring.fitting(volume.address)
    if not keys:
        message = (
            "encrypted, and no key was given; what is inside is not shown "
            f"(--key {volume.address}:file:PATH)"
        )
        return _closed(volume, facts, "locked", message)
    derivations = Derivations.of(facts.keyslots)
    writable = work.may_write(f"{volume.address}/{scheme.name}")
    attempts = [replace(each, writable=writable) for each in _attempts(scheme, header, derivations)]
    with work.outcome.phase("derive the key", volume.address, "unlock", DERIVATION_SECONDS):
        opened = _try(volume, scheme, facts, _each(keys, attempts), work)
    findings = [each for each in opened.findings if attempts or each.code != "wrong-key"]
    findings += _claims(volume, derivations.impossible)
    if derivations.too_large and not opened.volumes:
        work.outcome.memory = max(work.outcome.memory, derivations.guest)
        findings = [each for each in findings if each.code != "wrong-key"]
        findings.insert(0, _for_want_of_memory(volume, derivations))
    return replace(opened, findings=findings)


def _attempts(scheme: Scheme, header: Volume | None, derivations: Derivations) -> list[Attempt]:
    """One for all keyslots, or one for each where some are not to be tried."""
    options = ["--header", header.node or ""] if header else []
    if not derivations.too_large and not derivations.impossible:
        return [Attempt(scheme.kind, options)]
    return [
        Attempt(scheme.kind, [*options, "--key-slot", str(slot.number)])
        for slot in derivations.possible
    ]


def _each(
    keys: Sequence[bytearray], attempts: Sequence[Attempt]
) -> list[tuple[int, bytearray, Attempt]]:
    """Every way to try every key, with the key's number, which counts from 1."""
    return [
        (number, key, attempt) for number, key in enumerate(keys, start=1) for attempt in attempts
    ]


def _try(
    volume: Volume,
    scheme: Scheme,
    facts: Encryption,
    tries: Sequence[tuple[int, bytearray, Attempt]],
    work: Work,
) -> Opened:
    given = max((number for number, _, _ in tries), default=0)
    facts = replace(facts, keys_tried=given)
    try:
        node = with_node(volume, work.stack).node or ""
        for number, key, attempt in tries:
            seconds = work.outcome.seconds_left
            if opened := open_with(key, node, attempt, work.stack, seconds=seconds):
                facts = replace(facts, keys_tried=number, opened_by=number)
                how = "for a repair" if attempt.writable else "read-only"
                message = f"opened {how} by key {number} of {given} that were given for it"
                finding = Finding(Severity.INFO, volume.address, "unlocked", message)
                found = inside(volume, scheme.name, opened, work.stack, writable=attempt.writable)
                return Opened(Status.MAPPED, facts, [found], findings=[finding])
    except (CommandError, MappingError, DeviceError, CryptError) as error:
        return _closed(
            volume, facts, "not-opened", f"encrypted, and it could not be opened: {error}"
        )
    message = f"encrypted, and none of the keys that were given for it fits (tried: {given})"
    return _closed(volume, facts, "wrong-key", message)


def _claims(volume: Volume, impossible: Sequence[Keyslot]) -> list[Finding]:
    return [
        Finding(
            Severity.ERROR,
            volume.address,
            "impossible-keyslot",
            f"keyslot {slot.number} claims to need {(slot.memory or 0) // MIB} MiB of memory, and "
            "cryptsetup makes none above 4096 MiB: it is damaged or a trap, and was not tried",
        )
        for slot in impossible
    ]


def _for_want_of_memory(volume: Volume, derivations: Derivations) -> Finding:
    slots = ", ".join(str(slot.number) for slot in derivations.too_large)
    needed = max(slot.memory or 0 for slot in derivations.too_large)
    others = "; none of the keys fits the other keyslots" if derivations.possible else ""
    message = (
        f"deriving its key needs {needed // MIB} MiB of memory, more than the guest has: keyslot "
        f"{slots} was not tried{others} (--memory {derivations.guest} is enough)"
    )
    return Finding(Severity.WARNING, volume.address, "needs-memory", message)


def _closed(volume: Volume, facts: Encryption, code: str, message: str) -> Opened:
    finding = Finding(Severity.WARNING, volume.address, code, message)
    return Opened(Status.LOCKED, facts, findings=[finding])
