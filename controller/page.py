"""A page of the report: what the output can take, and text that fits it.

Whatever comes from evidence passes through `Page.show`, and reaches the terminal as plain text:
never as rich's markup, and never with characters that a terminal would act on.
"""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.text import Text

from controller.columns import cut, pack
from controller.layer_tree import ASCII, UNICODE, Guides
from images.quoting import shown

_ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Page:
    """What the output can take; `width` in cells, None for lines of any length."""

    encoding: str
    width: int | None
    verbose: bool

    def show(self, untrusted_text: str | bytes) -> str:
        """The text escaped, and escaped further where the encoding lacks a character."""
        text = shown(untrusted_text)
        if self.takes(text):
            return text
        return "".join(each if self.takes(each) else f"\\u{{{ord(each):x}}}" for each in text)

    def show_own(self, text: str) -> str:
        """The same for text of ours, in which names are already escaped."""
        return self.show(text).replace("\\\\", "\\")

    def takes(self, text: str) -> bool:
        """Whether the encoding has all these characters."""
        try:
            text.encode(self.encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    @property
    def mark(self) -> str:
        """Stands for what was cut out of a name."""
        return _ELLIPSIS if self.takes(_ELLIPSIS) else "..."

    @property
    def guides(self) -> Guides:
        """What the tree is drawn with."""
        return UNICODE if self.takes(UNICODE.branch + UNICODE.last + UNICODE.line) else ASCII


Line = list[tuple[str, str]]
"""Pieces of text, each with its style."""


def page_for(file: TextIO, *, verbose: bool) -> Page:
    """What this output can take."""
    width = max(20, shutil.get_terminal_size().columns) if file.isatty() else None
    return Page(file.encoding or "utf-8", width, verbose)


def takes_colours(file: TextIO) -> bool:
    """Whether it is a terminal on which colours are wanted."""
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(lines: list[Line], *, colour: bool) -> str:
    """The lines as text, with a terminal's colours or without any."""
    if not colour:
        return "".join("".join(text for text, _style in line).rstrip() + "\n" for line in lines)
    # Written to a buffer: on a closed pipe rich would end the whole program.
    buffer = io.StringIO()
    console = Console(
        file=buffer, force_terminal=True, color_system="standard", no_color=False, width=1000
    )
    for line in lines:
        text = Text.assemble(*line)
        text.rstrip()
        console.print(text, soft_wrap=True)
    return buffer.getvalue()


def short(text: str, page: Page, before: int = 0) -> str:
    """The text, cut to a line of which `before` cells are taken."""
    return text if page.width is None else cut(text, page.width - before, page.mark)


def room(page: Page, before: int) -> int | None:
    """Cells that are left on a line; None for any number."""
    return None if page.width is None else page.width - before


def wrapped(text: str, page: Page, style: str) -> list[Line]:
    """A sentence in as many lines as it needs."""
    return [[(each, style)] for each in pack(text.split(" "), " ", page.width)]
