"""What a system starts by itself: systemd.unit(5), init-d-script(5), openrc(8), init(5)."""

from __future__ import annotations

import re

from appliance.agent.system.files import Files, clipped
from appliance.agent.system.root import text_of
from appliance.agent.system.sections import first, parse_sections
from appliance.layer import MAX_TEXT
from appliance.system import Service

_UNITS = "etc/systemd/system"
_USER_UNITS = "etc/systemd/user"
_VENDOR = ("usr/lib/systemd/system", "lib/systemd/system")
_PULLS = (".wants", ".requires")
_MAX_UNIT = 1 << 16
_RUN_LEVELS = "0123456S"
_SCRIPT = re.compile(r"S\d{2}(.+)")


def read_services(files: Files) -> list[Service]:
    """All that is enabled, sorted by name."""
    units = [*_units(files, _UNITS, ""), *_units(files, _USER_UNITS, "user ")]
    found = [*units, *_scripts(files), *_openrc(files), *_upstart(files)]
    return files.bounded(sorted(found, key=lambda each: (each.name, each.start)), "services")


def _units(files: Files, folder: str, who: str) -> list[Service]:
    """Links in NAME.target.wants: what `systemctl enable` makes."""
    found: list[Service] = []
    for name in files.names(folder):
        if name.endswith(_PULLS):
            for unit in files.names(f"{folder}/{name}"):
                command = _command(files, f"{folder}/{name}/{unit}")
                start = who + text_of(name).rpartition(".")[0]
                found.append(Service(text_of(unit), start, command))
    return found


def _command(files: Files, path: str) -> str | None:
    """The unit's ExecStart, without the signs before the program."""
    if not path.endswith((".service", ".socket")):
        return None
    entries = parse_sections(files.lines(path, _MAX_UNIT))
    command = first(entries, "Service", "ExecStart")
    return clipped(command.lstrip("@-:+!|")) if command else None


def _scripts(files: Files) -> list[Service]:
    """SNNname in rcN.d, where systemd has no unit of that name, which it would prefer."""
    levels: dict[str, str] = {}
    for level in _RUN_LEVELS:
        for folder in (f"etc/rc{level}.d", f"etc/rc.d/rc{level}.d", f"etc/init.d/rc{level}.d"):
            for name in files.names(folder):
                match = _SCRIPT.fullmatch(text_of(name))
                if match and level not in levels.get(match[1], ""):
                    levels[match[1]] = levels.get(match[1], "") + level
    return [
        Service(name[:MAX_TEXT], f"runlevels {' '.join(each)}", f"/etc/init.d/{name}"[:MAX_TEXT])
        for name, each in levels.items()
        if set(each) - set("06") and not _has_unit(files, name)
    ]


def _has_unit(files: Files, script: str) -> bool:
    return any(files.root.exists(f"{each}/{script}.service") for each in (*_VENDOR, _UNITS))


def _openrc(files: Files) -> list[Service]:
    return [
        Service(text_of(name), text_of(level), f"/etc/init.d/{text_of(name)}")
        for level in files.names("etc/runlevels")
        for name in files.names(f"etc/runlevels/{level}")
    ]


def _upstart(files: Files) -> list[Service]:
    names = [name for name in files.names("etc/init") if name.endswith(".conf")]
    return [
        Service(text_of(name).removesuffix(".conf"), "upstart")
        for name in names
        if any(line.startswith("start on") for line in files.lines(f"etc/init/{name}", _MAX_UNIT))
    ]
