"""The files of one image, found link by link from the one that the user named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.detect import Format, detect
from images.errors import PolicyViolation, Unsupported
from images.evidence import EvidenceFile
from images.graph import READERS, Node
from images.qcow2_snapshots import Snapshot
from images.quoting import shown
from images.reference import Reach, opened_reference

MAX_DEPTH = 64
MAX_FILES = 4096


@dataclass(frozen=True, slots=True)
class Link:
    """One image of a chain. The size is None where it is only known when all was unpacked.

    `details` is what its format's parser found. `files` are the link's own; `backing` is the link
    below it, `data` its external data file.
    """

    path: Path
    format: Format
    virtual_size: int | None
    files: tuple[EvidenceFile, ...]
    details: Any
    node: Node
    notes: tuple[str, ...] = ()
    backing: Link | None = None
    data: Link | None = None
    snapshots: tuple[Snapshot, ...] = ()

    @property
    def below(self) -> tuple[Link, ...]:
        """This link and all below it, in the order of reading."""
        backing = self.backing.below if self.backing else ()
        return (self, *((self.data,) if self.data else ()), *backing)


Opener = Callable[[EvidenceFile, "Chain"], Link]


class Chain:
    """What was opened so far, and the rules for going on. Files close with `stack`.

    `snapshot` is the internal snapshot that the user chose, for the first link alone.
    """

    def __init__(
        self,
        openers: Mapping[Format, Opener],
        stack: ExitStack,
        reach: Reach,
        snapshot: str | None = None,
    ) -> None:
        self._openers = openers
        self._stack = stack
        self._reach = reach
        self._depth = 0
        self._files: list[EvidenceFile] = []
        self.snapshot = snapshot

    @property
    def files(self) -> tuple[EvidenceFile, ...]:
        """All files, the one that the user named first."""
        return tuple(self._files)

    @property
    def is_top(self) -> bool:
        """Whether the link that is being opened is the image that the user named."""
        return self._depth == 1

    def open(self, file: EvidenceFile, form: Format) -> Link:
        """The link that begins with `file`. Raises ImageErrors."""
        if self._depth >= MAX_DEPTH:
            raise PolicyViolation(f"stands on more than {MAX_DEPTH} images", path=file.path)
        opener = self._openers.get(form)
        if opener is None:
            raise Unsupported(
                f"is an image in the format {form}, which is not supported",
                path=file.path,
                hint="convert it to raw or qcow2 where it can be trusted",
            )
        self._depth += 1
        try:
            return opener(file, self)
        finally:
            self._depth -= 1

    def add(self, file: EvidenceFile) -> int:
        """Take a file into the set and return its number; a file may be in it only once."""
        key = (file.identity.device, file.identity.inode)
        for other in self._files:
            if key == (other.identity.device, other.identity.inode):
                raise PolicyViolation(
                    f"is used twice in one image, first as {shown(str(other.path))}",
                    path=file.path,
                    hint="correct the references in a copy of the image",
                )
        if len(self._files) >= MAX_FILES:
            raise PolicyViolation(f"consists of more than {MAX_FILES} files", path=file.path)
        self._files.append(file)
        return len(self._files) - 1

    def refer(
        self, owner: EvidenceFile, untrusted_name: bytes, role: str
    ) -> tuple[EvidenceFile, tuple[str, ...]]:
        """Open what `owner` names; the notes say where it was, unless exactly there."""
        found = self._stack.enter_context(
            opened_reference(owner, untrusted_name, role, self._reach)
        )
        if not found.moved:
            return found.file, ()
        note = (
            f'the {role} "{shown(untrusted_name[:300])}" was taken from '
            f"{shown(str(found.file.path))}"
        )
        return found.file, (note,)

    def open_next(
        self, owner: EvidenceFile, untrusted_name: bytes, role: str, form: Format | None
    ) -> tuple[Link, tuple[str, ...]]:
        """Open the image that `owner` stands on; without `form` its content tells the format."""
        file, notes = self.refer(owner, untrusted_name, role)
        if form is None:
            form = detect(file)
            notes += (f"it does not say which format its {role} has; by its content it is {form}",)
        link = self.open(file, form)
        if link.node.driver in READERS:
            raise Unsupported(
                f"is an image in the format {form}, which cannot be the {role} of another",
                path=file.path,
                hint="unpack it, or convert it to raw where it can be trusted",
            )
        return link, notes
