"""Opens the segments of an EWF image (E01, s01), which lie beside the first one."""

from __future__ import annotations

import os

from images import ewf
from images.chain import MAX_FILES, Chain, Link
from images.detect import Format
from images.errors import MalformedImage, Unreadable
from images.evidence import EvidenceFile
from images.graph import Node


def open_link(file: EvidenceFile, chain: Chain) -> Link:
    """Open all segments and read what the image says of itself. Raises ImageErrors."""
    segments, notes = _segments(file, chain)
    image = ewf.parse(segments)
    numbers = tuple(chain.add(segment) for segment in segments)
    return Link(
        path=file.path,
        format=Format.EWF,
        virtual_size=image.virtual_size,
        files=tuple(segments),
        details=image,
        node=Node("reader:ewf", chain=numbers),
        notes=(*notes, *image.notes),
    )


def _segments(file: EvidenceFile, chain: Chain) -> tuple[list[EvidenceFile], tuple[str, ...]]:
    """As many as follow each other; the parser says which one is missing."""
    segments, notes = [file], tuple[str, ...]()
    names = ewf.segment_names(file.resolved.name)
    next(names)
    for name in names:
        if not ewf.continues(segments[-1]):
            break
        if len(segments) >= MAX_FILES:
            raise MalformedImage(f"has more than {MAX_FILES} segments", path=file.path)
        try:
            segment, found = chain.refer(file, os.fsencode(name), "next segment")
        except Unreadable:
            break
        segments.append(segment)
        notes += found
    return segments, notes
