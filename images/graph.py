"""What an exporter is told to open: nodes that know files by their number.

Nothing in here came from an image unchecked: names stay behind, numbers were bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from images.evidence import EvidenceFile

NO_PARENT = 0xFFFFFFFF
"""The content ID of no parent, in a VMDK."""

Encryption = Literal["", "luks"]

READERS = frozenset({"reader:ewf", "reader:gzip", "reader:xz", "reader:vhd", "reader:vhdx"})
"""Drivers of nodes that images/reader reads, which QEMU cannot."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a disk, in sectors; it reads as zeroes where it has neither file nor content."""

    type: Literal["FLAT", "SPARSE", "ZERO"]
    sectors: int
    offset: int = 0
    file: int | None = None
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of QEMU's block graph, or of the reader's for formats that QEMU does not know.

    It reads one file, several `pieces` put together, or another node; a reader's node has all of
    its files in `chain` (segments in their order, or a child before its parent). `size` in bytes is
    given where the driver could see another one. The content IDs belong to a VMDK made of pieces.
    """

    driver: str
    file: int | None = None
    pieces: tuple[Piece, ...] = ()
    chain: tuple[int, ...] = ()
    source: Node | None = None
    backing: Node | None = None
    data: Node | None = None
    size: int | None = None
    encryption: Encryption = ""
    content_id: int = 1
    parent_id: int = NO_PARENT


@dataclass(frozen=True, slots=True)
class Overlay:
    """A qcow2 of ours that takes the writes to an export: an open descriptor for reading and
    writing, and how many bytes the file may grow to.

    `below` is a connected socket to the export `name` of a reader, where QEMU itself cannot read
    what is underneath.
    """

    descriptor: int
    limit: int
    below: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """An export to be made: `size` in bytes is that of the disk, `files` are open.

    The size is None where it is only known when all was unpacked.
    """

    path: Path
    size: int | None
    files: tuple[EvidenceFile, ...]
    top: Node
