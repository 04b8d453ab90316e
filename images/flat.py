"""Raw disks: a file, a block device, or a file in numbered parts (.001, .002 …)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from images import raw
from images.chain import MAX_FILES, Chain, Link
from images.detect import Format
from images.errors import MalformedImage, Unreadable
from images.evidence import EvidenceFile
from images.graph import Node, Piece
from images.quoting import shown
from images.raw import SECTOR, RawLayout

_NUMBERED = re.compile(r"(?P<stem>.+\.)(?P<number>[0-9]{3,5})", re.DOTALL)
_PADDED = "the file size is not a multiple of 512; the last sector is filled with zeros"


@dataclass(frozen=True, slots=True)
class SplitRaw:
    """A raw disk in `parts` files."""

    parts: int


def open_link(file: EvidenceFile, chain: Chain) -> Link:
    """A raw disk, together with its other parts if the user named the first. Raises ImageErrors."""
    layout = raw.parse(file)
    if chain.is_top and not file.is_device and (names := _further_parts(file)):
        return _split(file, names, chain)
    return Link(
        path=file.path,
        format=Format.RAW,
        virtual_size=layout.virtual_size,
        files=(file,),
        details=layout,
        node=Node("raw", file=chain.add(file)),
        notes=(_PADDED,) if layout.padded else (),
    )


def _further_parts(file: EvidenceFile) -> list[str]:
    """The names of the parts that follow this one in its folder; none where it is whole."""
    match = _NUMBERED.fullmatch(file.resolved.name)
    if match is None:
        return []
    stem, digits = match["stem"], len(match["number"])
    first = int(match["number"])
    try:
        present = {
            int(found["number"])
            for entry in os.scandir(file.resolved.parent)
            if (found := _NUMBERED.fullmatch(entry.name))
            and found["stem"] == stem
            and len(found["number"]) == digits
        }
    except OSError as error:
        raise Unreadable(
            f"its folder cannot be listed to find its other parts: {error.strerror}",
            path=file.path,
        ) from error
    if first > 1 and not present & {0, 1}:
        return []  # a name that happens to end in a number
    if first > 1 or (first == 1 and 0 in present):
        raise Unreadable(
            "is not the first part of a split disk",
            path=file.path,
            hint="name the first part, the one with the lowest number",
        )
    wanted = range(first + 1, max(present) + 1)
    if len(wanted) >= MAX_FILES:
        raise MalformedImage(f"has more than {MAX_FILES} parts", path=file.path)
    for number in wanted:
        if number not in present:
            raise Unreadable(
                f"its part {shown(f'{stem}{number:0{digits}}')} is missing",
                path=file.path,
                hint=f"all parts up to number {max(present)} must lie in one folder",
            )
    return [f"{stem}{number:0{digits}}" for number in wanted]


def _split(file: EvidenceFile, names: list[str], chain: Chain) -> Link:
    files = [file, *(chain.refer(file, os.fsencode(name), "further part")[0] for name in names)]
    pieces = []
    for index, each in enumerate(files):
        number = chain.add(each)
        if each.size % SECTOR and each is not files[-1]:
            raise MalformedImage(
                f"has {each.size} bytes, which is not a multiple of {SECTOR}; only the last part "
                "of a split disk may be so",
                path=each.path,
                hint="the copy may be incomplete; to look at this part alone, name a copy of it "
                "without the number",
            )
        layout: RawLayout = raw.parse(each)
        pieces.append(Piece("FLAT", layout.virtual_size // SECTOR, 0, number))
        padded = layout.padded and index == len(files) - 1
    return Link(
        path=file.path,
        format=Format.RAW,
        virtual_size=sum(piece.sectors for piece in pieces) * SECTOR,
        files=tuple(files),
        details=SplitRaw(len(files)),
        node=Node("vmdk", pieces=tuple(pieces)),
        notes=(f"{len(files)} parts of one raw disk", *((_PADDED,) if padded else ())),
    )
