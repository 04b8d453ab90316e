"""NetworkManager's keyfiles (nm-settings-keyfile(5)). What they hold of passwords is not read."""

from __future__ import annotations

from appliance.agent.system.files import Files, clipped
from appliance.agent.system.network_address import MAX_ADDRESSES, words_of
from appliance.agent.system.root import text_of
from appliance.agent.system.sections import Entry, first, parse_sections
from appliance.system import Interface

_FOLDERS = (
    "etc/NetworkManager/system-connections",
    "usr/lib/NetworkManager/system-connections",
)
_MAX_FILE = 1 << 18
_FAMILIES = ("ipv4", "ipv6")


def read(files: Files) -> list[Interface]:
    """One interface for each connection."""
    found: list[Interface] = []
    for folder in _FOLDERS:
        for name in files.names(folder, 512):
            path = f"{folder}/{name}"
            interface = parse(parse_sections(files.lines(path, _MAX_FILE)), text_of(path))
            if interface:
                found.append(interface)
    return found


def parse(entries: list[Entry], path: str) -> Interface | None:
    """Named by its device, or by the connection where any device fits. None for other files."""
    name = first(entries, "connection", "interface-name") or first(entries, "connection", "id")
    if name is None:
        return None
    methods = [first(entries, family, "method") for family in _FAMILIES]
    lines = [
        words_of(value)
        for section, key, value in entries
        if section in _FAMILIES and _is_numbered(key, "address")
    ]
    gateways = [line[1] for line in lines if len(line) > 1]
    plain = [first(entries, family, "gateway") for family in _FAMILIES]
    dns = [word for family in _FAMILIES for word in words_of(first(entries, family, "dns") or "")]
    mac = next((value for section, key, value in entries if _has_mac(section, key) and value), None)
    return Interface(
        name=name,
        method={"auto": "dhcp", "manual": "static"}.get(methods[0] or "", methods[0]),
        addresses=[line[0] for line in lines if line][:MAX_ADDRESSES],
        gateways=[each for each in [*gateways, *plain] if each][:MAX_ADDRESSES],
        dns=dns[:MAX_ADDRESSES],
        mac=clipped(mac),
        configured_in=path,
    )


def _is_numbered(key: str, word: str) -> bool:
    """address1, address2, …; addresses with several in one is the old form."""
    return key == f"{word}es" or (key.startswith(word) and key.removeprefix(word).isdigit())


def _has_mac(section: str, key: str) -> bool:
    return section in {"ethernet", "wifi", "802-3-ethernet", "802-11-wireless"} and key in {
        "mac-address",
        "cloned-mac-address",
    }
