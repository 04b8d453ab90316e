"""ifcfg files of Red Hat (sysconfig.txt of initscripts) and SUSE (ifcfg(5)), and wicked's XML."""

from __future__ import annotations

import re

from appliance.agent.system.assignments import parse_assignments
from appliance.agent.system.files import Files, clipped
from appliance.agent.system.network_address import MAX_ADDRESSES, with_prefix, words_of
from appliance.agent.system.root import text_of
from appliance.system import Interface

_FOLDERS = ("etc/sysconfig/network-scripts", "etc/sysconfig/network")
_WICKED = "etc/wicked/ifconfig"
_MAX_FILE = 1 << 18
_IGNORED = (".bak", ".orig", ".rpmnew", ".rpmsave", ".rpmorig", "~", "template")
_STATIC = {"none", "static", ""}
_NAME = re.compile(r"<name>([^<]{1,255})</name>")


def read(files: Files) -> list[Interface]:
    """One interface for each file, without the loopback."""
    found: list[Interface] = []
    for folder in _FOLDERS:
        for name in files.names(folder):
            short = text_of(name)
            if short.startswith("ifcfg-") and short != "ifcfg-lo" and not short.endswith(_IGNORED):
                lines = files.lines(f"{folder}/{name}", _MAX_FILE)
                settings = parse_assignments(lines)
                found.append(parse(settings, short.removeprefix("ifcfg-"), f"{folder}/{short}"))
    return [*found, *_wicked(files)]


def parse(settings: dict[str, str], name: str, path: str) -> Interface:
    """`name` is the file's, which a DEVICE in it overrides."""
    method = settings.get("BOOTPROTO", "").lower()
    addresses = [
        with_prefix(value, _mask(settings, key.removeprefix("IPADDR")))
        for key, value in settings.items()
        if key.startswith("IPADDR") and value
    ]
    addresses += words_of(settings.get("IPV6ADDR", ""))
    gateways = [value for key, value in settings.items() if key.startswith("GATEWAY") and value]
    dns = [value for key, value in settings.items() if re.fullmatch(r"DNS\d", key) and value]
    mac = settings.get("HWADDR") or settings.get("MACADDR") or settings.get("LLADDR")
    return Interface(
        name=settings.get("DEVICE") or name,
        method=clipped("static" if method in _STATIC and addresses else method),
        addresses=addresses[:MAX_ADDRESSES],
        gateways=gateways[:MAX_ADDRESSES],
        dns=dns[:MAX_ADDRESSES],
        mac=clipped(mac),
        configured_in=path,
    )


def _mask(settings: dict[str, str], number: str) -> str | None:
    """Red Hat's PREFIX0, SUSE's PREFIXLEN, or a NETMASK."""
    keys = (f"PREFIX{number}", f"PREFIXLEN{number}", f"PREFIXLEN_{number}", f"NETMASK{number}")
    return next((settings[each] for each in keys if settings.get(each)), None)


def _wicked(files: Files) -> list[Interface]:
    """Only which interfaces there are: SUSE writes ifcfg files, this is the rare other way."""
    found: list[Interface] = []
    for name in files.names(_WICKED, 512):
        if name.endswith(".xml"):
            path = f"{_WICKED}/{name}"
            names = _NAME.findall(files.text(path, _MAX_FILE) or "")[:MAX_ADDRESSES]
            found += [Interface(each, configured_in=text_of(path)) for each in names]
    return found
