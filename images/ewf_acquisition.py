"""What an EWF image says of its acquisition: `header`, `header2`, `hash`, `digest`, `error2`.

Layouts: libewf's "Expert Witness Compression Format (EWF)", the sections of these names. Nothing
here is needed to read the disk, so that damage makes a note and not an error.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from images.errors import ImageError
from images.evidence import Source
from images.ewf_sections import Section, optional

MAX_TEXT = 4096
"""Characters that are kept of one value; EnCase itself stops at 3,000."""

MAX_ERROR_RANGES = 1 << 16
_MAX_COMPRESSED = 1 << 20
_MAX_HEADER = 4 << 20
_NAMES = {
    "c": "untrusted_case_number",
    "n": "untrusted_evidence_number",
    "a": "untrusted_description",
    "e": "untrusted_examiner",
    "t": "untrusted_notes",
    "m": "untrusted_acquired",
    "u": "untrusted_system_date",
    "av": "untrusted_software",
    "ov": "untrusted_system",
    "md": "untrusted_model",
    "sn": "untrusted_serial_number",
}


@dataclass(frozen=True, slots=True)
class Acquisition:
    """Texts as they stand in the image, each at most MAX_TEXT characters; None when not given.

    Anybody can write anything there: show them through `quoting.shown`. Dates in a known form are
    brought into ISO 8601; those without a zone are the acquiring computer's local time.
    """

    untrusted_case_number: str | None = None
    untrusted_evidence_number: str | None = None
    untrusted_description: str | None = None
    untrusted_examiner: str | None = None
    untrusted_notes: str | None = None
    untrusted_acquired: str | None = None
    untrusted_system_date: str | None = None
    untrusted_software: str | None = None
    untrusted_system: str | None = None
    untrusted_model: str | None = None
    untrusted_serial_number: str | None = None


@dataclass(frozen=True, slots=True)
class Trailer:
    """Stored hashes in hexadecimal, and what could not be read when the disk was acquired.

    `error_ranges` are (first sector, number of sectors), at most MAX_ERROR_RANGES of them.
    """

    md5: str | None = None
    sha1: str | None = None
    error_ranges: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = field(default=())


def acquisition(source: Source, sections: Sequence[Section]) -> Acquisition | None:
    """From `header2`, which is Unicode, or else `header`; None when there is none to be read."""
    for kind in ("header2", "header"):
        for section in sections:
            if section.kind == kind:
                text = _text(source, section, kind)
                values = _values(text) if text is not None else None
                if values is not None:
                    return values
    return None


def _text(source: Source, section: Section, kind: str) -> str | None:
    decoder = zlib.decompressobj()
    try:
        data = source.read(section.offset, min(section.size, _MAX_COMPRESSED))
        plain = decoder.decompress(data, _MAX_HEADER)
    except (ImageError, zlib.error):
        return None
    if not decoder.eof:
        return None
    if kind == "header2" or plain[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return plain.decode("utf-16", "replace")
    # The code page of the acquiring computer is written nowhere; most are close to this one.
    return plain.decode("cp1252", "replace")


def _values(text: str) -> Acquisition | None:
    lines = text.replace("\r\n", "\n").split("\n", 4)
    if len(lines) < 4 or lines[1] != "main":
        return None
    given: dict[str, str] = {}
    for name, value in zip(lines[2].split("\t", 64), lines[3].split("\t", 64), strict=False):
        if name in _NAMES and value:
            given[_NAMES[name]] = value[:MAX_TEXT]
    for date in ("untrusted_acquired", "untrusted_system_date"):
        if date in given:
            given[date] = _date(given[date])
    return Acquisition(**given)


def _date(text: str) -> str:
    """From seconds since 1970 (header2) or "2026 11 23 0 3 40" (header); else as it stands."""
    numbers = text.split(" ")
    if not all(number.isascii() and number.isdigit() and len(number) < 12 for number in numbers):
        return text
    try:
        if len(numbers) == 1:
            return datetime.fromtimestamp(int(text), UTC).isoformat()
        if len(numbers) == 6:
            year, month, day, hour, minute, second = map(int, numbers)
            # Local time of a computer that is not known.
            return datetime(year, month, day, hour, minute, second).isoformat()  # noqa: DTZ001
    except (ValueError, OverflowError, OSError):
        pass
    return text


def trailer(source: Source, sections: Iterable[Section]) -> Trailer:
    """What the last segment says about the whole."""
    found = Trailer()
    for section in sections:
        if section.kind in _READERS:
            found = _READERS[section.kind](source, section, found)
    return found


def _hash(source: Source, section: Section, found: Trailer) -> Trailer:
    data = optional(source, section, 36)
    if data is None:
        return _noted(found, "the stored MD5 (section hash) is damaged")
    return _with_md5(found, data[:16])


def _digest(source: Source, section: Section, found: Trailer) -> Trailer:
    data = optional(source, section, 80)
    if data is None:
        return _noted(found, "the stored hashes (section digest) are damaged")
    found = _with_md5(found, data[:16])
    return replace(found, sha1=data[16:36].hex()) if any(data[16:36]) else found


def _with_md5(found: Trailer, digest: bytes) -> Trailer:
    if not any(digest):
        return found
    if found.md5 is not None and found.md5 != digest.hex():
        found = _noted(found, "it stores two different MD5 hashes; the last one is used")
    return replace(found, md5=digest.hex())


def _error2(source: Source, section: Section, found: Trailer) -> Trailer:
    note = "the list of acquisition errors (section error2) is damaged"
    head = optional(source, section, 520)
    count = struct.unpack_from("<I", head)[0] if head is not None else 0
    if count == 0:
        return found if head is not None else _noted(found, note)
    if section.size < 520 + count * 8 + 4:
        return _noted(found, note)
    if count > MAX_ERROR_RANGES:
        found = _noted(found, f"only {MAX_ERROR_RANGES} of {count} acquisition errors were read")
        count = MAX_ERROR_RANGES
        entries = _read(source, section.offset + 520, count * 8)
    else:
        rest = Section(section.kind, section.offset + 520, section.size - 520)
        entries = optional(source, rest, count * 8 + 4)
    if entries is None:
        return _noted(found, note)
    ranges = tuple((first, number) for first, number in struct.iter_unpack("<II", entries))
    return replace(found, error_ranges=ranges)


def _read(source: Source, offset: int, length: int) -> bytes | None:
    try:
        data = source.read(offset, length)
    except ImageError:
        return None
    return data if len(data) == length else None


def _noted(found: Trailer, note: str) -> Trailer:
    return replace(found, notes=(*found.notes, note))


_READERS = {"hash": _hash, "digest": _digest, "error2": _error2}
