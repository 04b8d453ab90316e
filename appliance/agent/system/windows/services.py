"""Services and drivers that start by themselves, from Services of the control set.

Numbers of Start: CreateServiceW (Microsoft); the words are those of sc.exe.
"""

from __future__ import annotations

from collections.abc import Iterator

from appliance.agent.regf.hive import Hive
from appliance.agent.regf.record import Key
from appliance.agent.regf.values import values_of
from appliance.system import Service

_STARTS = {0: "boot", 1: "system", 2: "auto"}


def services_of(system: Hive, control_set: Key) -> Iterator[Service]:
    """Those that start at boot; not those that start on demand or are disabled."""
    services = system.find("Services", control_set)
    for key in system.subkeys(services) if services else ():
        values = values_of(system, key)
        number = values.number("Start")
        start = None if number is None else _STARTS.get(number)
        if start == "auto" and values.number("DelayedAutostart") == 1:
            start = "delayed-auto"
        if start:
            yield Service(key.name, start, values.text("ImagePath"))
