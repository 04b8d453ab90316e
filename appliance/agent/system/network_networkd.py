"""systemd-networkd's .network files (systemd.network(5))."""

from __future__ import annotations

from appliance.agent.system.files import Files, clipped
from appliance.agent.system.network_address import MAX_ADDRESSES, words_of
from appliance.agent.system.root import text_of
from appliance.agent.system.sections import Entry, first, parse_sections, values
from appliance.system import Interface

_FOLDER = "etc/systemd/network"
_MAX_FILE = 1 << 18


def read(files: Files) -> list[Interface]:
    """One interface for each file; those of the vendor below /usr only set defaults."""
    return [
        parse(
            parse_sections(files.lines(f"{_FOLDER}/{name}", _MAX_FILE)),
            f"{_FOLDER}/{text_of(name)}",
        )
        for name in files.names(_FOLDER, 512)
        if name.endswith(".network")
    ]


def parse(entries: list[Entry], path: str) -> Interface:
    """Named as it is matched: a name, a pattern, or a MAC address."""
    mac = first(entries, "Match", "MACAddress") or first(entries, "Match", "PermanentMACAddress")
    addresses = values(entries, "Network", "Address") + values(entries, "Address", "Address")
    gateways = values(entries, "Network", "Gateway") + values(entries, "Route", "Gateway")
    dns = [word for value in values(entries, "Network", "DNS") for word in words_of(value)]
    uses_dhcp = (first(entries, "Network", "DHCP") or "no").lower() not in {"no", "false", "0"}
    return Interface(
        name=first(entries, "Match", "Name") or mac or "*",
        method="dhcp" if uses_dhcp else "static" if addresses else None,
        addresses=addresses[:MAX_ADDRESSES],
        gateways=gateways[:MAX_ADDRESSES],
        dns=dns[:MAX_ADDRESSES],
        mac=clipped(mac or first(entries, "Link", "MACAddress")),
        configured_in=path,
    )
