"""The report's list of disk images that are files in file systems."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from appliance.image import ImageFacts, NestedImage
from controller.columns import GAP, Column, fit, padded
from controller.sizes import count, human

_COLUMNS = (
    Column("FORMAT"),
    Column("DISK", is_number=True),
    Column("FILE", is_number=True),
    Column("ALLOCATED", is_number=True),
    Column("OPEN IT WITH"),
)
_MAX_NAMED = 4

Show = Callable[[str], str]


def lines(images: Sequence[NestedImage], show: Show, show_own: Show) -> list[str]:
    """A title and a table, nothing where there are none.

    Lines fit no width: the last column can be typed into a shell as it is. Names in it are escaped
    already, so `show_own` must not do it again.
    """
    if not images:
        return []
    names = [column.name for column in _COLUMNS]
    rows = [names, *(_row(each, show, show_own) for each in images)]
    chosen = fit(_COLUMNS, rows, None).shown
    return [f"Disk images in file systems ({len(images)})"] + [
        (
            "  " + (" " * GAP).join(_cell(row[index], index, width) for index, width in chosen)
        ).rstrip()
        for row in rows
    ]


def _cell(value: str, index: int, width: int) -> str:
    return padded(value, width, right=_COLUMNS[index].is_number)


def _row(image: NestedImage, show: Show, show_own: Show) -> list[str]:
    return [
        show(f"{image.format}, {image.content}" if image.content else image.format),
        "-" if image.virtual_size is None else human(image.virtual_size),
        human(image.file_size),
        human(image.allocated_size),
        f"--open {shlex.quote(show_own(image.address))}",
    ]


def about(facts: ImageFacts | None, show_own: Show) -> list[str]:
    """What is said below the disk of an image that was opened."""
    if facts is None:
        return []
    items = [f"image in the format {show_own(facts.format)}"]
    items += [f"on {show_own(link)}" for link in facts.chain[:_MAX_NAMED]]
    if (more := len(facts.chain) - _MAX_NAMED) > 0:
        items.append(f"and on {more} more")
    if len(facts.files) > 1:
        items.append(count(len(facts.files), "file"))
    return items
