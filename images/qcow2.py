"""qcow2 images: overlays on backing files, external data files, internal snapshots."""

from __future__ import annotations

from images.chain import Chain, Link
from images.detect import Format
from images.errors import MalformedImage, Unsupported
from images.evidence import EvidenceFile
from images.graph import Node, Piece
from images.qcow2_header import Qcow2Header, parse
from images.qcow2_snapshots import Snapshot, chosen, read_snapshots, seen_by
from images.quoting import shown
from images.raw import SECTOR

_BACKING_FORMATS: dict[bytes, Format] = {
    b"raw": Format.RAW,
    b"file": Format.RAW,
    b"host_device": Format.RAW,
    b"qcow2": Format.QCOW2,
    b"qcow": Format.QCOW1,
    b"qed": Format.QED,
    b"vdi": Format.VDI,
    b"vhdx": Format.VHDX,
    b"vmdk": Format.VMDK,
    b"vpc": Format.VHD,
}
"""Names of QEMU's drivers in the backing format extension."""


def open_link(file: EvidenceFile, chain: Chain) -> Link:
    """Read the header and open what the image stands on. Raises ImageErrors."""
    header = parse(file)
    snapshots = read_snapshots(file, header)
    number = chain.add(file)
    notes = _notes(header)
    data = backing = None
    if header.has_data_file:
        data, found = _data_file(file, header, chain)
        notes += found
    if header.untrusted_backing is not None:
        form = _backing_format(file, header)
        backing, found = chain.open_next(file, header.untrusted_backing, "backing file", form)
        notes += found
    node = Node(
        "qcow2",
        file=number,
        backing=backing.node if backing else None,
        data=data.node if data else None,
        encryption="luks" if header.encryption == "luks" else "",
    )
    size = header.virtual_size
    if chain.is_top and chain.snapshot is not None:
        snapshot = chosen(file, snapshots, chain.snapshot)
        node, size = _at_snapshot(file, number, header, snapshot, node), snapshot.disk_size
        notes += (f'shown as of its internal snapshot "{shown(snapshot.name)}"',)
    elif snapshots:
        notes += (_about(snapshots),)
    return Link(
        path=file.path,
        format=Format.QCOW2,
        virtual_size=size,
        files=(file,),
        details=header,
        node=node,
        notes=notes,
        backing=backing,
        data=data,
        snapshots=snapshots,
    )


def _data_file(
    file: EvidenceFile, header: Qcow2Header, chain: Chain
) -> tuple[Link, tuple[str, ...]]:
    if not header.untrusted_data_file:
        raise MalformedImage(
            "keeps its data in another file, but does not name it",
            path=file.path,
            hint="get the image again together with its data file",
        )
    # Raw by the format's definition: what lies in it is clusters, never an image.
    return chain.open_next(file, header.untrusted_data_file, "data file", Format.RAW)


def _backing_format(file: EvidenceFile, header: Qcow2Header) -> Format | None:
    name = header.untrusted_backing_format
    if not name:
        return None
    form = _BACKING_FORMATS.get(name)
    if form is None:
        raise Unsupported(
            f'says that its backing file has the format "{shown(name[:64])}", which is not known',
            path=file.path,
        )
    return form


def _at_snapshot(
    file: EvidenceFile, number: int, header: Qcow2Header, snapshot: Snapshot, node: Node
) -> Node:
    """The image with the first cluster as it would be if the snapshot were the current state."""
    cluster = header.cluster_size
    rest = -(-file.size // SECTOR) - cluster // SECTOR
    pieces = (
        Piece("FLAT", cluster // SECTOR, content=seen_by(file, header, snapshot)),
        Piece("FLAT", rest, cluster // SECTOR, number),
    )
    return Node(
        "qcow2",
        source=Node("vmdk", pieces=pieces),
        backing=node.backing,
        data=node.data,
        encryption=node.encryption,
    )


def _notes(header: Qcow2Header) -> tuple[str, ...]:
    notes = []
    if header.corrupt:
        notes.append("the image is marked corrupt")
    if header.dirty:
        notes.append("the image was not closed cleanly (marked dirty)")
    return tuple(notes)


def _about(snapshots: tuple[Snapshot, ...]) -> str:
    names = ", ".join(f'"{shown(each.name)}"' for each in snapshots[:5])
    more = ", …" if len(snapshots) > 5 else ""
    count = len(snapshots)
    are = "is 1 internal snapshot" if count == 1 else f"are {count} internal snapshots"
    return f"the current state is shown; there {are} besides ({names}{more}), see --snapshot"
