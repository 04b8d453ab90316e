"""What format a file has, by its content alone; a file's name proves nothing."""

from __future__ import annotations

import re
import struct
from enum import StrEnum

from images.errors import Ambiguous
from images.evidence import Source

HEAD = 4096
_FOOTER = 512


class Format(StrEnum):
    """The ones after xz are recognised so that they are never taken for raw disks."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    QCOW1 = "qcow1"
    QED = "qed"
    VHD = "vhd"
    VHDX = "vhdx"
    VDI = "vdi"
    EWF = "ewf"
    GZIP = "gzip"
    XZ = "xz"
    AFF = "aff"
    DMG = "dmg"
    PARALLELS = "parallels"
    BOCHS = "bochs"


_WITH_HEADER = frozenset(
    {
        Format.QCOW2,
        Format.VMDK,
        Format.QCOW1,
        Format.QED,
        Format.VHD,
        Format.VHDX,
        Format.VDI,
    }
)
"""Those whose first sector has nothing else in it. A fixed VHD is known by its end alone."""

_MAGIC: tuple[tuple[int, bytes, Format], ...] = (
    (0, b"KDMV", Format.VMDK),
    (0, b"COWD", Format.VMDK),
    # seSparse: constant header magic and version, little-endian (QEMU block/vmdk.c).
    (0, struct.pack("<QQ", 0xCAFEBABE, 0x200000001), Format.VMDK),
    (0, b"QED\0", Format.QED),
    (0, b"conectix", Format.VHD),
    (0, b"vhdxfile", Format.VHDX),
    (0x40, struct.pack("<I", 0xBEDA107F), Format.VDI),
    (0, b"EVF\x09\x0d\x0a\xff\x00", Format.EWF),
    (0, b"LVF\x09\x0d\x0a\xff\x00", Format.EWF),
    (0, b"EVF2\x0d\x0a\x81\x00", Format.EWF),
    (0, b"LEF2\x0d\x0a\x81\x00", Format.EWF),
    # RFC 1952: deflate is the only method that there is.
    (0, b"\x1f\x8b\x08", Format.GZIP),
    (0, b"\xfd7zXZ\x00", Format.XZ),
    (0, b"AFF10\x0d\x0a\x00", Format.AFF),
    (0, b"WithoutFreeSpace", Format.PARALLELS),
    (0, b"WithouFreSpacExt", Format.PARALLELS),
    (0, b"Bochs Virtual HD Image", Format.BOCHS),
)


_AT_START = b"|".join(re.escape(magic) for offset, magic, _ in _MAGIC if offset == 0)
_FIRST_BYTES = re.compile(_AT_START + rb"|QFI\xfb|[\s#vV]")
_LATER = tuple((offset, magic) for offset, magic, _ in _MAGIC if offset)


def may_begin_image(head: bytes) -> bool:
    """Whether `detect` could see something in the first 4096 bytes of a file; much cheaper.

    Its end can still show something.
    """
    if _FIRST_BYTES.match(head):
        return True
    return any(head.startswith(magic, offset) for offset, magic in _LATER)


def detect(source: Source) -> Format:
    """Read at most the first 4096 and the last 512 bytes and name the one format they show.

    Raises Ambiguous when they show several: such a file is a trap or damaged.
    """
    head = source.read(0, HEAD)
    tail = source.read(max(0, source.size - _FOOTER), _FOOTER)
    found = _by_head(head)
    # Looked at before the end is: a fixed VHD begins with the disk itself.
    if found & _WITH_HEADER and head[510:512] == b"\x55\xaa":
        found.add(Format.RAW)
    found |= _by_tail(tail)
    if not found:
        return Format.RAW
    if len(found) > 1:
        names = " and ".join(sorted(found))
        boot = " (it starts with a boot sector)" if Format.RAW in found else ""
        raise Ambiguous(
            f"looks like several formats at once: {names}{boot}",
            path=source.path,
            hint="find out where it came from; if you are sure, declare its format",
        )
    return found.pop()


def _by_head(head: bytes) -> set[Format]:
    found = {form for offset, magic, form in _MAGIC if head[offset:].startswith(magic)}
    if head.startswith(b"QFI\xfb"):
        found.add(Format.QCOW1 if head[4:8] == b"\0\0\0\1" else Format.QCOW2)
    if is_text_descriptor(head):
        found.add(Format.VMDK)
    return found


def _by_tail(tail: bytes) -> set[Format]:
    # Very old Virtual PC wrote a footer of 511 bytes.
    found = {Format.VHD} if tail[:8] == b"conectix" or tail[1:9] == b"conectix" else set()
    if tail.startswith(b"koly"):
        found.add(Format.DMG)
    return found


_COMMENTS = re.compile(rb"(?:#[^\n]*\n| +\r?\n|\r?\n)*")
_VERSION = re.compile(rb"version\s*=\s*[0-9]+\s*\r?\n", re.IGNORECASE)


def is_text_descriptor(head: bytes) -> bool:
    """A VMDK descriptor. Wider than vmdk_probe() in QEMU's block/vmdk.c, which wants
    comments and blank lines and then `version=1..3`: what any tool could take for a
    descriptor must not become a raw disk.
    """
    if head[:64].lstrip().lower().startswith(b"# disk descriptorfile"):
        return True
    comments = _COMMENTS.match(head)
    return comments is not None and _VERSION.match(head, comments.end()) is not None
