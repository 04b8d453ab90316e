"""An EWF disk image (EnCase's E01, SMART's s01): what it says of itself, over all its segments.

Format: libewf's "Expert Witness Compression Format (EWF)". Everything is read with bounds; what is
not needed to read the disk, as the acquisition's values, may be damaged and is then noted.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images import ewf_acquisition, ewf_tables, ewf_volume
from images.errors import MalformedImage, Unreadable
from images.evidence import Source
from images.ewf_acquisition import Acquisition
from images.ewf_names import MAX_SEGMENTS, segment_name, segment_names
from images.ewf_sections import (
    MAX_SECTIONS,
    SIGNATURE,
    Section,
    bad,
    continues,
    sections,
    segment_number,
)
from images.ewf_tables import Table
from images.ewf_volume import Volume
from images.quoting import shown

__all__ = [
    "MAX_SEGMENTS",
    "SIGNATURE",
    "EwfImage",
    "Layout",
    "continues",
    "layout",
    "parse",
    "segment_names",
]

_VOLUME = ("volume", "disk")


@dataclass(frozen=True, slots=True)
class EwfImage:
    """Checked values; sizes in bytes. `acquisition` is text that came from the image.

    Hashes are hexadecimal and those that the image stores: nobody has compared them with the disk.
    `acquisition_errors` are (first sector, number of sectors) that could not be read when the disk
    was acquired and are zeros in the image. `complete` is whether the last segment says that it
    ends (section `done`). `notes` are findings to be shown.
    """

    virtual_size: int
    sector_size: int
    chunk_size: int
    compression: str
    media_type: str
    physical: bool | None
    set_identifier: uuid.UUID | None
    segments: int
    acquisition: Acquisition
    stored_md5: str | None
    stored_sha1: str | None
    acquisition_errors: tuple[tuple[int, int], ...]
    complete: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """What is needed to find a chunk: the disk's geometry, and the tables of all segments."""

    volume: Volume
    tables: tuple[Table, ...]
    sections: tuple[tuple[Section, ...], ...]


def parse(segments: Sequence[Source]) -> EwfImage:
    """Read and check all segments, the first one first. Only ImageErrors come out.

    Unreadable names the segment that is missing; a segment of another set, or one that lies, is
    MalformedImage; EWF version 2, logical evidence and encryption are Unsupported.
    """
    found = layout(segments)
    volume = found.volume
    acquired = ewf_acquisition.acquisition(segments[0], found.sections[0])
    trailer = ewf_acquisition.trailer(segments[-1], found.sections[-1])
    complete = found.sections[-1][-1].kind == "done"
    notes = list(trailer.notes)
    if acquired is None:
        notes.append("the values of the acquisition are missing or cannot be read")
    if not complete:
        notes.append("the image does not say that it is complete (no section done)")
    if trailer.error_ranges:
        count = sum(number for _, number in trailer.error_ranges)
        notes.append(f"{count} sectors could not be read when the disk was acquired")
    return EwfImage(
        virtual_size=volume.virtual_size,
        sector_size=volume.sector_size,
        chunk_size=volume.chunk_size,
        compression=volume.compression,
        media_type=volume.media_type,
        physical=volume.physical,
        set_identifier=volume.set_identifier,
        segments=len(segments),
        acquisition=acquired or Acquisition(),
        stored_md5=trailer.md5,
        stored_sha1=trailer.sha1,
        acquisition_errors=trailer.error_ranges,
        complete=complete,
        notes=tuple(notes),
    )


def layout(segments: Sequence[Source]) -> Layout:
    """The part of `parse` that finds the chunks; raises the same errors."""
    if not 0 < len(segments) <= MAX_SEGMENTS:
        raise ValueError(f"an EWF image has 1 to {MAX_SEGMENTS} segments, not {len(segments)}")
    walked: list[tuple[Section, ...]] = []
    budget = MAX_SECTIONS
    for index, source in enumerate(segments):
        _check_number(segments, index)
        found = tuple(sections(source, budget))
        budget -= len(found)
        _check_end(segments, index, found)
        walked.append(found)
    volume = _volume(segments[0], walked[0])
    for source, found in zip(segments, walked, strict=True):
        _check_set(source, found, volume)
    tables = ewf_tables.tables(zip(segments, walked, strict=True), volume.chunks)
    return Layout(volume, tuple(tables), tuple(walked))


def _check_number(segments: Sequence[Source], index: int) -> None:
    source = segments[index]
    number = segment_number(source)
    if number == index + 1:
        return
    if index == 0:
        raise MalformedImage(
            f"is segment {number} of an EWF image, not the first one",
            path=source.path,
            hint="name the first segment, which ends in .E01 or .s01",
        )
    # Rightly named for another place: then the one that belongs here was left out.
    if number > index + 1 and source.path.name == segment_name(segments[0].path.name, number):
        raise _missing(segments[0].path, index + 1)
    raise MalformedImage(
        f"is segment {number} of an EWF image, but stands where segment {index + 1} belongs",
        path=source.path,
        hint="check that all segments are from one image and that none was renamed",
    )


def _check_end(segments: Sequence[Source], index: int, found: tuple[Section, ...]) -> None:
    """A segment that goes on needs one after it, and no other may have one."""
    source = segments[index]
    if not found:
        raise bad(source, "it has no sections")
    is_last = index + 1 == len(segments)
    goes_on = found[-1].kind == "next"
    if is_last and goes_on:
        raise _missing(segments[0].path, index + 2)
    if not is_last and found[-1].kind == "done":
        raise MalformedImage(
            "does not belong to the EWF image: the segment before it is the last one",
            path=segments[index + 1].path,
            hint="check that all segments are from one image and that none was renamed",
        )
    if not is_last and not goes_on:
        raise bad(source, "it ends without saying that another segment follows; is it truncated?")


def _missing(first: Path, number: int) -> Unreadable:
    name = segment_name(first.name, number)
    if name is None:
        return Unreadable(
            f"is part of an EWF image whose segment {number} is missing, and not named so that "
            "its name could be known",
            path=first,
            hint="give the segments their usual names: .E01, .E02 and so on",
        )
    return Unreadable(
        f"is missing: it is segment {number} of {shown(str(first))}",
        path=first.with_name(name),
        hint="get the missing part; all segments must lie in one folder",
    )


def _volume(source: Source, found: tuple[Section, ...]) -> Volume:
    named = [section for section in found if section.kind in _VOLUME]
    if len(named) != 1:
        raise bad(source, f"it has {len(named)} sections that describe the disk, not one")
    return ewf_volume.parse(source, named[0])


def _check_set(source: Source, found: tuple[Section, ...], volume: Volume) -> None:
    for section in found:
        if section.kind == "data" and not ewf_volume.same_set(source, section, volume):
            raise MalformedImage(
                "belongs to another EWF image than its first segment (set identifier or geometry)",
                path=source.path,
                hint="check that all segments are from one image and that none was renamed",
            )
