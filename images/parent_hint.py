"""Where a differencing disk says that its parent was. Whether to look there is not decided here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ParentHint:
    """`kind` names the field of the format; the path is in the words of the system it came from."""

    kind: str
    untrusted_path: str


def utf16(data: bytes, order: Literal["big", "little"]) -> str:
    """Text up to the first NUL; what is no character becomes U+FFFD."""
    text = data.decode("utf-16-be" if order == "big" else "utf-16-le", "replace")
    return text.partition("\0")[0]
