"""Installed programs, from the keys that "Programs and Features" lists ("Uninstall Registry Key",
Microsoft). Programs that single users have installed for themselves are in their own hives, which
are not read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from appliance.agent.regf.hive import Hive
from appliance.agent.regf.values import values_of
from appliance.system import Application

_UNINSTALL = "Microsoft\\Windows\\CurrentVersion\\Uninstall"


def programs_of(software: Hive, arch: str | None) -> Iterator[Application]:
    """Those of the system's own architecture `arch`, then those for 32 bits."""
    yield from _listed(software, _UNINSTALL, arch)
    yield from _listed(software, f"Wow6432Node\\{_UNINSTALL}", "i386")


def _listed(software: Hive, path: str, arch: str | None) -> Iterator[Application]:
    uninstall = software.find(path)
    for key in software.subkeys(uninstall) if uninstall else ():
        values = values_of(software, key)
        name = values.text("DisplayName")
        if name is None:  # updates and components, which have no name of their own
            continue
        yield Application(
            name=key.name,
            version=values.text("DisplayVersion") or "",
            arch=arch,
            display_name=name,
            publisher=values.text("Publisher"),
            install_path=values.text("InstallLocation"),
            install_date=_date(values.text("InstallDate") or ""),
        )


def _date(text: str) -> int | None:
    """Midnight UTC of YYYYMMDD; None for what is no date."""
    if len(text) != 8 or not text.isascii() or not text.isdigit():
        return None
    try:
        day = datetime(int(text[:4]), int(text[4:6]), int(text[6:]), tzinfo=UTC)
    except ValueError:
        return None
    return int(day.timestamp())
