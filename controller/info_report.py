"""`forensic info` for people to read."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from controller.errors import ExitCode
from controller.info import Fact, FileFacts, ImageFacts, Info, LinkFacts, Ranges, gather
from controller.sizes import count, human
from images.quoting import shown

_WIDTH = 28
_TECHNICAL = re.compile(
    r".* (?:offset|entries|clusters|order|slots)|block map|sequence|timestamp|extents|snapshots"
)
"""Rows for who reads the format's specification; printed with -v, and always in the JSON."""

_CONTENT_IDS = ("content_id", "parent_id")
"""As a VMDK's descriptor writes them."""


def run(paths: list[Path], allowed: list[Path], *, json: bool, verbose: bool) -> ExitCode:
    """Gather, print, and return the exit code. Raises ForensicError."""
    info = gather(paths, allowed)
    if json:
        sys.stdout.buffer.write(info.to_json())
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(text(info, verbose=verbose))
    return info.exit_code


def text(info: Info, *, verbose: bool = False) -> str:
    """What is printed: a paragraph for each link of each image."""
    return "\n".join(
        "".join(f"{line}\n" for line in _image(image, verbose=verbose)) for image in info.images
    )


def _image(image: ImageFacts, *, verbose: bool) -> Iterator[str]:
    yield shown(image.path)
    if image.virtual_size is not None:
        yield _row("disk", f"{human(image.virtual_size)} ({image.virtual_size} bytes)")
    if image.data is not None:
        yield _row("holding data", _ranges(image.data, image.virtual_size or 0))
    if image.problem is not None:
        yield _row("locked" if image.locked else "problem", image.problem)
    for depth, link in enumerate(image.chain):
        if depth:
            yield ""
            yield f"  {link.role} {shown(link.path)}"
        yield from _link(link, verbose=verbose)


def _link(link: LinkFacts, *, verbose: bool) -> Iterator[str]:
    yield _row("format", link.format)
    if link.role != "image" and link.virtual_size is not None:
        yield _row("disk", f"{human(link.virtual_size)} ({link.virtual_size} bytes)")
    for name, fact in link.details.items():
        words = name.replace("_", " ")
        is_told = fact is not None and fact not in ("", [], False)
        if is_told and (verbose or not _TECHNICAL.fullmatch(words)):
            yield _row(words, _told(name, fact))
    shown_files = link.files if verbose else link.files[:8]
    for file in shown_files:
        yield _row("file", _file(file))
    if len(link.files) > len(shown_files):
        yield _row("", f"and {count(len(link.files) - len(shown_files), 'more file')}, see -v")
    for snapshot in link.snapshots:
        state = f", memory of {human(snapshot.state_size)}" if snapshot.state_size else ""
        yield _row(
            "snapshot",
            f'{snapshot.id} "{snapshot.name}", {snapshot.created}, '
            f"{human(snapshot.disk_size)}{state}",
        )
    for note in link.notes:
        yield _row("note", note)


def _row(name: str, value: str) -> str:
    return f"  {name:{_WIDTH}}{value}".rstrip()


def _told(name: str, fact: Fact) -> str:
    if fact is True:
        return "yes"
    if name in _CONTENT_IDS and isinstance(fact, int):
        return f"{fact:08x}"
    return ", ".join(fact) if isinstance(fact, list) else str(fact)


def _file(file: FileFacts) -> str:
    return f"{shown(file.path)}, {human(file.size)}, {_ranges(file.data, file.size)} stored"


def _ranges(data: Ranges, size: int) -> str:
    share = f" ({100 * data.bytes / size:.0f} %)" if size else ""
    return f"{human(data.bytes)}{share} in {count(data.ranges, 'range')}"
