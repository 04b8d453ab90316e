"""The exporter's block graph: every node explicit, every file an open descriptor."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator, Sequence

from images.errors import Locked, Unsupported
from images.evidence import EvidenceFile
from images.graph import Node, Overlay, Piece, Plan
from images.qmp import Qmp, QmpClosed, QmpError
from images.raw import SECTOR

TOP = "image"
_OVERLAY_SET = 1 << 20
"""The number of its set of descriptors; those of the evidence count from 0."""

_WRONG_KEY = "Invalid password"
"""What QEMU says (crypto/block-luks.c) when no key slot opens."""
_WITH_BACKING = frozenset({"qcow2", "qcow", "qed", "vmdk"})
_READ_ONLY = {"read-only": True, "auto-read-only": False}
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def build(plan: Plan, qmp: Qmp, keys: Sequence[bytes] = ()) -> int:
    """Hand over the files and add the node `TOP`; `keys` are tried on what is encrypted.
    Returns the size of the disk in bytes.

    Raises QmpError, and Locked where no key fits. QEMU must agree about the size of the disk, or
    the image means something else to it.
    """
    secrets = [_secret(number, key, qmp) for number, key in enumerate(keys)]
    _Builder(plan, qmp, secrets).add(plan.top, TOP)
    for name in secrets:
        qmp.command("object-del", {"id": name})
    return _checked_size(qmp, plan.size)


def add_overlay(overlay: Overlay, qmp: Qmp) -> str:
    """Add a node that reads like `TOP`, and writes into the overlay; return its name."""
    file = f"/dev/fdset/{_OVERLAY_SET}"
    qmp.command("add-fd", {"fdset-id": _OVERLAY_SET}, descriptor=overlay.descriptor)
    writable = {"read-only": False, "auto-read-only": False}
    options = {"driver": "file", "node-name": "delta", "filename": file}
    qmp.command("blockdev-add", {**options, **writable})
    options = {"driver": "qcow2", "node-name": "overlay", "file": "delta", "backing": TOP}
    qmp.command("blockdev-add", {**options, **writable})
    return "overlay"


def add_served(overlay: Overlay, size: int | None, qmp: Qmp) -> int:
    """Add the node `TOP` for what a reader serves; return the size of the disk in bytes."""
    # By its name: socket_address_parse_named_fd() in QEMU's util/qemu-sockets.c.
    qmp.command("getfd", {"fdname": "below"}, descriptor=overlay.below)
    server = {"type": "fd", "str": "below"}
    options = {"driver": "nbd", "node-name": TOP, "server": server, "export": overlay.name}
    qmp.command("blockdev-add", {**options, **_READ_ONLY})
    return _checked_size(qmp, size)


def _secret(number: int, key: bytes, qmp: Qmp) -> str:
    name = f"key{number}"
    data = base64.b64encode(key).decode()
    qmp.command("object-add", {"qom-type": "secret", "id": name, "data": data, "format": "base64"})
    return name


def parts(plan: Plan) -> int:
    """The files that the exporter opens, counting those that only exist in memory."""

    def below(node: Node | None) -> int:
        if node is None:
            return 0
        joined = 1 + sum(piece.file is None for piece in node.pieces) if node.pieces else 0
        return joined + below(node.source) + below(node.backing) + below(node.data)

    return len(plan.files) + below(plan.top)


class _Builder:
    """Adds nodes from the bottom up, so that QEMU never has to look for one."""

    def __init__(self, plan: Plan, qmp: Qmp, secrets: Sequence[str]) -> None:
        self._path = plan.path
        self._files = plan.files
        self._qmp = qmp
        self._secrets = secrets
        self._sets = _DescriptorSets(qmp)
        self._names = (f"node{number}" for number in itertools.count())

    def add(self, node: Node, name: str) -> str:
        """Add a node and what is below it; return its name."""
        options: dict[str, object] = {"driver": node.driver, "file": self._source(node)}
        if node.driver in _WITH_BACKING:
            options["backing"] = self.add(node.backing, next(self._names)) if node.backing else None
        if node.data:
            options["data-file"] = self.add(node.data, next(self._names))
        if node.size is not None:
            options["size"] = node.size
        add = {"node-name": name, **options, **_READ_ONLY}
        if node.encryption:
            self._unlock(node, add)
        else:
            self._qmp.command("blockdev-add", add)
        return name

    def _unlock(self, node: Node, add: dict[str, object]) -> None:
        for secret in self._secrets:
            encrypt = {"format": node.encryption, "key-secret": secret}
            try:
                self._qmp.command("blockdev-add", {**add, "encrypt": encrypt})
            except QmpError as error:
                if isinstance(error, QmpClosed) or _WRONG_KEY not in str(error):
                    raise
            else:
                return
        tried = len(self._secrets)
        raise Locked(
            "is encrypted (LUKS), and "
            + (f"none of the {tried} keys opens it" if tried > 1 else "")
            + ("the key does not open it" if tried == 1 else "")
            + ("no key was given" if not tried else ""),
            path=self._path,
            hint="give its passphrase with --key diskN:file:PATH or --key diskN:prompt",
        )

    def _source(self, node: Node) -> str:
        if node.source:
            return self.add(node.source, next(self._names))
        if node.pieces:
            return self._protocol(self._joined(node), "file")
        device = node.file is not None and self._files[node.file].is_device
        return self._protocol(self._evidence(node.file), "host_device" if device else "file")

    def _protocol(self, file: str, driver: str) -> str:
        name = next(self._names)
        options = {"driver": driver, "node-name": name, "filename": file, **_READ_ONLY}
        self._qmp.command("blockdev-add", options)
        return name

    def _evidence(self, number: int | None) -> str:
        if number is None:
            raise ValueError("a node without a file")
        return self._sets.add_evidence(self._files[number])

    def _joined(self, node: Node) -> str:
        """QEMU gets a descriptor of ours, made of checked values; never the one from the image."""
        lines = ["# Disk DescriptorFile", "version=1", f"CID={node.content_id:08x}"]
        lines += [f"parentCID={node.parent_id:08x}", 'createType="twoGbMaxExtentSparse"']
        lines += [self._extent(piece) for piece in node.pieces]
        text = "\n".join(lines).encode() + b"\n"
        with _memory(text, len(text)) as descriptor:
            return self._sets.add(descriptor)

    def _extent(self, piece: Piece) -> str:
        sectors = piece.sectors
        if piece.file is None:
            # QEMU would skip a ZERO extent and move all that follows.
            with _memory(piece.content, sectors * SECTOR) as memory:
                return f'RW {sectors} FLAT "{self._sets.add(memory)}" 0'
        if (file := self._files[piece.file]).is_device:
            # As a part, QEMU opens it as a regular file.
            raise Unsupported(
                "is a block device, which cannot be read as a part of a disk",
                path=file.path,
                hint="copy it into a file",
            )
        offset = f" {piece.offset}" if piece.type == "FLAT" else ""
        return f'RW {sectors} {piece.type} "{self._evidence(piece.file)}"{offset}'


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


def _checked_size(qmp: Qmp, expected: int | None) -> int:
    nodes = qmp.command("query-named-block-nodes", {"flat": True})
    for node in nodes if isinstance(nodes, list) else []:
        if isinstance(node, dict) and node.get("node-name") == TOP:
            image = node.get("image")
            size = image.get("virtual-size") if isinstance(image, dict) else None
            if isinstance(size, int) and size == expected:
                return size
            raise QmpError(f"it sees a disk of {size} bytes, the header says {expected}")
    raise QmpError("it does not know the image that was just added")
