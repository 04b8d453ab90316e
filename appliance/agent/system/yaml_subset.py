"""The part of YAML that netplan files are written in: mappings, lists and words, by indentation.

No anchors, tags, documents or texts of several lines; a file with these is refused as a whole,
which is told. Everything stays text. YAML 1.2, chapters 7 and 8.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_LINES = 5000
_MAX_DEPTH = 20

Value = str | list["Value"] | dict[str, "Value"]

_UNSUPPORTED = ("&", "*", "!", "|", ">", "%", "@", "`")


class YamlError(ValueError):
    """It is not YAML, or more of it than is understood here."""


@dataclass(frozen=True, slots=True)
class _Line:
    indent: int
    text: str


def parse_yaml(lines: Iterable[str]) -> Value:
    """The document. Raises YamlError."""
    rows: list[_Line] = []
    for line in lines:
        text = _uncommented(line)
        if not text.strip() or text.startswith(("---", "...")):
            continue
        if "\t" in text[: len(text) - len(text.lstrip())]:
            raise YamlError("a tab is used to indent")
        rows.append(_Line(len(text) - len(text.lstrip(" ")), text.strip()))
        if len(rows) > MAX_LINES:
            raise YamlError(f"it has more than {MAX_LINES} lines")
    if not rows:
        return {}
    value, end = _block(rows, 0, rows[0].indent, 0)
    if end != len(rows):
        raise YamlError(f"a line is indented oddly: {rows[end].text[:40]}")
    return value


def _block(rows: list[_Line], at: int, indent: int, depth: int) -> tuple[Value, int]:
    if depth > _MAX_DEPTH:
        raise YamlError("it is nested too deeply")
    if rows[at].text.startswith("- ") or rows[at].text == "-":
        return _list(rows, at, indent, depth)
    return _mapping(rows, at, indent, depth)


def _mapping(rows: list[_Line], at: int, indent: int, depth: int) -> tuple[Value, int]:
    found: dict[str, Value] = {}
    while at < len(rows) and rows[at].indent == indent and not rows[at].text.startswith("- "):
        entry = _entry(rows[at].text)
        if not entry:
            raise YamlError(f"not understood: {rows[at].text[:40]}")
        key, rest = entry
        if rest:
            found[key], at = _scalar(rest, 0), at + 1
        else:
            found[key], at = _below(rows, at + 1, indent, depth)
    return found, at


def _below(rows: list[_Line], at: int, indent: int, depth: int) -> tuple[Value, int]:
    """What belongs to a key without a value on its line; a list may stand as far left as it."""
    if at < len(rows) and rows[at].indent > indent:
        return _block(rows, at, rows[at].indent, depth + 1)
    if at < len(rows) and rows[at].indent == indent and rows[at].text.startswith("- "):
        return _list(rows, at, indent, depth + 1)
    return "", at


def _list(rows: list[_Line], at: int, indent: int, depth: int) -> tuple[Value, int]:
    found: list[Value] = []
    while at < len(rows) and rows[at].indent == indent and rows[at].text[:2] in {"- ", "-"}:
        rest = rows[at].text[1:].lstrip()
        if not rest:
            item, at = _below(rows, at + 1, indent, depth)
        elif _entry(rest) or rest.startswith("- "):
            # What stands behind the dash begins a block of its own, indented by so much.
            inner = indent + len(rows[at].text) - len(rest)
            rows[at] = _Line(inner, rest)
            item, at = _block(rows, at, inner, depth + 1)
        else:
            item, at = _scalar(rest, 0), at + 1
        found.append(item)
    return found, at


def _entry(text: str) -> tuple[str, str] | None:
    """Key and value of `key: value`, the value empty where it is below."""
    if text[0] in "\"'":
        end = text.find(text[0], 1)
        key, rest = text[1:end], text[end + 1 :].lstrip()
        if end < 0 or not rest.startswith(":"):
            return None
        rest = rest[1:]
        return (key, rest.strip()) if not rest or rest[0].isspace() else None
    if text.startswith((*_UNSUPPORTED, "[", "{", "]", "}", ",")):
        return None
    key, colon, rest = text.partition(": ")
    if colon:
        return key.rstrip(), rest.strip()
    return (text[:-1].rstrip(), "") if text.endswith(":") else None


def _scalar(text: str, depth: int) -> Value:
    if text.startswith(_UNSUPPORTED):
        raise YamlError(f"not understood: {text[:40]}")
    if text.startswith(("[", "{")):
        if text[-1] != {"[": "]", "{": "}"}[text[0]] or depth > _MAX_DEPTH:
            raise YamlError(f"a list is not closed on its line: {text[:40]}")
        return _flow(text, depth)
    return _unquoted(text)


def _flow(text: str, depth: int) -> Value:
    items = [each.strip() for each in _split(text[1:-1])]
    if text[0] == "[":
        return [_scalar(each, depth + 1) for each in items if each]
    pairs = (each.partition(":") for each in items if each)
    return {
        _unquoted(key.strip()): _scalar(rest.strip() or "''", depth + 1) for key, _, rest in pairs
    }


def _split(text: str) -> list[str]:
    """At commas that are neither quoted nor in brackets."""
    items = [""]
    level = 0
    quote = ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            level += 1
        elif character in "]}":
            level -= 1
        elif character == "," and level == 0:
            items.append("")
            continue
        items[-1] += character
    return items


def _uncommented(line: str) -> str:
    quote = ""
    for index, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#" and (index == 0 or line[index - 1].isspace()):
            return line[:index].rstrip()
    return line.rstrip()


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
