"""Keys that the user gives, and where they come from: never from the command line itself."""

from __future__ import annotations

import getpass
import os
import re
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from appliance.layer import MAX_TEXT, Finding, Severity
from appliance.protocol import LayerKey
from appliance.secret import locked, wipe
from controller.errors import UsageError
from controller.headers import DetachedHeader
from images.quoting import shown

ALL = "all"
MAX_KEY = 8 << 20
"""What cryptsetup reads of a key file at most (--help of cryptsetup 2.6)."""

MAX_ALL = 512 << 10
"""Bytes of all keys together: they go to the guest in one message."""

_MAX_PIM = 2_147_468
"""VeraCrypt's own limit."""

_PIM = "(?::pim=([0-9]{1,7}))?"


@dataclass(frozen=True, slots=True)
class Key:
    """A key for the layer at `address`, or for every one where that is `all`.

    TrueCrypt and VeraCrypt mix what is a `keyfile` into every passphrase; `pim` is VeraCrypt's
    number of iterations.
    """

    address: str
    secret: bytes | bytearray = field(repr=False)
    keyfile: bool = False
    pim: int | None = None


class Fillable(Protocol):
    """A file that can be read without a copy of its own."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


def read_keys(words: Sequence[str], *, from_stdin: bool) -> tuple[Key, ...]:
    """Read what `--key ADDRESS:file:PATH` and its like name. Raises UsageError."""
    if words or from_stdin:
        _keep_out_of_core_dumps()
    keys = [_read(word) for word in words]
    if from_stdin:
        lines = _all_of(cast("Fillable", sys.stdin.buffer), "--keys-from-stdin: more than 8 MiB")
        keys += [Key(ALL, locked(line)) for line in _split(lines)]
        wipe(lines)
    if sum(len(key.secret) for key in keys) > MAX_ALL:
        raise UsageError(f"the keys have more than {MAX_ALL >> 10} KiB together")
    return tuple(keys)


def _keep_out_of_core_dumps() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The limit does not hold for a dump that goes to a program; see core(5).
    with suppress(OSError):
        Path("/proc/self/coredump_filter").write_text("0")


def _split(lines: bytearray) -> list[memoryview]:
    """The lines that are not empty, without their ends, and without a copy."""
    view, found, start = memoryview(lines), [], 0
    while start < len(lines):
        end = lines.find(b"\n", start)
        end = len(lines) if end < 0 else end
        if end > start:
            found.append(view[start:end])
        start = end + 1
    return found


def _read(word: str) -> Key:
    if found := re.fullmatch(f"(.+?){_PIM}:prompt", word):
        return Key(found[1], _asked(found[1]), pim=_pim(found[2]))
    # An address has colons itself where it leads into an image in a file system.
    if found := re.fullmatch(f"(.+?){_PIM}:(file|keyfile):(.+)", word, re.DOTALL):
        address, pim, source, path = found.groups()
        content = _content(path)
        # A passphrase was typed into its file with an editor; a key file is taken as it is.
        is_keyfile = source == "keyfile"
        if not is_keyfile and content.endswith(b"\n"):
            del content[-1:]
        if not content:
            raise UsageError(f"--key: {shown(path)} is empty")
        return Key(address, content, is_keyfile, _pim(pim))
    # What was given may be a secret by mistake: it is not repeated.
    raise UsageError(
        "--key takes ADDRESS:file:PATH, ADDRESS:keyfile:PATH or ADDRESS:prompt",
        hint="ADDRESS is a layer as `forensic inspect` names it, such as disk0, or all",
    )


def _pim(digits: str | None) -> int | None:
    if digits is None:
        return None
    if not 1 <= int(digits) <= _MAX_PIM:
        raise UsageError(f"--key: pim= is a number from 1 to {_MAX_PIM}")
    return int(digits)


def _content(path: str) -> bytearray:
    try:
        with open(path, "rb", buffering=0, opener=_plainly) as file:
            return _all_of(file, f"--key: {shown(path)} has more than 8 MiB")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"--key: {shown(path)}: {reason}") from error


def _all_of(file: Fillable, too_much: str) -> bytearray:
    """The rest of the file in locked memory, with no other copy left. Raises UsageError."""
    buffer = bytearray(MAX_KEY + 1)  # takes memory only as far as it is filled
    size = 0
    with memoryview(buffer) as view:
        while size < len(buffer) and (count := file.readinto(view[size:])):
            size += count
        if size > MAX_KEY:
            raise UsageError(too_much)
        content = locked(view[:size])
    wipe(buffer)
    return content


def _plainly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY)


def _asked(address: str) -> bytearray:
    if not sys.stdin.isatty():
        raise UsageError(
            "--key: prompt needs a terminal", hint="use ADDRESS:file:PATH or --keys-from-stdin"
        )
    passphrase = locked(getpass.getpass(f"passphrase for {shown(address)}: ").encode())
    if not passphrase:
        raise UsageError("--key: nothing was typed")
    return passphrase


def layer_keys(keys: Sequence[Key]) -> list[LayerKey]:
    """All keys as the agent takes them, in their order; `wipe` these when they were sent."""
    return [LayerKey(key.address, locked(key.secret), key.keyfile, key.pim) for key in keys]


def forget(keys: Sequence[Key]) -> None:
    """Overwrite the secrets, where that is possible."""
    for key in keys:
        if isinstance(key.secret, bytearray):
            wipe(key.secret)


def astray(
    keys: Sequence[Key], headers: Sequence[DetachedHeader], addresses: set[str]
) -> list[Finding]:
    """A finding for each address that a key or a header was given for and that is no layer."""
    wanted = [("key", key.address) for key in keys if key.address != ALL]
    wanted += [("header", header.address) for header in headers]
    return [
        Finding(
            Severity.WARNING,
            None,
            "no-such-layer",
            f"a {what} was given for {address}, and there is no such layer"[:MAX_TEXT],
        )
        for what, address in dict.fromkeys(wanted)
        if address not in addresses
    ]


def check_disks(keys: Sequence[Key], headers: Sequence[DetachedHeader], images: int) -> None:
    """A key for a disk that is not there is a mistake that nobody would notice.

    Raises UsageError.
    """
    known = {ALL, *(f"disk{index}" for index in range(images))}
    words = [("--key", key.address) for key in keys]
    words += [("--header", header.address) for header in headers]
    for option, address in words:
        # An image in a file system has an address of its own: disk0:/vm.qcow2.
        disk = address.split("/")[0].removesuffix(":")
        is_wrong = disk == address or disk.startswith("disk")
        if (disk not in known and is_wrong) or (option == "--header" and disk == ALL):
            raise UsageError(
                f"{option}: there is no {shown(address)}",
                hint=f"there are {', '.join(sorted(known - {ALL}))}"
                + ("; or give all" if option == "--key" else ""),
            )


def keys_for(address: str, keys: Sequence[Key]) -> list[bytes]:
    """What to try on a layer: its own keys first, then those for all."""
    own = [key for key in keys if key.address == address]
    return [bytes(key.secret) for key in [*own, *(key for key in keys if key.address == ALL)]]
