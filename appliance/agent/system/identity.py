"""Host name, machine-id, time zone, and when a system was installed."""

from __future__ import annotations

import calendar
import re
import time

from appliance.agent.system.assignments import parse_assignments
from appliance.agent.system.files import Files, clipped
from appliance.layer import Content
from appliance.system import Application

_NAMES = (
    ("etc/sysconfig/network", "HOSTNAME"),
    ("etc/conf.d/hostname", "hostname"),
    ("etc/rc.conf", "HOSTNAME"),
)
_ZONES = (("etc/sysconfig/clock", ("TIMEZONE", "ZONE")), ("etc/conf.d/clock", ("TIMEZONE",)))
_MAX_ZONE = 1 << 16
_INSTALLERS = (
    "var/log/installer/status",
    "var/log/installer/hardware-summary",
    "var/log/installer",
    "root/anaconda-ks.cfg",
    "var/log/anaconda/anaconda.log",
    "var/log/YaST2/y2start.log",
    "var/lib/YaST2/cookies",
)
"""What installers leave behind and nobody changes later."""

_PACMAN_LOG = "var/log/pacman.log"
_PACMAN_LINE = re.compile(r"\[(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")


def read_hostname(files: Files) -> str | None:
    """The static host name (hostname(5))."""
    for path in ("etc/hostname", "etc/HOSTNAME"):
        if line := files.first_line(path):
            return clipped(line)
    for path, name in _NAMES:
        value = parse_assignments(files.lines(path, _MAX_ZONE)).get(name)
        if value:
            return clipped(value)
    return None


def read_machine_id(files: Files) -> str | None:
    """machine-id(5), or D-Bus' from before it."""
    for path in ("etc/machine-id", "var/lib/dbus/machine-id"):
        line = (files.first_line(path) or "").strip()
        if _MACHINE_ID.fullmatch(line):
            return line
    return None


def read_timezone(files: Files) -> str | None:
    """The zone's name; where only its rules are there, those as POSIX writes them (tzfile(5))."""
    target = files.link("etc/localtime") or ""
    _, found, zone = target.partition("zoneinfo/")
    if found and zone:
        return clipped(zone)
    if line := files.first_line("etc/timezone"):
        return clipped(line)
    for path, names in _ZONES:
        settings = parse_assignments(files.lines(path, _MAX_ZONE))
        for name in names:
            if settings.get(name):
                return clipped(settings[name])
    return parse_tzfile(files.data("etc/localtime", _MAX_ZONE) or b"")


def parse_tzfile(data: bytes) -> str | None:
    """The footer of a file of version 2 and later: the rules between the last two newlines."""
    if not data.startswith(b"TZif") or data[4:5] == b"\0" or not data.endswith(b"\n"):
        return None
    return clipped(data[:-1].rpartition(b"\n")[2].decode("ascii", "replace"))


def read_installed(
    files: Files, content: Content, packages: list[Application]
) -> tuple[int | None, str | None]:
    """When it was installed, and what says so: the first of these that is there."""
    for path in _INSTALLERS:
        if changed := files.changed(path):
            return changed, f"when /{path} was changed last"
    with files.opened(_PACMAN_LOG) as log:
        if log and (time_of_log := parse_pacman_log(log.read(1024))):
            return time_of_log, f"the first line of /{_PACMAN_LOG}"
    times = [each.install_date for each in packages if each.install_date]
    if times:
        return min(times), "the package that was installed first"
    if content.ext and content.ext.created:
        return content.ext.created, "when the file system was made"
    if changed := files.changed("etc/machine-id"):
        return changed, "when /etc/machine-id was changed last"
    return None, None


def parse_pacman_log(data: bytes) -> int | None:
    """The time of the first line, taken as UTC where it names no zone."""
    match = _PACMAN_LINE.match(data.decode("utf-8", "replace"))
    if not match:
        return None
    try:
        return calendar.timegm(time.strptime(" ".join(match.groups()), "%Y-%m-%d %H:%M"))
    except (ValueError, OverflowError):
        return None
