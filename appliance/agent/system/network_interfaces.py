"""Debian's and Alpine's /etc/network/interfaces (interfaces(5))."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch

from appliance.agent.system.files import Files, clipped
from appliance.agent.system.network_address import MAX_ADDRESSES, with_prefix, words_of
from appliance.agent.system.root import text_of
from appliance.system import Interface

_MAIN = "etc/network/interfaces"
_OTHER = {"auto", "mapping", "source", "source-directory", "rename", "template"}
_MAX_FILES = 100
_MAX_FILE = 1 << 18

Options = list[tuple[str, str]]


def read(files: Files) -> list[Interface]:
    """The stanzas of the main file and of those that it includes."""
    pending = [_MAIN]
    seen: set[str] = set()
    found: list[Interface] = []
    while pending and len(seen) < _MAX_FILES:
        path = pending.pop(0)
        if path not in seen:
            seen.add(path)
            lines = files.lines(path, _MAX_FILE)
            found += parse(lines, text_of(path))
            pending += _included(files, lines)
    if pending:
        files.tell(_MAIN, f"it includes more than {_MAX_FILES} files")
    return found


def parse(lines: Iterable[str], path: str) -> list[Interface]:
    """One interface for each `iface` stanza; two of a name are for IPv4 and IPv6."""
    stanzas: list[tuple[str, str, Options]] = []
    is_inside = False
    for line in _joined(lines):
        words = line.split(None, 3)
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "iface" and len(words) > 1:
            method = words[3].split()[0] if len(words) > 3 else "static"
            stanzas.append((words[1], method, []))
            is_inside = True
        elif words[0] in _OTHER or words[0].startswith(("allow-", "no-")):
            is_inside = False
        elif is_inside and len(words) > 1:
            stanzas[-1][2].append((words[0], line.split(None, 1)[1]))
    return [_interface(name, method, options, path) for name, method, options in stanzas]


def _interface(name: str, method: str, options: Options, path: str) -> Interface:
    values = dict(reversed(options))
    mask = values.get("netmask")
    mac = values.get("hwaddress", "").split()
    return Interface(
        name=name,
        method=clipped(method),
        addresses=[with_prefix(each, mask) for each in _all(options, "address")],
        gateways=_all(options, "gateway"),
        dns=_all(options, "dns-nameservers") + _all(options, "dns-nameserver"),
        mac=mac[-1] if mac else None,
        configured_in=path,
    )


def _all(options: Options, key: str) -> list[str]:
    found = [word for name, value in options if name == key for word in words_of(value)]
    return found[: MAX_ADDRESSES // 2]


def _joined(lines: Iterable[str]) -> list[str]:
    """Lines that end in a backslash go on in the next one."""
    joined: list[str] = []
    is_open = False
    for line in lines:
        text = line.removesuffix("\\")
        if is_open and len(joined[-1]) < 4096:
            joined[-1] = (joined[-1] + " " + text)[:4096]
        else:
            joined.append(text)
        is_open = line.endswith("\\")
    return joined


def _included(files: Files, lines: Iterable[str]) -> list[str]:
    """Files of `source` (with wildcards in the last part) and `source-directory`."""
    found: list[str] = []
    for line in lines:
        words = line.split()
        if len(words) != 2 or words[0] not in {"source", "source-directory"}:
            continue
        target = words[1] if words[1].startswith("/") else f"/etc/network/{words[1]}"
        folder, _, pattern = target.rpartition("/")
        if words[0] == "source-directory":
            folder, pattern = target, "*"
        names = files.names(folder) if any(each in pattern for each in "*?[") else [pattern]
        is_wild = names != [pattern]
        found += [f"{folder}/{name}" for name in names if not is_wild or fnmatch(name, pattern)]
    return found
