"""The file names of an EWF image's segments.

From libewf's "Expert Witness Compression Format", section "Segment file extensions": .E01 to .E99,
then .EAA to .EAZ, .EBA to .EZZ, .FAA to .ZZZ; SMART's .s01 in the same way. As libewf does, the
case of the first letter holds for all letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from string import ascii_lowercase, ascii_uppercase

MAX_SEGMENTS = 99 + 22 * 26 * 26
"""As many as the longest series, from .E01 to .ZZZ, has names for."""

_FIRST = re.compile(r"(?P<stem>.*\.)(?P<letter>[EeSs])01", re.DOTALL)


def segment_names(first: str) -> Iterator[str]:
    """The names of all segments that can belong to the one called `first`, in their order.

    At most MAX_SEGMENTS; only `first` itself when it is not named as a first segment is.
    """
    match = _FIRST.fullmatch(first)
    if match is None:
        yield first
        return
    stem, letter = match["stem"], match["letter"]
    for number in range(1, 100):
        yield f"{stem}{letter}{number:02}"
    letters = ascii_lowercase if letter.islower() else ascii_uppercase
    for head in letters[letters.index(letter) :]:
        for middle, last in product(letters, letters):
            yield f"{stem}{head}{middle}{last}"


def segment_name(first: str, number: int) -> str | None:
    """The name of segment `number`, counted from 1; None when the scheme has no such name."""
    for position, name in enumerate(segment_names(first), start=1):
        if position == number:
            return name
    return None
