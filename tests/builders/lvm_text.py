"""The text of LVM2 metadata: one volume group with its physical and logical volumes."""

import hashlib
import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

SECTOR = 512
MIB = 1024 * 1024
CREATED = 1_711_972_800
DATA_OFFSET = 1 * MIB
"""Where the first extent starts on each physical volume."""

UUID_LETTERS = string.digits + string.ascii_letters


@dataclass(frozen=True)
class PhysicalVolume:
    """A file that becomes a physical volume of `size` bytes."""

    path: Path
    size: int
    uuid: str | None = None

    def extents(self, extent_size: int) -> int:
        """How many whole extents fit after the metadata."""
        return (self.size - DATA_OFFSET) // extent_size


@dataclass(frozen=True)
class Segment:
    """A run of `extents`, in all, over one or more (physical volume's index, first extent).

    With several stripes each holds an equal share; `stripe_size` is in bytes.
    """

    extents: int
    stripes: tuple[tuple[int, int], ...]
    stripe_size: int = 64 * 1024


@dataclass(frozen=True)
class Volume:
    """A logical volume.

    `size` in bytes is rounded up to whole extents. Without `segments` it takes the first free
    extents, of `stripes` physical volumes at a time. `raw_segments` is the text of `segment1 {…}`
    and so on for other types; its data is not written.
    """

    name: str
    size: int = 0
    image: Path | None = None
    segments: tuple[Segment, ...] = ()
    stripes: int = 1
    uuid: str | None = None
    status: tuple[str, ...] = ("READ", "WRITE", "VISIBLE")
    raw_segments: tuple[str, ...] = ()


def made_uuid(*words: str) -> str:
    """An LVM UUID that depends only on the words."""
    digest = hashlib.sha256("/".join(words).encode()).digest()
    letters = "".join(UUID_LETTERS[byte % len(UUID_LETTERS)] for byte in digest)
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(letters[start:end] for start, end in pairwise(cuts))


def pv_uuid(group: str, index: int, pv: PhysicalVolume) -> str:
    """The given UUID of a physical volume, or one made from its place in the group."""
    return pv.uuid or made_uuid(group, "pv", str(index))


def group_text(
    name: str,
    uuid: str,
    extent_size: int,
    pvs: Sequence[PhysicalVolume],
    volumes: Sequence[Volume],
) -> str:
    """The whole metadata text; the volumes' segments must be known."""
    lines = [
        f"{name} {{",
        f'id = "{uuid}"',
        "seqno = 1",
        'format = "lvm2"',
        'status = ["RESIZEABLE", "READ", "WRITE"]',
        "flags = []",
        f"extent_size = {extent_size // SECTOR}",
        "max_lv = 0",
        "max_pv = 0",
        "metadata_copies = 0",
        "physical_volumes {",
        *(pv_text(name, number, pv, extent_size) for number, pv in enumerate(pvs)),
        "}",
    ]
    if volumes:
        lines += ["logical_volumes {", *(volume_text(name, lv) for lv in volumes), "}"]
    return spaced([*lines, "}"]) + "\n".join(trailer())


def spaced(parts: Sequence[str]) -> str:
    """Lay the text out as LVM writes it to disk: no indentation, a blank line before a section.

    GRUB's reader depends on that.
    """
    lines = [line for line in "\n".join(parts).splitlines() if line]
    return "".join(f"\n{line}\n" if line.endswith("{") else f"{line}\n" for line in lines).lstrip()


def pv_text(group: str, index: int, pv: PhysicalVolume, extent_size: int) -> str:
    """A physical volume's section."""
    return f"""
pv{index} {{
id = "{pv_uuid(group, index, pv)}"
device = "/dev/sd{string.ascii_lowercase[index]}1"
status = ["ALLOCATABLE"]
flags = []
dev_size = {pv.size // SECTOR}
pe_start = {DATA_OFFSET // SECTOR}
pe_count = {pv.extents(extent_size)}
}}"""


def volume_text(group: str, volume: Volume) -> str:
    """A logical volume's section."""
    segments = volume.raw_segments or segment_texts(volume.segments)
    status = ", ".join(f'"{word}"' for word in volume.status)
    return f"""
{volume.name} {{
id = "{volume.uuid or made_uuid(group, "lv", volume.name)}"
status = [{status}]
flags = []
creation_time = {CREATED}
creation_host = "builder"
segment_count = {len(segments)}
{"".join(segments)}
}}"""


def segment_texts(segments: Sequence[Segment]) -> tuple[str, ...]:
    """The sections of linear and striped segments."""
    texts = []
    start = 0
    for number, segment in enumerate(segments, start=1):
        texts.append(segment_text(number, start, segment))
        start += segment.extents
    return tuple(texts)


def segment_text(number: int, start: int, segment: Segment) -> str:
    """One segment's section; LVM calls a linear one a stripe of one."""
    count = len(segment.stripes)
    size = f"stripe_size = {segment.stripe_size // SECTOR}\n" if count > 1 else ""
    places = ",\n".join(f'"pv{index}", {extent}' for index, extent in segment.stripes)
    return f"""
segment{number} {{
start_extent = {start}
extent_count = {segment.extents}

type = "striped"
stripe_count = {count}
{size}
stripes = [
{places}
]
}}
"""


def trailer() -> list[str]:
    """What follows the group: who wrote it and when."""
    return [
        "# Written by tests/builders/lvm.py",
        "",
        'contents = "Text Format Volume Group"',
        "version = 1",
        "",
        'description = "test image"',
        "",
        'creation_host = "builder"',
        f"creation_time = {CREATED}",
        "",
        "",
    ]
