"""What every format offers, and how the reader gets at its files: by descriptor, never by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from images.errors import ImageError
from images.evidence import EvidenceFile, Identity
from images.reader.ewf import EwfContent
from images.reader.gzip import GzipContent
from images.reader.xz import XzContent

KINDS = ("ewf", "gzip", "xz")


class Content(Protocol):
    """A disk's bytes. `size` is how many there are; `read` returns exactly what was asked for.

    `read` raises ImageError for a range that is damaged, and never returns something in its place.
    It may be called by several threads at once.
    """

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


def opened(kind: str, descriptors: Sequence[int], limit: int) -> Content:
    """The content of the inherited descriptors, which are the image's files in their order.

    `limit` in bytes is the largest disk that is accepted. Raises ImageError.
    """
    files = [_file(number, fd) for number, fd in enumerate(descriptors, start=1)]
    if kind == "ewf":
        return EwfContent(files, limit)
    (file,) = files
    if kind == "gzip":
        return GzipContent(file, limit)
    if kind == "xz":
        return XzContent(file, limit)
    raise ValueError(f"not a kind of content: {kind!r}")


def _file(number: int, fd: int) -> EvidenceFile:
    # Its name on the host is nobody's business here.
    label = Path(f"segment {number}")
    return EvidenceFile(label, label, fd, Identity.of(os.fstat(fd)))


def told(error: ImageError, descriptors: Sequence[int]) -> str:
    """The message, with the number of the segment where there are several."""
    return str(error) if len(descriptors) > 1 else error.message
