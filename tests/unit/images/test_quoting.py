"""What is escaped, and that it can be undone."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.quoting import shown, unshown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("System Reserved", "System Reserved"),
        ("Übergabe 文件 Ünïcödé", "Übergabe 文件 Ünïcödé"),
        ("C:\\x1b", r"C:\\x1b"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\r\nb\tc\0\x7f", r"a\x0d\x0ab\x09c\x00\x7f"),
        ("\x9b2J", r"\u{9b}2J"),
        ("a\u202eb\u2066c", r"a\u{202e}b\u{2066}c"),
        ("a\u200b\u200d\u2060\ufeff\u00ad", r"a\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}"),
        ("\U000e0041", r"\u{e0041}"),
        ("a\u2028b\u2029", r"a\u{2028}b\u{2029}"),
        ("a\u00a0b\u3000c\u2003", r"a\u{a0}b\u{3000}c\u{2003}"),
        ("a\u3164\u2800\u115f\uffa0", r"a\u{3164}\u{2800}\u{115f}\u{ffa0}"),
        ("a\ufe0f\U000e0100", r"a\u{fe0f}\u{e0100}"),
        ("\ue000\u0378", r"\u{e000}\u{378}"),
        ("e\u0301", "e\u0301"),
        ("\u0301e", r"\u{301}e"),
        ("\n\u0301", r"\x0a\u{301}"),
        ("e\u0301\u0302\u0303\u0304e\u0301", "e\u0301\u0302\\u{303}\\u{304}e\u0301"),
        ("\ud800", r"\u{d800}"),
        (b"a\xff\xc3\xa9", r"a\xffé"),
    ],
)
def test_examples(text: str | bytes, expected: str) -> None:
    assert shown(text) == expected


def restored(text: str) -> str:
    """The other way round."""

    def one(found: re.Match[str]) -> str:
        if found[0] == "\\\\":
            return "\\"
        if found[1]:
            return chr(int(found[1], 16))
        code = int(found[2], 16)
        return chr(code if code < 0x80 else code + 0xDC00)

    return re.sub(r"\\\\|\\u\{([0-9a-f]+)\}|\\x([0-9a-f]{2})", one, text)


@given(st.text(st.characters()))
def test_it_can_be_undone(text: str) -> None:
    assert restored(shown(text)) == text


@given(st.binary())
def test_bytes_can_be_got_back(data: bytes) -> None:
    assert restored(shown(data)).encode("utf-8", "surrogateescape") == data


@given(st.text(st.characters()))
def test_only_what_is_drawn_remains(text: str) -> None:
    for character in shown(text):
        assert character == " " or unicodedata.category(character)[0] in "LMNPS"


@given(st.binary())
def test_unshown_gives_the_bytes_back(data: bytes) -> None:
    assert unshown(shown(data)) == data


@given(st.text(st.sampled_from("\\xu{}0123456789abcdef/:\u202e\udcff")))
def test_unshown_takes_what_is_no_escape_as_it_is(text: str) -> None:
    once = shown(unshown(text))
    assert shown(unshown(once)) == once


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("plain", b"plain"),
        (r"a\x0ab", b"a\nb"),
        (r"\xff\xfe", b"\xff\xfe"),
        (r"back\\slash", b"back\\slash"),
        (r"back\slash", b"back\\slash"),
        (r"\u{202e}", "\u202e".encode()),
        (r"\u{110000}", rb"\u{110000}"),
        ("\udcff", b"\xff"),
    ],
)
def test_unshown(text: str, data: bytes) -> None:
    assert unshown(text) == data
