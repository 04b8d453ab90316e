"""What QEMU is told about an image: a graph in which every node has its driver and every file is
an open descriptor. As images/blockgraph.py does on the host, in the words of a json: name.

QEMU opens "/proc/self/fd/N", which leads to the very file that was checked; no name from evidence
reaches it, and it probes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from images.evidence import EvidenceFile
from images.graph import Node, Piece
from images.raw import SECTOR

KEY = "key"
"""The id of the secret for what is encrypted."""

_WITH_BACKING = frozenset({"qcow2", "qcow", "qed", "vmdk"})
_CACHES = {"l2-cache-size": 1 << 20, "refcount-cache-size": 256 << 10}
"""Bytes for each image of a chain. QEMU takes up to 32 MiB, of which the guest has not many."""
_READ_ONLY = {"read-only": True, "auto-read-only": False}


class BlockOptions:
    """Options for one image. `descriptors` are to be inherited by QEMU, and close with `stack`."""

    def __init__(self, files: Sequence[EvidenceFile], stack: ExitStack) -> None:
        self._files = files
        self._stack = stack
        self.descriptors: list[int] = []

    def name(self, top: Node) -> str:
        """The graph below `top` as a file name for qemu-nbd."""
        return "json:" + json.dumps(self._node(top), separators=(",", ":"))

    def _node(self, node: Node) -> dict[str, Any]:
        options: dict[str, Any] = {"driver": node.driver, **_READ_ONLY, "file": self._source(node)}
        if node.driver == "qcow2":
            options |= _CACHES
        if node.driver in _WITH_BACKING:
            options["backing"] = self._node(node.backing) if node.backing else None
        if node.data:
            options["data-file"] = self._node(node.data)
        if node.size is not None:
            options["size"] = node.size
        if node.encryption:
            options["encrypt"] = {"format": node.encryption, "key-secret": KEY}
        return options

    def _source(self, node: Node) -> dict[str, Any]:
        if node.source:
            return self._node(node.source)
        if node.pieces:
            return _file(self._memory(self._joined(node)))
        if node.file is None:
            raise ValueError("a node without a file")
        return _file(self._evidence(node.file))

    def _joined(self, node: Node) -> Callable[[int], None]:
        lines = ["# Disk DescriptorFile", "version=1", f"CID={node.content_id:08x}"]
        lines += [f"parentCID={node.parent_id:08x}", 'createType="twoGbMaxExtentSparse"']
        lines += [self._extent(piece) for piece in node.pieces]
        text = "\n".join(lines).encode() + b"\n"
        return lambda memory: _write(memory, text, len(text))

    def _extent(self, piece: Piece) -> str:
        if piece.file is None:
            length, content = piece.sectors * SECTOR, piece.content
            name = self._memory(lambda memory: _write(memory, content, length))
            return f'RW {piece.sectors} FLAT "{name}" 0'
        offset = f" {piece.offset}" if piece.type == "FLAT" else ""
        return f'RW {piece.sectors} {piece.type} "{self._evidence(piece.file)}"{offset}'

    def _evidence(self, number: int) -> str:
        descriptor = self._files[number].fd
        self.descriptors.append(descriptor)
        return f"/proc/self/fd/{descriptor}"

    def _memory(self, fill: Callable[[int], None]) -> str:
        memory = os.memfd_create("image", os.MFD_CLOEXEC)
        self._stack.callback(os.close, memory)
        fill(memory)
        self.descriptors.append(memory)
        return f"/proc/self/fd/{memory}"


def _write(memory: int, content: bytes, size: int) -> None:
    """What is not written takes no room."""
    os.write(memory, content)
    os.ftruncate(memory, size)


def _file(name: str) -> dict[str, Any]:
    # Nobody else can open it here, and a lock could stay on a descriptor that is shared.
    return {"driver": "file", "filename": name, "locking": "off", **_READ_ONLY}
