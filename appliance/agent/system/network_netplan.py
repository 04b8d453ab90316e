"""Netplan's files (netplan(5)): addresses only; keys of wireless networks are not looked at."""

from __future__ import annotations

from appliance.agent.system.files import Files, clipped
from appliance.agent.system.network_address import MAX_ADDRESSES
from appliance.agent.system.root import text_of
from appliance.agent.system.yaml_subset import Value, YamlError, parse_yaml
from appliance.layer import MAX_TEXT
from appliance.system import Interface

_FOLDER = "etc/netplan"
_MAX_FILE = 1 << 18
_KINDS = ("ethernets", "wifis", "bonds", "bridges", "vlans", "tunnels", "modems", "dummy-devices")
_TRUE = {"true", "yes", "on", "y"}
_DEFAULT = {"default", "0.0.0.0/0", "::/0"}


def read(files: Files) -> list[Interface]:
    """The interfaces of all files; a file that is not understood is told."""
    found: list[Interface] = []
    for name in files.names(_FOLDER, 512):
        if not name.endswith((".yaml", ".yml")):
            continue
        path = f"{_FOLDER}/{name}"
        try:
            found += parse(parse_yaml(files.lines(path, _MAX_FILE)), text_of(path))
        except YamlError as error:
            files.tell(path, f"it is not understood as YAML: {error}")
    return found


def parse(document: Value, path: str) -> list[Interface]:
    """One interface for each entry of the kinds that netplan has."""
    network = _mapping(_mapping(document).get("network"))
    return [
        _interface(name[:MAX_TEXT], _mapping(settings), path)
        for kind in _KINDS
        for name, settings in _mapping(network.get(kind)).items()
    ]


def _interface(name: str, settings: dict[str, Value], path: str) -> Interface:
    addresses = _texts(settings.get("addresses"))
    gateways = [*_texts(settings.get("gateway4")), *_texts(settings.get("gateway6"))]
    routes = settings.get("routes")
    for route in map(_mapping, routes if isinstance(routes, list) else []):
        if _text(route.get("to")) in _DEFAULT:
            gateways += _texts(route.get("via"))
    mac = _text(settings.get("macaddress")) or _text(
        _mapping(settings.get("match")).get("macaddress")
    )
    uses_dhcp = any(_text(settings.get(each)).lower() in _TRUE for each in ("dhcp4", "dhcp6"))
    return Interface(
        name=name,
        method="dhcp" if uses_dhcp else "static" if addresses else None,
        addresses=addresses,
        gateways=gateways[:MAX_ADDRESSES],
        dns=_texts(_mapping(settings.get("nameservers")).get("addresses")),
        mac=clipped(mac),
        configured_in=path,
    )


def _mapping(value: Value | None) -> dict[str, Value]:
    return value if isinstance(value, dict) else {}


def _text(value: Value | None) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def _texts(value: Value | None) -> list[str]:
    """A word, or the words of a list; an address with settings is the only key of a mapping."""
    items = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    found: list[str] = []
    for each in items[:MAX_ADDRESSES]:
        text = next(iter(each), "") if isinstance(each, dict) else _text(each)
        if text:
            found.append(text[:MAX_TEXT])
    return found
