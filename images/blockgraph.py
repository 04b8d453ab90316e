"""The exporter's block graph: every node explicit, every file an open descriptor."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from images.detect import Format
from images.evidence import EvidenceFile
from images.image import Image
from images.qmp import Qmp, QmpError
from images.raw import SECTOR
from images.vmdk import SplitVmdk

TOP = "image"
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def build(image: Image, qmp: Qmp) -> None:
    """Hand over the files and add the node `TOP`. Raises QmpError.

    QEMU must agree about the size of the disk, or the image means something else to it.
    """
    sets = _DescriptorSets(qmp)
    if isinstance(image.details, SplitVmdk):
        file = _split_vmdk(image.details, sets)
    else:
        file = sets.add_evidence(image.files[0])
    _add_nodes(qmp, image.format, file)
    _check_size(qmp, image.virtual_size)


class _DescriptorSets:
    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp
        self._next = 0

    def add_evidence(self, file: EvidenceFile) -> str:
        """As `add`, with an open file description of the exporter's own where possible.

        On a shared one the exporter could change flags under our feet, and its locks would stay.
        """
        try:
            own = _reopened(file.fd)
        except OSError:
            # Opened before this process gave up the right to open it.
            return self.add(file.fd)
        try:
            return self.add(own)
        finally:
            os.close(own)

    def add(self, descriptor: int) -> str:
        """The file name under which the exporter can open the descriptor."""
        number = self._next
        self._next += 1
        self._qmp.command("add-fd", {"fdset-id": number}, descriptor=descriptor)
        return f"/dev/fdset/{number}"


def _split_vmdk(details: SplitVmdk, sets: _DescriptorSets) -> str:
    """QEMU gets a descriptor of ours, made of checked values; never the one from the image."""
    lines = ["# Disk DescriptorFile", "version=1", "CID=00000001", "parentCID=ffffffff"]
    lines.append(f'createType="{details.create_type}"')
    for extent in details.extents:
        if extent.file is None:
            # QEMU would skip a ZERO extent and move all that follows.
            with _memory(b"", extent.sectors * SECTOR) as zeroes:
                lines.append(f'RW {extent.sectors} FLAT "{sets.add(zeroes)}" 0')
            continue
        offset = f" {extent.offset}" if extent.type == "FLAT" else ""
        name = sets.add_evidence(extent.file)
        lines.append(f'RW {extent.sectors} {extent.type} "{name}"{offset}')
    text = "\n".join(lines).encode() + b"\n"
    with _memory(text, len(text)) as descriptor:
        return sets.add(descriptor)


def _reopened(descriptor: int) -> int:
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def _memory(content: bytes, size: int) -> Iterator[int]:
    """A read-only descriptor of a sealed file in memory; what is not written takes no room."""
    writable = os.memfd_create("image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(writable, content)
        os.ftruncate(writable, size)
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, _SEALS)
        readable = _reopened(writable)
    finally:
        os.close(writable)
    try:
        yield readable
    finally:
        os.close(readable)


def _add_nodes(qmp: Qmp, form: Format, file: str) -> None:
    read_only = {"read-only": True, "auto-read-only": False}
    protocol = {"driver": "file", "node-name": "file", "filename": file, **read_only}
    qmp.command("blockdev-add", protocol)
    backing = {} if form is Format.RAW else {"backing": None}
    top = {"driver": str(form), "node-name": TOP, "file": "file", **read_only, **backing}
    qmp.command("blockdev-add", top)


def _check_size(qmp: Qmp, expected: int) -> None:
    nodes = qmp.command("query-named-block-nodes", {"flat": True})
    for node in nodes if isinstance(nodes, list) else []:
        if isinstance(node, dict) and node.get("node-name") == TOP:
            image = node.get("image")
            size = image.get("virtual-size") if isinstance(image, dict) else None
            if size == expected:
                return
            raise QmpError(f"it sees a disk of {size} bytes, the header says {expected}")
    raise QmpError("it does not know the image that was just added")
