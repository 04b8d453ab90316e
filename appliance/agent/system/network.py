"""How a system's network is configured, by every tool that may have done it."""

from __future__ import annotations

from appliance.agent.system import (
    network_ifcfg,
    network_interfaces,
    network_manager,
    network_netplan,
    network_networkd,
)
from appliance.agent.system.files import Files
from appliance.system import Interface

_READERS = (
    network_interfaces.read,
    network_netplan.read,
    network_manager.read,
    network_networkd.read,
    network_ifcfg.read,
)
_MAX_INTERFACES = 1024


def read_interfaces(files: Files) -> list[Interface]:
    """What each tool's files say; several may speak of one interface."""
    found = [interface for read in _READERS for interface in read(files)]
    return files.bounded(found, "network interfaces", _MAX_INTERFACES)


def read_resolver(files: Files) -> tuple[list[str], str | None]:
    """Name servers and domain of resolv.conf(5)."""
    servers: list[str] = []
    domain: str | None = None
    for line in files.lines("etc/resolv.conf", 1 << 16):
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and len(servers) < 16:
            servers.append(words[1][:255])
        elif words[0] in {"domain", "search"}:
            domain = words[1]
    return servers, domain
