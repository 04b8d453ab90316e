"""VMDK images: one file with an embedded descriptor, or a text descriptor with extents."""

from __future__ import annotations

from dataclasses import dataclass, replace

from images import vmdk_descriptor, vmdk_sparse
from images.chain import Chain, Link
from images.detect import HEAD, Format, is_text_descriptor
from images.errors import MalformedImage, Unsupported
from images.evidence import EvidenceFile, Source, read_exactly, truncated
from images.graph import Node, Piece
from images.quoting import shown
from images.raw import SECTOR
from images.vmdk_descriptor import Descriptor, ExtentLine, ExtentType
from images.vmdk_sparse import SparseHeader


@dataclass(frozen=True, slots=True)
class Vmdk:
    """What `forensic info` shows of one; `grain` in bytes, where a part is sparse."""

    create_type: str
    extents: int
    content_id: int | None
    parent_id: int | None
    grain: int | None


def parse_single(source: Source) -> tuple[SparseHeader, Descriptor]:
    """A file that starts with a sparse header. Raises ImageErrors."""
    header = vmdk_sparse.parse(source)
    untrusted_text = _embedded_text(source, header)
    descriptor = vmdk_descriptor.parse(source, untrusted_text)
    # QEMU looks for a parent in this range, wherever the header says that the descriptor lies.
    untrusted_range = source.read(*vmdk_descriptor.QEMU_RANGE)
    if untrusted_range.split(b"\0", 1)[0] != untrusted_text.split(b"\0", 1)[0]:
        vmdk_descriptor.refuse_hidden_parent(source, untrusted_range)
    if descriptor.create_type not in vmdk_descriptor.EMBEDDED_TYPES:
        raise MalformedImage(
            f'has its descriptor inside, but calls itself "{descriptor.create_type}"',
            path=source.path,
        )
    if descriptor.sectors != header.capacity or len(descriptor.extents) != 1:
        raise MalformedImage(
            f"its descriptor speaks of {descriptor.sectors} sectors in "
            f"{len(descriptor.extents)} extents, its header of {header.capacity} in one",
            path=source.path,
        )
    return header, descriptor


def _embedded_text(source: Source, header: SparseHeader) -> bytes:
    length = header.descriptor_sectors * SECTOR
    if length > vmdk_descriptor.MAX_BYTES:
        raise MalformedImage("its descriptor is larger than 1 MiB", path=source.path)
    offset = header.descriptor_offset * SECTOR
    untrusted_text = read_exactly(source, offset, length, "the embedded descriptor")
    # The parts that qemu-img writes have room for a descriptor, but none in it.
    if not offset or not untrusted_text.strip(b"\0"):
        raise Unsupported(
            "is one part of a split VMDK",
            path=source.path,
            hint="name the descriptor, the small text file beside it",
        )
    return untrusted_text


def parse_text(source: Source) -> Descriptor:
    """A text descriptor; its extents are not opened here. Raises ImageErrors."""
    if source.size > vmdk_descriptor.MAX_BYTES:
        raise MalformedImage("its descriptor is larger than 1 MiB", path=source.path)
    descriptor = vmdk_descriptor.parse(source, source.read(0, source.size))
    wanted = vmdk_descriptor.SEPARATE_TYPES.get(descriptor.create_type)
    if wanted is None:
        raise MalformedImage(
            f'calls itself "{descriptor.create_type}", but is only a descriptor', path=source.path
        )
    if any(extent.type not in (wanted, ExtentType.ZERO) for extent in descriptor.extents):
        raise MalformedImage(
            f'calls itself "{descriptor.create_type}", but has extents of another type',
            path=source.path,
        )
    return descriptor


def open_link(file: EvidenceFile, chain: Chain) -> Link:
    """Read the descriptor, open the extents and what the image stands on. Raises ImageErrors."""
    if is_text_descriptor(file.read(0, HEAD)):
        descriptor = parse_text(file)
        chain.add(file)
        parts = _Parts(file, chain)
        pieces = tuple(parts.open(line) for line in descriptor.extents)
        return _link(file, descriptor, Node("vmdk", pieces=pieces), parts, chain)
    _refuse_esx(file)
    header, descriptor = parse_single(file)
    number = chain.add(file)
    parts = _Parts(file, chain)
    parts.grain = header.grain * SECTOR
    node = Node("vmdk", file=number)
    if descriptor.untrusted_parent is not None:
        if header.compressed or header.directory_at_end:
            raise Unsupported("is a stream-optimised snapshot", path=file.path)
        # As a part of a disk, so that QEMU does not read the descriptor inside.
        node = Node("vmdk", pieces=(Piece("SPARSE", header.capacity, 0, number),))
    return _link(file, descriptor, node, parts, chain)


def _refuse_esx(file: EvidenceFile) -> None:
    if file.read(0, 4) in (b"COWD", b"\xbe\xba\xfe\xca"):
        raise Unsupported(
            "is a VMDK of ESX (COWD or seSparse), which is not supported",
            path=file.path,
            hint="convert it to a raw image with VMware's own tools",
        )


def _link(
    file: EvidenceFile, descriptor: Descriptor, node: Node, parts: _Parts, chain: Chain
) -> Link:
    size = descriptor.sectors * SECTOR
    parent, notes = _parent(file, descriptor, size, chain)
    return Link(
        path=file.path,
        format=Format.VMDK,
        virtual_size=size,
        files=(file, *parts.files),
        details=Vmdk(
            create_type=descriptor.create_type,
            extents=len(descriptor.extents),
            content_id=descriptor.content_id,
            parent_id=descriptor.parent_id if parent else None,
            grain=parts.grain,
        ),
        node=replace(
            node,
            backing=parent.node if parent else None,
            content_id=0 if descriptor.content_id is None else descriptor.content_id,
            parent_id=descriptor.parent_id,
        ),
        notes=(*parts.notes, *notes),
        backing=parent,
    )


def _parent(
    file: EvidenceFile, descriptor: Descriptor, size: int, chain: Chain
) -> tuple[Link | None, tuple[str, ...]]:
    """The image that this one is a snapshot of; its content ID must be the one that we know."""
    if descriptor.untrusted_parent is None:
        return None, ()
    parent, notes = chain.open_next(file, descriptor.untrusted_parent, "parent image", Format.VMDK)
    if parent.details.content_id != descriptor.parent_id:
        actual = parent.details.content_id
        raise MalformedImage(
            f"was made on a parent with the content ID {descriptor.parent_id:08x}, but "
            f"{shown(str(parent.path))} has "
            + ("none" if actual is None else f"the content ID {actual:08x}"),
            path=file.path,
            hint="find the parent as it was when the snapshot was taken; this one is another "
            "image or was changed since",
        )
    if parent.virtual_size != size:
        raise MalformedImage(
            f"is a disk of {size} bytes, but its parent {shown(str(parent.path))} one of "
            f"{parent.virtual_size}",
            path=file.path,
        )
    return parent, notes


class _Parts:
    """Opens the extents of one descriptor."""

    def __init__(self, owner: EvidenceFile, chain: Chain) -> None:
        self._owner = owner
        self._chain = chain
        self.files: list[EvidenceFile] = []
        self.notes: tuple[str, ...] = ()
        self.grain: int | None = None

    def open(self, line: ExtentLine) -> Piece:
        """Open and check one extent. Raises ImageErrors."""
        if line.type is ExtentType.ZERO:
            return Piece("ZERO", line.sectors)
        file, notes = self._chain.refer(self._owner, line.untrusted_name, "extent")
        self.notes += notes
        self.files.append(file)
        number = self._chain.add(file)
        if line.type is ExtentType.SPARSE:
            self.grain = _checked_sparse(file, line).grain * SECTOR
            return Piece("SPARSE", line.sectors, 0, number)
        needed = (line.offset + line.sectors) * SECTOR
        if file.size < needed:
            raise truncated(file, needed, "the flat extent")
        return Piece("FLAT", line.sectors, line.offset, number)


def _checked_sparse(file: EvidenceFile, line: ExtentLine) -> SparseHeader:
    if file.read(0, 4) != vmdk_sparse.MAGIC:
        raise MalformedImage("is named as a sparse VMDK extent, but is none", path=file.path)
    header = vmdk_sparse.parse(file)
    if header.capacity != line.sectors:
        raise MalformedImage(
            f"holds {header.capacity} sectors, but the descriptor gives it {line.sectors}",
            path=file.path,
        )
    if header.compressed or header.directory_at_end:
        # QEMU looks for such an extent's footer in the descriptor's file.
        raise Unsupported("is a stream-optimised part of a split VMDK", path=file.path)
    return header
