"""HFS+ by hand, from Apple's Technical Note TN1150: Debian has no tool that makes one.

The least that the kernel mounts for writing: an empty root folder. The kernel fills it.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests.builders.sparse import make_sparse

BLOCK = 4096
NODE = 4096
ROOT_PARENT, ROOT = 1, 2
EPOCH = 3_786_825_600
"""2024-01-01 in seconds since 1904."""

UNMOUNTED, JOURNALED = 1 << 8, 1 << 13
HEADER_NODE, LEAF_NODE = 1, 0xFF
FOLDER, FOLDER_THREAD = 1, 3
TREE_BLOCKS = 16
BIG_KEYS, VARIABLE_KEYS = 2, 4


def make_hfsplus(path: Path, size: int, attributes: int = UNMOUNTED) -> Path:
    """An HFS+ volume of `size` bytes named "test" without files."""
    blocks = size // BLOCK
    bitmap = -(-blocks // (8 * BLOCK))
    extents, catalog = 1 + bitmap, 1 + bitmap + TREE_BLOCKS
    used = catalog + TREE_BLOCKS
    make_sparse(path, size)
    with path.open("r+b") as file:
        header = volume_header(blocks, used, bitmap, (extents, catalog), attributes)
        for place in (1024, size - 1024):
            file.seek(place)
            file.write(header)
        file.seek(BLOCK)
        # The first blocks are in use, and the last one, where the header's copy is.
        file.write(bits([*range(used), blocks - 1], bitmap * BLOCK))
        file.seek(extents * BLOCK)
        file.write(tree_header(10, BIG_KEYS, depth=0, records=0, nodes_used=1))
        file.seek(catalog * BLOCK)
        file.write(tree_header(516, BIG_KEYS | VARIABLE_KEYS, depth=1, records=2, nodes_used=2))
        file.write(leaf([root_folder(), root_thread()]))
    return path


def volume_header(
    blocks: int, used: int, bitmap: int, trees: tuple[int, int], attributes: int
) -> bytes:
    extents, catalog = trees
    fields = struct.pack(">2sHI4sI", b"H+", 4, attributes, b"10.0", 0)
    fields += struct.pack(">4I", EPOCH, EPOCH, 0, EPOCH)
    fields += struct.pack(">II", 0, 0)  # files, folders
    fields += struct.pack(">III", BLOCK, blocks, blocks - used - 1)
    fields += struct.pack(">III", used, 65536, 65536)
    fields += struct.pack(">IIQ", 16, 0, 1) + bytes(32)  # next CNID, writes, encodings, Finder
    fields += fork(1, bitmap) + fork(extents, TREE_BLOCKS) + fork(catalog, TREE_BLOCKS)
    return (fields + fork(0, 0) + fork(0, 0)).ljust(512, b"\0")


def fork(start: int, blocks: int) -> bytes:
    head = struct.pack(">QII", blocks * BLOCK, blocks * BLOCK, blocks)
    return head + struct.pack(">II", start, blocks) + bytes(56)


def bits(positions: list[int], length: int) -> bytes:
    found = bytearray(length)
    for position in positions:
        found[position // 8] |= 0x80 >> position % 8
    return bytes(found)


def descriptor(kind: int, height: int, records: int) -> bytes:
    return struct.pack(">IIBBHH", 0, 0, kind, height, records, 0)


def tree_header(key: int, attributes: int, depth: int, records: int, nodes_used: int) -> bytes:
    """Node 0: the tree's header, a reserved record, and the map of nodes."""
    root = 1 if depth else 0
    nodes = TREE_BLOCKS * BLOCK // NODE
    header = struct.pack(">HIIII", depth, root, records, root, root)
    header += struct.pack(
        ">HHIIHIBBI", NODE, key, nodes, nodes - nodes_used, 0, BLOCK, 0, 0, attributes
    )
    header = header.ljust(106, b"\0")
    offsets = (14, 14 + 106, 14 + 106 + 128, NODE - 8)
    body = descriptor(HEADER_NODE, 0, 3) + header + bytes(128)
    body += bits(list(range(nodes_used)), NODE - 8 - len(body))
    return body + struct.pack(">4H", *reversed(offsets))


def leaf(records: list[bytes]) -> bytes:
    body, offsets = descriptor(LEAF_NODE, 1, len(records)), []
    for record in records:
        offsets.append(len(body))
        body += record
    offsets.append(len(body))
    table = struct.pack(f">{len(offsets)}H", *reversed(offsets))
    return body.ljust(NODE - len(table), b"\0") + table


def key(parent: int, name: str) -> bytes:
    words = name.encode("utf-16-be")
    return struct.pack(">HIH", 6 + len(words), parent, len(words) // 2) + words


def root_folder() -> bytes:
    data = struct.pack(">HHII", FOLDER, 0, 0, ROOT) + struct.pack(">5I", *[EPOCH] * 4, 0)
    data += struct.pack(">IIBBHI", 0, 0, 0, 0, 0o040755, 1)  # owner, mode, links
    return key(ROOT_PARENT, "test") + data + bytes(88 - len(data))


def root_thread() -> bytes:
    words = "test".encode("utf-16-be")
    return key(ROOT, "") + struct.pack(">HHIH", FOLDER_THREAD, 0, ROOT_PARENT, 4) + words
