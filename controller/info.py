"""`forensic info`: what a container says about itself and what belongs to it, without a guest."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Set
from contextlib import ExitStack
from pathlib import Path

import msgspec

from controller.errors import EnvironmentFailed, EvidenceChanged, EvidenceRefused, ExitCode
from controller.sizes import moment
from images.allocation import stored, used
from images.chain import Link
from images.errors import ImageError, Locked, SandboxFailed
from images.evidence import EvidenceFile
from images.export import exported
from images.image import Image, open_image
from images.qcow2_snapshots import Snapshot
from images.quoting import shown
from images.reference import Reach

SCHEMA = "forensic.info/1"

_TOLD_ELSEWHERE = frozenset({"virtual_size", "notes"})

Fact = str | int | bool | list[str] | None


class Ranges(msgspec.Struct, frozen=True):
    """How much of something holds data: in `bytes`, in so many contiguous `ranges`."""

    bytes: int
    ranges: int


class FileFacts(msgspec.Struct, frozen=True):
    """One file. `data` is what the file system stores of it, without holes."""

    path: str
    size: int
    data: Ranges


class SnapshotFacts(msgspec.Struct, frozen=True):
    """An internal snapshot; names are escaped, and in base64 where they are not UTF-8."""

    id: str
    name: str
    name_base64: str | None
    created: str
    disk_size: int
    state_size: int


class LinkFacts(msgspec.Struct, frozen=True):
    """One image of the chain. `details` are its format's own, named in docs/reference/info.md."""

    path: str
    role: str
    format: str
    virtual_size: int | None
    files: list[FileFacts]
    details: dict[str, Fact]
    snapshots: list[SnapshotFacts]
    notes: list[str]


class ImageFacts(msgspec.Struct, frozen=True):
    """One image. The size is None where it could not be unpacked; `data` is None where it is locked
    or its parser refused it: see `problem`."""

    path: str
    format: str
    virtual_size: int | None
    locked: bool
    chain: list[LinkFacts]
    data: Ranges | None
    problem: str | None


class Info(msgspec.Struct, frozen=True):
    """What `forensic info --json` prints."""

    schema: str
    images: list[ImageFacts]

    @property
    def exit_code(self) -> ExitCode:
        """0 where everything could be told, else 1."""
        whole = all(image.problem is None for image in self.images)
        return ExitCode.COMPLETE if whole else ExitCode.INCOMPLETE

    def to_json(self) -> bytes:
        """The documented JSON document, indented, with a final newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def gather(paths: list[Path], allowed: list[Path]) -> Info:
    """Open each image and tell what it is. Raises ForensicError."""
    try:
        reach = Reach.into(allowed)
        return Info(SCHEMA, [_image(path, reach) for path in paths])
    except ImageError as error:
        raise EvidenceRefused(str(error), hint=error.hint) from error


def _image(path: Path, reach: Reach) -> ImageFacts:
    with ExitStack() as stack:
        image = open_image(path, stack=stack, reach=reach)
        links = [_link(link, role) for link, role in _roles(image)]
        size, data, problem, locked = _data(image)
        changes = [change for file in image.files for change in file.changes()]
        if changes:
            error = EvidenceChanged(
                f"{shown(str(path))} changed while it was looked at:\n" + "\n".join(changes),
                hint="find out what else writes to it",
            )
            error.changes = changes
            raise error
    return ImageFacts(
        path=text_of(path),
        format=image.format,
        virtual_size=size,
        locked=locked,
        chain=links,
        data=data,
        problem=problem,
    )


def _roles(image: Image) -> list[tuple[Link, str]]:
    """The links with what each is to the one that it was found from."""
    roles = [(image.chain[0], "image")]
    for link in image.chain[1:]:
        is_data = any(each.data is link for each in image.chain)
        roles.append((link, "data file" if is_data else "backing file"))
    return roles


def _data(image: Image) -> tuple[int | None, Ranges | None, str | None, bool]:
    """Ask the sandboxed exporter how large the disk is and which parts of it hold data."""
    size = image.virtual_size
    try:
        with exported(image.plan, None, name="info") as export:
            size = export.size
            found = used(export.socket, export.name, export.size, path=image.path)
    except SandboxFailed as error:
        raise EnvironmentFailed(str(error), hint=error.hint) from error
    except Locked as error:
        return size, None, error.message, True
    except ImageError as error:
        return size, None, error.message, False
    return size, Ranges(*found), None, False


def _link(link: Link, role: str) -> LinkFacts:
    return LinkFacts(
        path=text_of(link.path),
        role=role,
        format=link.format,
        virtual_size=link.virtual_size,
        files=[_file(file) for file in link.files],
        details=_details(link.details),
        snapshots=[_snapshot(each) for each in link.snapshots],
        notes=list(link.notes),
    )


def _file(file: EvidenceFile) -> FileFacts:
    return FileFacts(text_of(file.path), file.size, Ranges(*stored(file)))


def _details(details: object, but: Set[str] = _TOLD_ELSEWHERE) -> dict[str, Fact]:
    """The fields of a parser's result, as numbers and text; names of an image are escaped."""
    if not dataclasses.is_dataclass(details):
        return {}
    found: dict[str, Fact] = {}
    for field in dataclasses.fields(details):
        name = field.name.removeprefix("untrusted_")
        value = getattr(details, field.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{name}_{inner}": fact for inner, fact in _details(value, set()).items()}
        elif name not in but:
            found[name] = _fact(value)
    return found


def _fact(value: object) -> Fact:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (list, tuple)):
        return [str(_fact(each)) for each in value]
    return shown(value) if isinstance(value, (str, bytes)) else shown(str(value))


def _snapshot(snapshot: Snapshot) -> SnapshotFacts:
    return SnapshotFacts(
        id=shown(snapshot.id),
        name=shown(snapshot.name),
        name_base64=_base64(snapshot.name),
        created=moment(snapshot.created),
        disk_size=snapshot.disk_size,
        state_size=snapshot.state_size,
    )


def _base64(name: bytes) -> str | None:
    try:
        name.decode()
    except UnicodeDecodeError:
        return base64.b64encode(name).decode()
    return None


def text_of(path: Path) -> str:
    """A path for JSON: text where it is UTF-8, escaped where it is not."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return shown(str(path))
    return str(path)
