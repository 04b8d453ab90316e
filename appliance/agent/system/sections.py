"""Files of sections in brackets: systemd's units, NetworkManager's keyfiles.

systemd.syntax(7); nm-settings-keyfile(5).
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_ENTRIES = 2000

Entry = tuple[str, str, str]
"""Section, key, value."""


def parse_sections(lines: Iterable[str]) -> list[Entry]:
    """Every `key=value` with the section that it is in, in the order of the file."""
    found: list[Entry] = []
    section = ""
    for line in lines:
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            section = text[1:-1]
        elif text and text[0] not in "#;":
            key, equals, value = text.partition("=")
            if equals:
                found.append((section, key.strip(), value.strip()))
        if len(found) >= MAX_ENTRIES:
            break
    return found


def values(entries: Iterable[Entry], section: str, key: str) -> list[str]:
    """All values of a key, in any section of that name."""
    return [value for each, name, value in entries if each == section and name == key]


def first(entries: Iterable[Entry], section: str, key: str) -> str | None:
    """The first of them that says anything."""
    return next((value for value in values(entries, section, key) if value), None)
