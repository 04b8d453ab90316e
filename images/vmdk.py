"""VMDK images: one file with an embedded descriptor, or a text descriptor with extents."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from images import vmdk_descriptor, vmdk_sparse
from images.errors import MalformedImage, PolicyViolation, Unsupported
from images.evidence import EvidenceFile, Source, opened_beside, read_exactly, truncated
from images.quoting import shown
from images.raw import SECTOR
from images.vmdk_descriptor import Descriptor, ExtentLine, ExtentType
from images.vmdk_sparse import SparseHeader


@dataclass(frozen=True, slots=True)
class SingleFileVmdk:
    """monolithicSparse or streamOptimized."""

    header: SparseHeader
    create_type: str

    @property
    def virtual_size(self) -> int:
        """In bytes."""
        return self.header.capacity * SECTOR


@dataclass(frozen=True, slots=True)
class Extent:
    """A checked part of the disk, in sectors; `file` is None where it reads as zeroes."""

    type: ExtentType
    sectors: int
    offset: int
    file: EvidenceFile | None


@dataclass(frozen=True, slots=True)
class SplitVmdk:
    """A text descriptor and its extents, each opened and checked."""

    create_type: str
    extents: tuple[Extent, ...]

    @property
    def virtual_size(self) -> int:
        """In bytes."""
        return sum(extent.sectors for extent in self.extents) * SECTOR

    @property
    def files(self) -> tuple[EvidenceFile, ...]:
        """The files of the extents in the order of the disk."""
        return tuple(extent.file for extent in self.extents if extent.file is not None)


def parse_single(source: Source) -> SingleFileVmdk:
    """A file that starts with a sparse header. Raises ImageErrors."""
    header = vmdk_sparse.parse(source)
    vmdk_descriptor.refuse_parent(source, source.read(*vmdk_descriptor.QEMU_RANGE))
    descriptor = vmdk_descriptor.parse(source, _embedded_text(source, header))
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
    return SingleFileVmdk(header, descriptor.create_type)


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


def open_single(file: EvidenceFile) -> SingleFileVmdk:
    """`file` is not a text descriptor; COWD and seSparse are named and refused."""
    magic = file.read(0, 4)
    if magic in (b"COWD", b"\xbe\xba\xfe\xca"):
        raise Unsupported(
            "is a VMDK of ESX (COWD or seSparse), which is not supported",
            path=file.path,
            hint="convert it to a raw image with VMware's own tools",
        )
    return parse_single(file)


def open_split(file: EvidenceFile, stack: ExitStack) -> SplitVmdk:
    """`file` is a text descriptor; its extents stay open as long as `stack`."""
    descriptor = parse_text(file)
    seen = {(file.identity.device, file.identity.inode)}
    extents = []
    for line in descriptor.extents:
        extent = _open_extent(file, line, stack)
        if extent.file is not None:
            _refuse_second_use(file, line, extent.file, seen)
        extents.append(extent)
    return SplitVmdk(descriptor.create_type, tuple(extents))


def _open_extent(owner: EvidenceFile, line: ExtentLine, stack: ExitStack) -> Extent:
    if line.type is ExtentType.ZERO:
        return Extent(line.type, line.sectors, 0, None)
    file = stack.enter_context(opened_beside(owner, line.untrusted_name))
    if line.type is ExtentType.FLAT:
        needed = (line.offset + line.sectors) * SECTOR
        if file.size < needed:
            raise truncated(file, needed, "the flat extent")
    else:
        _check_sparse(file, line)
    return Extent(line.type, line.sectors, line.offset, file)


def _check_sparse(file: EvidenceFile, line: ExtentLine) -> None:
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


def _refuse_second_use(
    owner: EvidenceFile, line: ExtentLine, file: EvidenceFile, seen: set[tuple[int, int]]
) -> None:
    key = (file.identity.device, file.identity.inode)
    if key in seen:
        raise PolicyViolation(
            f'uses the same file twice: "{shown(line.untrusted_name)}"', path=owner.path
        )
    seen.add(key)
