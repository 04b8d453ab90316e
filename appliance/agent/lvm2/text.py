"""The configuration syntax that LVM2 keeps its metadata in: parsed, and written again.

The grammar is that of libdm's config parser: `name { … }`, `name = value`, values are integers,
fractions, strings in quotes, and lists of these; `#` begins a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

Scalar: TypeAlias = int | float | str
Value: TypeAlias = "Scalar | list[Scalar] | Section"
Section: TypeAlias = dict[str, "Value"]

MAX_DEPTH = 10
MAX_TOKENS = 1_000_000

_TOKEN = re.compile(
    r'(?:\s|#[^\n]*)*(?:("(?:[^"\\]|\\.)*")|([{}\[\]=,])|([^\s"{}\[\]=,#]+)|(\Z)|(.))', re.DOTALL
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_FRACTION = re.compile(r"[+-]?[0-9]*\.[0-9]+")
_LIMIT = 2**64


class SyntaxProblem(Exception):
    """The text is not what LVM writes."""


def parse(text: bytes) -> Section:
    """Return the sections and values of a metadata text. Raises SyntaxProblem."""
    tokens = _tokens(text.rstrip(b"\0").decode("utf-8", "replace"))
    top: Section = {}
    open_ones = [top]
    for kind, word in tokens:
        if (kind, word) == ("punctuation", "}"):
            if len(open_ones) == 1:
                raise SyntaxProblem("a section is closed that was never opened")
            open_ones.pop()
        elif kind == "punctuation":
            raise SyntaxProblem(f"{word} where a name should be")
        else:
            _statement(_bare(kind, word), tokens, open_ones)
    if len(open_ones) > 1:
        raise SyntaxProblem("the text ends within a section")
    return top


def _statement(name: str, tokens: Iterator[tuple[str, str]], open_ones: list[Section]) -> None:
    """What follows a name: a section that begins, or a value."""
    section = open_ones[-1]
    if name in section:
        raise SyntaxProblem(f"{name[:100]} occurs twice in one section")
    kind, word = _next(tokens)
    if (kind, word) == ("punctuation", "{"):
        if len(open_ones) >= MAX_DEPTH:
            raise SyntaxProblem("sections are nested too deeply")
        new: Section = {}
        section[name] = new
        open_ones.append(new)
    elif (kind, word) == ("punctuation", "="):
        section[name] = _value(tokens)
    else:
        raise SyntaxProblem(f"{name[:100]} is neither a section nor a value")


def _value(tokens: Iterator[tuple[str, str]]) -> Scalar | list[Scalar]:
    kind, word = _next(tokens)
    if (kind, word) != ("punctuation", "["):
        return _scalar(kind, word)
    values: list[Scalar] = []
    while True:
        kind, word = _next(tokens)
        if (kind, word) == ("punctuation", "]"):
            return values
        if (kind, word) != ("punctuation", ","):
            values.append(_scalar(kind, word))


def _scalar(kind: str, word: str) -> Scalar:
    if kind == "word" and _INTEGER.fullmatch(word):
        number = int(word)
        if abs(number) >= _LIMIT:
            raise SyntaxProblem("a number has more than 64 bits")
        return number
    if kind == "word" and _FRACTION.fullmatch(word):
        return float(word)
    return _bare(kind, word)


def _bare(kind: str, word: str) -> str:
    if kind == "string":
        return re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL)
    if kind == "word":
        return word
    raise SyntaxProblem(f"{word} where a value should be")


def _next(tokens: Iterator[tuple[str, str]]) -> tuple[str, str]:
    try:
        return next(tokens)
    except StopIteration:
        raise SyntaxProblem("the text ends in the middle") from None


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for number, found in enumerate(_TOKEN.finditer(text)):
        string, punctuation, word, end, other = found.groups()
        if end is not None:
            return
        if other is not None:
            raise SyntaxProblem("a string does not end")
        if number >= MAX_TOKENS:
            raise SyntaxProblem("the text has too many words")
        if string is not None:
            yield "string", string
        elif punctuation is not None:
            yield "punctuation", punctuation
        else:
            yield "word", word


def written(section: Section) -> bytes:
    """The same as text that LVM reads."""
    return "".join(_lines(section)).encode()


def _lines(section: Section) -> Iterator[str]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield f"{name} {{\n"
            yield from _lines(value)
            yield "}\n"
        elif isinstance(value, list):
            yield f"{name} = [{', '.join(_word(each) for each in value)}]\n"
        else:
            yield f"{name} = {_word(value)}\n"


def _word(value: Scalar) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
