"""Opens a disk image that is a file in a mounted file system, by the same rules as on the host.

Whatever the image refers to is looked up by hand below the root of that file system
(images/walk.py): an absolute name means that root, a link cannot leave it, and no name reaches
another program.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from appliance.image import ImageFacts, ImageFile
from images.chain import Link
from images.errors import PolicyViolation
from images.evidence import EvidenceFile, opened_descriptor
from images.image import Image, image_of
from images.quoting import shown
from images.reference import Reach
from images.walk import Outside, Root, walk

_TOP = Path("/")
_MAX_TOLD = 64 << 10
"""Characters of all names together that are reported of one image."""
_MAX_NAME = 1024


@dataclass(frozen=True, slots=True)
class NestedDisk:
    """An image whose files are open, and what is to be told of it."""

    image: Image
    facts: ImageFacts
    notes: tuple[str, ...]


def open_disk_image(root: Path, path: bytes, stack: ExitStack) -> NestedDisk:
    """Open the image at `path` below the mounted `root` with all that it stands on.

    Raises FileNotFoundError and NotADirectoryError where there is no such file, OSError where it
    cannot be read, ImageError where it is refused.
    """
    top = Root(_TOP, root, is_top=True)
    if b"\0" in path:
        raise FileNotFoundError
    try:
        descriptor, resolved = walk(top, os.fsdecode(path).split("/"), (top,))
    except Outside:
        raise PolicyViolation("is no file", path=Path(os.fsdecode(path))) from None
    try:
        if stat.S_ISBLK(os.fstat(descriptor).st_mode):
            raise PolicyViolation("is a block device", path=_TOP / resolved.relative_to(root))
        # Named by where it is in the file system, not by the folder where that is mounted.
        file = opened_descriptor(descriptor, _TOP / resolved.relative_to(root), resolved)
    finally:
        os.close(descriptor)
    stack.callback(os.close, file.fd)
    image = image_of(file, stack=stack, reach=Reach((top,), is_searched=False))
    files, unnamed = _named(image.files)
    facts = ImageFacts(image.format, [_about(link) for link in image.chain[1:]], files)
    notes = image.notes + ((f"{unnamed} more files belong to it",) if unnamed else ())
    return NestedDisk(image, facts, notes)


def _named(files: Sequence[EvidenceFile]) -> tuple[list[ImageFile], int]:
    """As many as there is room for, and how many are left."""
    named: list[ImageFile] = []
    room = _MAX_TOLD
    for file in files:
        path = shown(str(file.path))[:_MAX_NAME]
        room -= len(path)
        if room < 0:
            break
        named.append(ImageFile(path, file.size))
    return named, len(files) - len(named)


def _about(link: Link) -> str:
    return f"{link.format} {shown(str(link.path))}"[:_MAX_NAME]
