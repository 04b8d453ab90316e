"""The layout with names that attack a terminal, a log or a parser; see layouts.py."""

import os
from pathlib import Path

from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.expected import Expected, Layout
from tests.builders.ext4 import make_ext4
from tests.builders.filesystems import make_swap, make_vfat, set_vfat_label
from tests.builders.gpt import set_gpt_name

LINUX_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
DISK_UUID = "bad00000-0000-4000-8000-000000000000"
PART_UUID = "bad00000-0000-4000-8000-%012d"
CONTENT_UUID = "bad0c047-0000-4000-8000-%012d"

RED = b"\x1b[31mred\x1b[0m"
"""An escape sequence that colours a terminal."""

TITLE = b"\x1b]0;owned\x07\nx"
"""One that sets a terminal's title, and a line feed."""

BIDI = b"\xe2\x80\xaegpj.exe"
"""U+202E: what follows is displayed from right to left."""

INVALID = b"ab\xff\xfe\xc3(z"
"""Not UTF-8."""

FAT_LABEL = b"A\nB\x1b[2J\xff\x9bYZ"
"""11 bytes: line feed, an escape sequence that clears the screen, and bytes above 127."""

GPT_NAMES = (
    "\x1b[2J\x1b[Hgone",
    "\u202egpj.exe\u202c",
    "line one\nline two\r\n disk9/p9",
    "lone \ud800 surrogate",
    "",
)


def hostile_names(folder: Path) -> Layout:
    """GPT, 64 MiB, five partitions of 8 MiB from MiB 1 on; labels and names are hostile."""
    images = [
        make_ext4(folder / "p1", 8 * MIB, RED, CONTENT_UUID % 1),
        make_vfat(folder / "p2", 8 * MIB, "PLACEHOLDER", "0bad0002"),
        make_swap(folder / "p3", 8 * MIB, BIDI, CONTENT_UUID % 3),
        make_ext4(folder / "p4", 8 * MIB, INVALID, CONTENT_UUID % 4),
        make_ext4(folder / "p5", 8 * MIB, TITLE, CONTENT_UUID % 5),
    ]
    set_vfat_label(images[1], FAT_LABEL)
    step = 8 * MIB // SECTOR
    partitions = [
        Partition(
            MIB // SECTOR + index * step,
            step,
            LINUX_TYPE,
            image,
            uuid=PART_UUID % (index + 1),
        )
        for index, image in enumerate(images)
    ]
    disk = make_disk(folder / "disk.raw", 64 * MIB, "gpt", partitions, DISK_UUID)
    for number, name in enumerate(GPT_NAMES, start=1):
        set_gpt_name(disk, number, name.encode("utf-16-le", "surrogatepass"))
    return Layout((disk,), EXPECTED, {"disk0": 24 * MIB})


def layer(number: int, offset: int, content: str, label: bytes, uuid: str) -> Expected:
    """One partition of 8 MiB."""
    return Expected(
        f"disk0/p{number}",
        "partition",
        8388608,
        offset,
        content=content,
        label=os.fsdecode(label),
        uuid=uuid,
        name=GPT_NAMES[number - 1] or None,
        identity=PART_UUID % number,
    )


EXPECTED = (
    Expected("disk0", "disk", 67108864, table="gpt", table_uuid=DISK_UUID),
    layer(1, 1048576, "ext4", RED, CONTENT_UUID % 1),
    layer(2, 9437184, "vfat", FAT_LABEL, "0BAD-0002"),
    layer(3, 17825792, "swap", BIDI, CONTENT_UUID % 3),
    layer(4, 26214400, "ext4", INVALID, CONTENT_UUID % 4),
    layer(5, 34603008, "ext4", TITLE, CONTENT_UUID % 5),
)
