"""Raw disks in a gzip or xz file, unpacked piece by piece in the reader's sandbox."""

from __future__ import annotations

from dataclasses import dataclass

from images import xz
from images.chain import Chain, Link
from images.detect import Format
from images.evidence import EvidenceFile
from images.graph import Node
from images.raw import SECTOR

_PADDED = "the content is not a multiple of 512 bytes; the last sector is filled with zeros"
_UNKNOWN = (
    "how large the content is, only unpacking tells; a last part of a sector is filled with zeros"
)


@dataclass(frozen=True, slots=True)
class Gzip:
    """Nothing in the file says reliably how large the content is."""


@dataclass(frozen=True, slots=True)
class Xz:
    """`blocks` can be unpacked independently; `content_size` in bytes."""

    blocks: int
    content_size: int


def open_gzip(file: EvidenceFile, chain: Chain) -> Link:
    """A gzip file is only known when it is unpacked, which is not done here."""
    node = Node("reader:gzip", chain=(chain.add(file),))
    return Link(file.path, Format.GZIP, None, (file,), Gzip(), node, (_UNKNOWN,))


def open_xz(file: EvidenceFile, chain: Chain) -> Link:
    """Read the index. Raises ImageErrors."""
    index = xz.parse(file)
    size = -(-index.size // SECTOR) * SECTOR
    return Link(
        path=file.path,
        format=Format.XZ,
        virtual_size=size,
        files=(file,),
        details=Xz(len(index.blocks), index.size),
        node=Node("reader:xz", chain=(chain.add(file),)),
        notes=(_PADDED,) if size != index.size else (),
    )
