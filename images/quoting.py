"""How text that came from an image, or a path that the user typed, may be shown."""

from __future__ import annotations

import re

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


def shown(untrusted_text: str | bytes) -> str:
    r"""Printable form: other characters become \xNN or \u{N}, a backslash is doubled."""
    if isinstance(untrusted_text, bytes):
        untrusted_text = untrusted_text.decode("utf-8", "surrogateescape")
    return "".join(map(_shown_character, untrusted_text))


def _shown_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    if _ESCAPED_BYTE.match(character):
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{{{code:x}}}"
