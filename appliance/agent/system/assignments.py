"""Files of assignments as a shell would read them: os-release, sysconfig and their like.

Nothing is expanded or run. os-release(5) has the rules for quotes.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_ASSIGNMENTS = 1000


def parse_assignments(lines: Iterable[str]) -> dict[str, str]:
    """Names and values of `NAME=value` lines; other lines do not count, the last of a name does."""
    found: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name = name.strip()
        if equals and name.replace("_", "a").isalnum():
            found[name] = unquoted(value.strip())
        if len(found) >= MAX_ASSIGNMENTS:
            break
    return found


def unquoted(value: str) -> str:
    """A value as the shell takes it: quotes gone, escapes resolved, no comment behind it."""
    pieces: list[str] = []
    quote = ""
    characters = iter(value)
    for character in characters:
        if character == "\\" and quote != "'":
            pieces.append(next(characters, ""))
        elif character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
        elif not quote and character.isspace():
            break
        else:
            pieces.append(character)
    return "".join(pieces)
