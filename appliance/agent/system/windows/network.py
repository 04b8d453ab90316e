"""Network interfaces of the control set: what was configured, or leased last by DHCP (IPv4)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError

from appliance.agent.regf.hive import Hive
from appliance.agent.regf.record import Key
from appliance.agent.regf.values import Values, values_at, values_of
from appliance.system import Interface

_INTERFACES = "Services\\Tcpip\\Parameters\\Interfaces"
_CONNECTIONS = "Control\\Network\\{4D36E972-E325-11CE-BFC1-08002BE10318}"
"""GUID_DEVCLASS_NET (devguid.h)."""
_LONGEST = 64
"""Characters of an address; also IPv6 has fewer."""
_MOST = 256
_NOTHING = {"0.0.0.0", "255.255.255.255"}  # noqa: S104 - what Windows writes for "none"


def interfaces_of(system: Hive, control_set: Key) -> Iterator[Interface]:
    """Those that have a name or an address; the loopback's and tunnels' empty keys do not."""
    interfaces = system.find(_INTERFACES, control_set)
    for key in system.subkeys(interfaces) if interfaces else ():
        values = values_of(system, key)
        connection = values_at(system, f"{_CONNECTIONS}\\{key.name}\\Connection", control_set)
        name = connection.text("Name")
        where = f"SYSTEM\\{control_set.name}\\{_INTERFACES}\\{key.name}"
        interface = _interface(name or key.name, values, where)
        if name or interface.addresses:
            yield interface


def _interface(name: str, values: Values, where: str) -> Interface:
    uses_dhcp = values.number("EnableDHCP") == 1
    prefix = "Dhcp" if uses_dhcp else ""
    addresses = _words(values, f"{prefix}IPAddress")
    masks = _words(values, f"{prefix}SubnetMask")
    return Interface(
        name=name,
        method="dhcp" if uses_dhcp else "static",
        addresses=[
            _with_prefix(address, masks[index] if index < len(masks) else None)
            for index, address in enumerate(addresses)
        ],
        gateways=_words(values, f"{prefix}DefaultGateway"),
        # A server that was entered by hand counts before what DHCP says.
        dns=_words(values, "NameServer") or _words(values, f"{prefix}NameServer"),
        configured_in=where,
    )


def _words(values: Values, name: str) -> list[str]:
    """Lists are REG_MULTI_SZ, or one text with commas or spaces between."""
    words = [word for text in values.texts(name) for word in re.split(r"[\s,;]+", text)]
    return [word[:_LONGEST] for word in words if word and word not in _NOTHING][:_MOST]


def _with_prefix(address: str, mask: str | None) -> str:
    try:
        return f"{address}/{IPv4Network(f'0.0.0.0/{mask}').prefixlen}" if mask else address
    except (AddressValueError, NetmaskValueError):
        return f"{address}/{mask}"
