"""How text that came from an image, or a path that the user typed, may be shown."""

from __future__ import annotations

import re
import unicodedata

_PLAIN = re.compile(r"[ -\[\]-~]*")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U0001d159\U000e0100-\U000e01ef]"
)
"""Printable by their category, yet nothing is seen of them: variation selectors, fillers, blanks.

They are the rest of Unicode's Default_Ignorable_Code_Point, and two symbols without ink.
"""

_ESCAPE = re.compile(r"\\(?:(\\)|x([0-9a-f]{2})|u\{([0-9a-f]{1,6})\})")
_MAX_MARKS = 2
"""Marks above or below one character; written language needs no more, a stack hides lines."""


def shown(untrusted_text: str | bytes) -> str:
    r"""Printable form: other characters become \xNN or \u{N}, a backslash is doubled.

    What is escaped: everything that is not a letter, number, mark, sign or the plain space
    (controls, bidi and other format characters, line separators, odd spaces, surrogates, private
    and unassigned characters), what is invisible, and marks that are the first character or the
    third and more on one. \xNN is a byte: a control character, or one that is not valid UTF-8.
    """
    if isinstance(untrusted_text, bytes):
        untrusted_text = untrusted_text.decode("utf-8", "surrogateescape")
    if _PLAIN.fullmatch(untrusted_text):
        return untrusted_text
    pieces: list[str] = []
    marks = _MAX_MARKS  # none may stand first: it would change what we print before it
    for character in untrusted_text:
        is_mark = unicodedata.category(character) in {"Mn", "Me"}
        marks = marks + 1 if is_mark else marks
        if (is_mark and marks > _MAX_MARKS) or not _is_visible(character):
            pieces.append(_escaped(character))
            marks = _MAX_MARKS
        else:
            pieces.append(character)
            marks = marks if is_mark else 0
    return "".join(pieces)


def _is_visible(character: str) -> bool:
    return character != "\\" and character.isprintable() and not _BLANK.match(character)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    code = ord(character)
    if _ESCAPED_BYTE.match(character):
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{{{code:x}}}"


def unshown(text: str) -> bytes:
    """The bytes that `shown` made `text` of. A backslash that begins no escape is one."""
    pieces: list[bytes] = []
    end = 0
    for found in _ESCAPE.finditer(text):
        pieces += [_encoded(text[end : found.start()]), _meant(found)]
        end = found.end()
    return b"".join([*pieces, _encoded(text[end:])])


def _meant(found: re.Match[str]) -> bytes:
    backslash, byte, character = found.groups()
    if backslash:
        return b"\\"
    if byte:
        return bytes([int(byte, 16)])
    code = int(character, 16)
    return chr(code).encode("utf-8", "surrogatepass") if code < 0x110000 else _encoded(found[0])


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
