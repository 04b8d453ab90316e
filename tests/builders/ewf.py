"""EWF images (E01, s01): real ones by libewf's ewfacquire, and any others section by section.

Layout: libewf's "Expert Witness Compression Format (EWF)".
"""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

CHUNK = 32768
SECTOR = 512
GUID = bytes(range(1, 17))

Section = tuple[str, bytes]


def acquire(raw: Path, target: Path, *options: str) -> list[Path]:
    """The segments that ewfacquire (Debian package ewf-tools) makes; `target` has no suffix."""
    command = ["ewfacquire", "-u", "-q", "-t", str(target), *options, str(raw)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return sorted(target.parent.glob(f"{target.name}.[eEsS]*"))


def checksummed(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.adler32(data))


def descriptor(kind: str, following: int, size: int) -> bytes:
    return checksummed(struct.pack("<16sQQ40x", kind.encode(), following, size))


def segment(number: int, sections: Sequence[Section], end: str = "done") -> bytes:
    """A segment file with these sections and, if `end` is not empty, one of that kind."""
    out = b"EVF\x09\x0d\x0a\xff\x00" + struct.pack("<BHH", 1, number, 0)
    for kind, data in sections:
        size = 76 + len(data)
        out += descriptor(kind, len(out) + size, size) + data
    return out + descriptor(end, len(out), 0) if end else out


def volume(
    sectors: int, guid: bytes = GUID, per_chunk: int = 64, chunks: int | None = None
) -> bytes:
    if chunks is None:
        chunks = -(-sectors // per_chunk)
    head = struct.pack(
        "<B3xIIIQ12xB15xB3xI4x16s", 1, chunks, per_chunk, SECTOR, sectors, 3, 1, 64, guid
    )
    return checksummed(head.ljust(1048, b"\0"))


def header2(**values: str) -> bytes:
    names, texts = "\t".join(values), "\t".join(values.values())
    return zlib.compress(f"\ufeff1\nmain\n{names}\n{texts}\n\n".encode("utf-16-le"))


def table(offsets: Sequence[int], base: int = 0, count: int | None = None) -> bytes:
    head = struct.pack("<I4xQ4x", len(offsets) if count is None else count, base)
    return checksummed(head) + checksummed(struct.pack(f"<{len(offsets)}I", *offsets))


def digest(md5: bytes, sha1: bytes) -> bytes:
    return checksummed(md5 + sha1 + bytes(40))


def stored_hash(md5: bytes) -> bytes:
    return checksummed(md5 + bytes(16))


def errors(ranges: Sequence[tuple[int, int]], count: int | None = None) -> bytes:
    head = struct.pack("<I512x", len(ranges) if count is None else count)
    entries = b"".join(struct.pack("<II", *pair) for pair in ranges)
    return checksummed(head) + checksummed(entries)


def small(number: int = 1, *more: Section, end: str = "done", guid: bytes = GUID) -> bytes:
    """A disk of 32 KiB and 512 bytes in one segment: a chunk of "a", deflated, and a sector "b"."""
    first, second = zlib.compress(b"a" * CHUNK), checksummed(b"b" * SECTOR)
    before = [("header2", header2(c="case", e="examiner")), ("volume", volume(65, guid))]
    start = len(segment(number, before, "")) + 76
    offsets = table([start | 1 << 31, start + len(first)])
    sections = [*before, ("sectors", first + second), ("table", offsets), ("table2", offsets)]
    return segment(number, [*sections, *more], end)


SMALL_CONTENT = b"a" * CHUNK + b"b" * SECTOR
