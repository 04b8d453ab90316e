"""TrueCrypt and VeraCrypt: volumes without a signature, so nothing but a key that fits shows them.

Where the headers are: VeraCrypt's documentation, "VeraCrypt Volume Format Specification": at the
start and (hidden volume) 64 KiB behind it, with a backup of both at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

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
from appliance.agent.slice import with_node
from appliance.agent.volume import Volume
from appliance.agent.work import Opened, Work
from appliance.layer import Encryption, Finding, Severity, Status
from appliance.protocol import LayerKey

_MAX_KEYFILES = 32
"""As many as cryptsetup takes (src/cryptsetup.h)."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A header that a volume can have, and cryptsetup's options for it."""

    words: str
    options: Sequence[str] = ()
    hidden: bool = False


_FIRST = (_Place("outer volume"), _Place("hidden volume", ("--tcrypt-hidden",), hidden=True))
_BACKUP = (
    _Place("outer volume, backup header", ("--tcrypt-backup",)),
    _Place("hidden volume, backup header", ("--tcrypt-backup", "--tcrypt-hidden"), hidden=True),
)


@dataclass(frozen=True, slots=True)
class _Way:
    """A derivation that a volume can have been made with."""

    scheme: str
    options: Sequence[str]


_TRUECRYPT = _Way("truecrypt", ("--disable-veracrypt",))
_VERACRYPT = [
    _Way("veracrypt", ("--hash", name))
    for name in ("sha512", "sha256", "blake2s", "whirlpool", "ripemd160", "stribog")
]
"""VeraCrypt's default first. One by one, since each costs half a million iterations."""

_ORDER = [
    # TrueCrypt first: its derivation costs a hundredth, and this is how the two are told apart.
    *((_TRUECRYPT, place) for place in (*_FIRST, *_BACKUP)),
    *((way, place) for way in _VERACRYPT for place in _FIRST),
    *((way, place) for way in _VERACRYPT for place in _BACKUP),
]


def volume_without_signature(volume: Volume, work: Work) -> Opened:
    """Try the keys that were given for exactly this volume. Raises LeftAlone.

    Several can fit: that of a volume, and that of another one hidden in it.
    """
    keys = work.keyring.own(volume.address)
    passphrases = [key for key in keys if not key.keyfile]
    keyfiles = [key.secret for key in keys if key.keyfile][:_MAX_KEYFILES]
    if not passphrases:
        pim = next((key.pim for key in keys if key.pim), None)
        passphrases = [LayerKey(volume.address, bytearray(), pim=pim)]
    opened = Opened(Status.UNSUPPORTED)
    # Half of what is left: other volumes are to be opened too.
    end = time.monotonic() + work.outcome.seconds_left / 2
    failures: list[str] = []
    try:
        with _as_descriptors(keyfiles) as descriptors:
            for number, key in enumerate(passphrases, start=1):
                more = _try(volume, number, key, descriptors, work, end, failures)
                opened = _merge(opened, more)
    except (MappingError, DeviceError, OSError) as error:
        failures.append(str(error))
    if opened.volumes:
        return opened
    message = (
        "the key that was given for it opens it neither as a TrueCrypt nor as a VeraCrypt volume "
        f"(tried: {len(passphrases)}; outer and hidden volumes, first and backup headers)"
    )
    if failures:
        message += f"; not all could be tried: {failures[0]}"
    finding = Finding(Severity.WARNING, volume.address, "wrong-key", message)
    return replace(opened, findings=[finding])


def _merge(opened: Opened, more: Opened | None) -> Opened:
    if more is None:
        return opened
    known = {each.address for each in opened.volumes}
    if known & {each.address for each in more.volumes}:
        return opened
    return replace(
        more,
        encryption=opened.encryption or more.encryption,
        volumes=[*opened.volumes, *more.volumes],
        findings=[*opened.findings, *more.findings],
    )


def _try(  # noqa: PLR0913, PLR0917 - a volume, a key, and what came of the tries
    volume: Volume,
    number: int,
    key: LayerKey,
    keyfiles: Sequence[int],
    work: Work,
    end: float,
    failures: list[str],
) -> Opened | None:
    for way, place in _ORDER:
        if (seconds := end - time.monotonic()) <= 0:
            failures.append("the time for this run is over (--timeout)")
            return None
        operation = f"try {' '.join([way.scheme, *way.options[1:]])}, {place.words}"
        with work.outcome.phase(operation, volume.address, "unlock", DERIVATION_SECONDS):
            try:
                found = _open(volume, way, place, key, keyfiles, work, seconds)
            except (CommandError, CryptError) as error:
                failures.append(f"{operation}: {error}")
                continue
        if found:
            message = f"{way.scheme}, {place.words}: opened read-only by key {number}"
            finding = Finding(Severity.INFO, volume.address, "unlocked", message)
            facts = Encryption(way.scheme, keys_tried=number, opened_by=number)
            return Opened(Status.MAPPED, facts, [found], findings=[finding])
    return None


def _open(  # noqa: PLR0913, PLR0917 - a volume, a way, and a key
    volume: Volume,
    way: _Way,
    place: _Place,
    key: LayerKey,
    keyfiles: Sequence[int],
    work: Work,
    seconds: float,
) -> Volume | None:
    name = way.scheme + ("-hidden" if place.hidden else "")
    with ExitStack() as own:
        # A node of its own: cryptsetup wants one that nobody uses, and there can be two volumes.
        node = with_node(replace(volume, node=None), own).node or ""
        attempt = _attempt(way, place, key.pim, keyfiles)
        made = open_with(key.secret, node, attempt, own, seconds=seconds)
        if made is None:
            return None
        found = inside(volume, name, made, own)
        work.stack.enter_context(own.pop_all())
        return found


def _attempt(way: _Way, place: _Place, pim: int | None, keyfiles: Sequence[int]) -> Attempt:
    iterations = [f"--veracrypt-pim={pim}"] if pim and way is not _TRUECRYPT else []
    files = [word for each in keyfiles for word in ("--key-file", f"/proc/self/fd/{each}")]
    return Attempt("tcrypt", [*place.options, *way.options, *iterations, *files], keyfiles)


@contextmanager
def _as_descriptors(keyfiles: Sequence[bytearray]) -> Iterator[list[int]]:
    """cryptsetup reads these by name; files in memory have one and leave nothing behind."""
    with ExitStack() as stack:
        descriptors = []
        for content in keyfiles:
            descriptor = os.memfd_create("keyfile")
            stack.callback(os.close, descriptor)
            os.write(descriptor, content)
            descriptors.append(descriptor)
        yield descriptors
