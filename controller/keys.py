"""Keys that the user gives, and where they come from: never from the command line itself."""

from __future__ import annotations

import base64
import getpass
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.layer import MAX_TEXT, Finding, Severity
from appliance.protocol import LayerKey
from controller.errors import UsageError
from images.quoting import shown

ALL = "all"
MAX_KEY = 8 << 20
"""What cryptsetup reads of a key file at most (--help of cryptsetup 2.6)."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key for the layer at `address`, or for every one where that is `all`."""

    address: str
    secret: bytes = field(repr=False)


def read_keys(words: Sequence[str], *, from_stdin: bool) -> tuple[Key, ...]:
    """Read what `--key ADDRESS:file:PATH` and its like name. Raises UsageError."""
    keys = [_read(word) for word in words]
    if from_stdin:
        lines = sys.stdin.buffer.read(MAX_KEY + 1)
        if len(lines) > MAX_KEY:
            raise UsageError("--keys-from-stdin: more than 8 MiB")
        keys += [Key(ALL, line) for line in lines.split(b"\n") if line]
    return tuple(keys)


def _read(word: str) -> Key:
    if found := re.fullmatch("(.+):prompt", word):
        return Key(found[1], _asked(found[1]))
    # An address has colons itself where it leads into an image in a file system.
    if found := re.fullmatch("(.+?):(file|keyfile):(.+)", word, re.DOTALL):
        address, source, path = found.groups()
        content = _content(path)
        # A passphrase was typed into its file with an editor; a key file is taken as it is.
        if source == "file" and content.endswith(b"\n"):
            content = content[:-1]
        if not content:
            raise UsageError(f"--key: {shown(path)} is empty")
        return Key(address, content)
    # What was given may be a secret by mistake: it is not repeated.
    raise UsageError(
        "--key takes ADDRESS:file:PATH, ADDRESS:keyfile:PATH or ADDRESS:prompt",
        hint="ADDRESS is a layer as `forensic inspect` names it, such as disk0, or all",
    )


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", opener=_plainly) as file:
            content = file.read(MAX_KEY + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"--key: {shown(path)}: {reason}") from error
    if len(content) > MAX_KEY:
        raise UsageError(f"--key: {shown(path)} has more than 8 MiB")
    return content


def _plainly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY)


def _asked(address: str) -> bytes:
    if not sys.stdin.isatty():
        raise UsageError(
            "--key: prompt needs a terminal", hint="use ADDRESS:file:PATH or --keys-from-stdin"
        )
    passphrase = getpass.getpass(f"passphrase for {shown(address)}: ").encode()
    if not passphrase:
        raise UsageError("--key: nothing was typed")
    return passphrase


def layer_keys(keys: Sequence[Key]) -> list[LayerKey]:
    """All keys as the agent takes them, in their order."""
    return [LayerKey(key.address, base64.b64encode(key.secret).decode()) for key in keys]


def astray(keys: Sequence[Key], addresses: set[str]) -> list[Finding]:
    """A finding for each address that a key was given for and that is no layer."""
    wanted = dict.fromkeys(key.address for key in keys if key.address != ALL)
    return [
        Finding(
            Severity.WARNING,
            None,
            "no-such-layer",
            f"a key was given for {address}, and there is no such layer"[:MAX_TEXT],
        )
        for address in wanted
        if address not in addresses
    ]


def keys_for(address: str, keys: Sequence[Key]) -> list[bytes]:
    """What to try on a layer: its own keys first, then those for all."""
    own = [key.secret for key in keys if key.address == address]
    return [*own, *(key.secret for key in keys if key.address == ALL)]
