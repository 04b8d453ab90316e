"""Where a hostile container lies, and what it reaches for: a secret outside of its folder."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.builders.qcow2 import MIB, Qcow2
from tests.builders.vmdk_chain import GRAIN, Ids, write_flat, write_monolithic

SECRET_ID = 0x5EC2E700
"""The content ID of the secret VMDK: an attacker who knows it can name it as a parent."""


@dataclass(frozen=True)
class Place:
    """`folder` is the case's own. In `outside` lie secret, secret.qcow2, secret.vmdk
    and flat.vmdk, and in the folder `sibling` beside it disk.raw.

    Each of them is a disk of a MiB, in which `token` is repeated.
    """

    folder: Path
    outside: Path
    token: bytes

    @property
    def secret(self) -> Path:
        """The raw one."""
        return self.outside / "secret"

    def named(self, template: str | bytes) -> bytes:
        """The template with @secret@, @outside@ (the folder) and @case@ filled in."""
        text = template.encode() if isinstance(template, str) else template
        for word, path in (
            (b"@secret@", self.secret),
            (b"@outside@", self.outside),
            (b"@case@", self.folder),
        ):
            text = text.replace(word, os.fsencode(path))
        return text

    def write(self, name: str | bytes, data: bytes) -> Path:
        """Write a file of the case."""
        path = self.folder / os.fsdecode(name)
        path.write_bytes(data)
        return path

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link in the case's folder."""
        (self.folder / name).symlink_to(os.fsdecode(self.named(target)))


Maker = Callable[[Place], Path]
"""Makes a case in its folder and returns what is to be opened."""


@dataclass(frozen=True)
class Hostile:
    """`refused` is in the message of the refusal; without it the image is opened, and is harmless.

    What is then served begins with what `content` says, if given. `declared` is the format that
    the user gave.
    """

    make: Maker
    refused: str = ""
    declared: str = ""
    content: Callable[[Path], bytes] | None = None
    error: str = ""


@dataclass(frozen=True)
class Benign:
    """It is opened, and what is served is `content`. `allowed` are further folders."""

    make: Maker
    content: bytes
    allowed: tuple[Path, ...] = field(default=())


def make_outside(folder: Path) -> Place:
    """Make the secrets; the place's own folder is the one of the first case."""
    outside = folder / "outside"
    outside.mkdir(parents=True)
    token = f"canary-{secrets.token_hex(16)}-".encode()
    disk = (token * (MIB // len(token) + 1))[:MIB]
    (outside / "secret").write_bytes(disk)
    (folder / "sibling").mkdir()
    (folder / "sibling" / "disk.raw").write_bytes(disk)
    clusters = dict.fromkeys(range(16), disk[: 64 * 1024])
    (outside / "secret.qcow2").write_bytes(Qcow2(MIB, clusters=clusters).build())
    grains = dict.fromkeys(range(MIB // GRAIN), disk[:GRAIN])
    write_monolithic(outside / "secret.vmdk", MIB, grains, Ids(SECRET_ID))
    write_flat(outside / "flat.vmdk", disk, Ids(SECRET_ID))
    return Place(folder, outside, token)
