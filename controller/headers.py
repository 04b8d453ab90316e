"""Detached LUKS headers that the user names: opened like evidence, for the layer at an address."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from controller.errors import EvidenceRefused, UsageError
from images.evidence import EvidenceFile, opened
from images.graph import Node, Plan
from images.quoting import shown

MAX_BYTES = 64 << 20
"""A header that cryptsetup makes by default has 16 MiB."""


@dataclass(frozen=True, slots=True)
class DetachedHeader:
    """The file with the header of the layer at `address`."""

    address: str
    path: Path


@dataclass(frozen=True, slots=True)
class OpenHeader:
    """The same, open as long as the stack that it was opened on."""

    address: str
    file: EvidenceFile

    @property
    def plan(self) -> Plan:
        """How to export it: byte for byte, whatever its first bytes look like."""
        return Plan(self.file.path, self.file.size, (self.file,), Node("raw", file=0))


def read_words(words: Sequence[str], images: int) -> tuple[DetachedHeader, ...]:
    """What `--header ADDRESS:FILE`, or FILE alone with one image, says. Raises UsageError."""
    headers = tuple(_read(word, images) for word in words)
    for header in headers:
        if sum(other.address == header.address for other in headers) > 1:
            raise UsageError(f"--header: {shown(header.address)} is given two headers")
    return headers


def _read(word: str, images: int) -> DetachedHeader:
    if images == 1 and os.path.lexists(word):
        return DetachedHeader("disk0", Path(word))
    # Both can have colons: an address where it leads into an image in a file system.
    ends = [index for index, character in enumerate(word) if character == ":"]
    divided = [(word[:end], word[end + 1 :]) for end in ends if 0 < end < len(word) - 1]
    for address, path in divided:
        if os.path.lexists(path):
            return DetachedHeader(address, Path(path))
    if divided:
        raise UsageError(f"--header: {shown(divided[0][1])} does not exist")
    if images == 1:
        raise UsageError(f"--header: {shown(word)} does not exist")
    raise UsageError(
        "--header takes ADDRESS:FILE",
        hint="ADDRESS is a layer as `forensic inspect` names it; FILE alone is for one image",
    )


def open_header(header: DetachedHeader, stack: ExitStack) -> OpenHeader:
    """Open the file like evidence. Raises ImageError, and EvidenceRefused for what is no header."""
    file = stack.enter_context(opened(header.path))
    if file.is_device:
        raise EvidenceRefused(f"--header: {shown(str(header.path))} is not a regular file")
    if file.size > MAX_BYTES:
        raise EvidenceRefused(
            f"--header: {shown(str(header.path))} has {file.size} bytes, more than 64 MiB",
            hint="name the file with the header alone",
        )
    return OpenHeader(header.address, file)
