"""The machine's own settings, from the current control set of the SYSTEM hive."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.agent.regf.hive import Hive
from appliance.agent.regf.record import Key
from appliance.agent.regf.values import values_at

_ARCHITECTURES = {
    "AMD64": "x86_64",
    "X86": "i386",
    "ARM64": "aarch64",
    "ARM": "arm",
    "IA64": "ia64",
}
_VARIANTS = {"WINNT": "Client", "SERVERNT": "Server", "LANMANNT": "Server"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What is called so in appliance.system.System."""

    hostname: str | None
    domain: str | None
    timezone: str | None
    last_shutdown: int | None
    arch: str | None
    variant: str | None


def control_set_of(system: Hive) -> Key | None:
    """The control set that was in use; where Select names none that is there, the next best."""
    select = values_at(system, "Select")
    for name in ("Current", "Default", "LastKnownGood"):
        number = select.number(name)
        if number and (key := system.find(f"ControlSet{number:03}")):
            return key
    return system.find("ControlSet001")


def machine_of(system: Hive, control_set: Key) -> Machine:
    """The facts of a control set."""
    control = "Control\\"
    network = values_at(system, "Services\\Tcpip\\Parameters", control_set)
    computer = values_at(system, control + "ComputerName\\ComputerName", control_set)
    processor = values_at(system, control + "Session Manager\\Environment", control_set)
    options = values_at(system, control + "ProductOptions", control_set)
    windows = values_at(system, control + "Windows", control_set)
    architecture = processor.text("PROCESSOR_ARCHITECTURE") or ""
    return Machine(
        hostname=network.text("Hostname")
        or network.text("NV Hostname")
        or computer.text("ComputerName"),
        domain=network.text("Domain") or network.text("NV Domain"),
        timezone=_timezone_of(system, control_set),
        last_shutdown=windows.filetime("ShutdownTime"),
        arch=_ARCHITECTURES.get(architecture.upper()),
        variant=_VARIANTS.get((options.text("ProductType") or "").upper()),
    )


def _timezone_of(system: Hive, control_set: Key) -> str | None:
    """Windows' name of the zone (Vista and later); otherwise the standard offset from UTC.

    DYNAMIC_TIME_ZONE_INFORMATION (Microsoft): UTC = local time + Bias, in minutes.
    """
    zone = values_at(system, "Control\\TimeZoneInformation", control_set)
    name = zone.text("TimeZoneKeyName") or zone.text("StandardName")
    if name and not name.startswith("@"):  # "@tzres.dll,-322" is a text in a library
        return name
    bias = zone.number("Bias")
    if bias is None:
        return None
    minutes = -(bias - (bias >> 31 << 32))
    if abs(minutes) > 24 * 60:
        return None
    return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
