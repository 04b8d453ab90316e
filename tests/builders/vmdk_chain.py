"""VMDK disks and their snapshots as VMware Workstation and ESX write them.

qemu-img makes no snapshots in several extents and no zeroed grains in them, so they are written
here ("Virtual Disk Format 5.0", VMware), together with the content that they must show.
"""

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
GRAIN = 64 * 1024
NO_PARENT = 0xFFFFFFFF

Layer = Mapping[int, bytes | None]
"""What one image holds: grains of the whole disk by number; None is a zeroed grain."""

_ENTRIES = 512
_NEWLINES, _REDUNDANT, _ZEROED = 1, 2, 4
_DESCRIPTOR_SECTORS = 20


@dataclass(frozen=True)
class Ids:
    """Content ID of the image and of its parent, and how the image names the parent."""

    own: int
    parent: int = NO_PARENT
    hint: str = ""


def random_layer(seed: int, size: int, share: float = 0.3, zeroed: float = 0.0) -> Layer:
    """A share of a disk's grains with random content, and another share as zeroed ones."""
    chance = random.Random(seed)
    layer: dict[int, bytes | None] = {}
    for number in range(size // GRAIN):
        draw = chance.random()
        if draw < share:
            layer[number] = chance.randbytes(GRAIN)
        elif draw < share + zeroed:
            layer[number] = None
    return layer


def applied(below: bytes, layer: Layer) -> bytes:
    """The disk as it is with `layer` over `below`."""
    content = bytearray(below)
    for number, data in layer.items():
        content[number * GRAIN : (number + 1) * GRAIN] = data or bytes(GRAIN)
    return bytes(content[: len(below)])


def write_monolithic(path: Path, size: int, layer: Layer, ids: Ids, before: str = "") -> Path:
    """monolithicSparse: one file with the descriptor inside; `before` are further lines of it."""
    extents = [f'RW {size // SECTOR} SPARSE "{path.name}"']
    text = descriptor("monolithicSparse", extents, ids, before)
    path.write_bytes(sparse_extent(size, layer, text))
    return path


def write_split(path: Path, size: int, part: int, layer: Layer, ids: Ids) -> Path:
    """twoGbMaxExtentSparse: a text descriptor, and an extent `-s001`, … for each `part` bytes."""
    extents = []
    for index, start in enumerate(range(0, size, part), 1):
        length = min(part, size - start)
        first, last = start // GRAIN, (start + length) // GRAIN
        own = {number - first: data for number, data in layer.items() if first <= number < last}
        name = f"{path.stem}-s{index:03}.vmdk"
        (path.parent / name).write_bytes(sparse_extent(length, own))
        extents.append(f'RW {length // SECTOR} SPARSE "{name}"')
    path.write_bytes(descriptor("twoGbMaxExtentSparse", extents, ids))
    return path


def write_flat(
    path: Path, content: bytes, ids: Ids, create_type: str = "monolithicFlat", part: int = 0
) -> Path:
    """A text descriptor and flat extents of `part` bytes, or one; ESX writes the type vmfs."""
    part = part or len(content)
    kind, offset = ("VMFS", "") if create_type == "vmfs" else ("FLAT", " 0")
    extents = []
    for index, start in enumerate(range(0, len(content), part), 1):
        piece = content[start : start + part]
        name = f"{path.stem}-f{index:03}.vmdk" if part < len(content) else f"{path.stem}-flat.vmdk"
        (path.parent / name).write_bytes(piece)
        extents.append(f'RW {len(piece) // SECTOR} {kind} "{name}"{offset}')
    path.write_bytes(descriptor(create_type, extents, ids))
    return path


def descriptor(create_type: str, extents: list[str], ids: Ids, before: str = "") -> bytes:
    """The text with all that VMware puts into it."""
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        'encoding="windows-1252"',
        f"CID={ids.own:08x}",
        f"parentCID={ids.parent:08x}",
        'isNativeSnapshot="no"',
        f'createType="{create_type}"',
        *([f'parentFileNameHint="{ids.hint}"'] if ids.hint else []),
        *([before] if before else []),
        "# Extent description",
        *extents,
        "",
        "# The Disk Data Base ",
        "#DDB",
        "",
        'ddb.adapterType = "lsilogic"',
        'ddb.geometry.sectors = "63"',
        'ddb.longContentID = "0123456789abcdef0123456789abcdef"',
    ]
    return ("\n".join(lines) + "\n").encode("latin-1")


def sparse_extent(size: int, layer: Layer, text: bytes = b"") -> bytes:
    """A hosted sparse extent of `size` bytes, with the redundant tables that VMware writes."""
    tables = -(-size // (GRAIN * _ENTRIES))
    directory_sectors = -(-tables * 4 // SECTOR)
    one_set = directory_sectors + tables * _ENTRIES * 4 // SECTOR
    text_sectors = _DESCRIPTOR_SECTORS if text else 0
    redundant = 1 + text_sectors
    overhead = -(-(redundant + 2 * one_set) * SECTOR // GRAIN) * GRAIN // SECTOR
    flags = _NEWLINES | _REDUNDANT | (_ZEROED if None in layer.values() else 0)
    header = struct.pack(
        "<4sIIQQQQIQQQB4sH",
        *(b"KDMV", 2 if flags & _ZEROED else 1, flags, size // SECTOR, GRAIN // SECTOR),
        *(1 if text else 0, text_sectors, _ENTRIES),
        *(redundant, redundant + one_set, overhead, 0, b"\n \r\n", 0),
    )
    entries = [0] * (tables * _ENTRIES)
    body = bytearray()
    for number, data in sorted(layer.items()):
        entries[number] = 1 if data is None else overhead + len(body) // SECTOR
        body += b"" if data is None else data.ljust(GRAIN, b"\0")
    metadata = header.ljust(SECTOR, b"\0") + text.ljust(text_sectors * SECTOR, b"\0")
    for start in (redundant, redundant + one_set):
        first = start + directory_sectors
        places = [first + number * _ENTRIES * 4 // SECTOR for number in range(tables)]
        table = struct.pack(f"<{tables}I", *places).ljust(directory_sectors * SECTOR, b"\0")
        metadata += table + struct.pack(f"<{len(entries)}I", *entries)
    return metadata.ljust(overhead * SECTOR, b"\0") + bytes(body)
