"""Reads FreeBSD, NetBSD and OpenBSD as far as their file systems can be mounted."""

from __future__ import annotations

import re
from contextlib import ExitStack

from appliance.agent.system.assignments import parse_assignments
from appliance.agent.system.attach import attach_all
from appliance.agent.system.candidate import Candidate
from appliance.agent.system.devices import Devices
from appliance.agent.system.elf import architecture
from appliance.agent.system.files import Files, clipped
from appliance.agent.system.fstab import read_fstab
from appliance.agent.system.identity import read_timezone
from appliance.agent.system.network import read_resolver
from appliance.agent.system.network_address import MAX_ADDRESSES, with_prefix
from appliance.agent.system.passwd import parse_passwd
from appliance.system import Interface, Service, System, User

_FREEBSD = re.compile(r'^USERLAND_VERSION="?([^"\n]{1,80})', re.MULTILINE)
_RELEASE = re.compile(r"(NetBSD|OpenBSD) (\d+)\.(\d+)\S*")
_MAX_SCRIPT = 1 << 16
_ON = {"yes", "true", "on", "1"}
_INET = re.compile(r"inet6?\s+(\S{1,64})(?:\s+netmask\s+(\S{1,64}))?")
_VALUE = re.compile(r"ifconfig_([A-Za-z0-9_.]{1,32})")


def recognise(candidate: Candidate) -> System | None:
    """Read the system; None where nothing says that it is one of the three."""
    name, version = _identified(candidate.files)
    if name is None:
        return None
    files = candidate.files
    home = candidate.file_system.volume.address
    with ExitStack() as stack:
        mountpoints = read_fstab(files, Devices(candidate.work.outcome.layers, home))
        attach_all(candidate, mountpoints, stack)
        settings = parse_assignments(files.lines("etc/rc.conf", _MAX_SCRIPT))
        settings |= parse_assignments(files.lines("etc/rc.conf.local", _MAX_SCRIPT))
        servers, domain = read_resolver(files)
        numbers = re.match(r"(\d{1,9})\.(\d{1,9})", version or "")
        return System(
            root=home,
            root_path=candidate.path,
            name=name.lower(),
            distro=name.lower(),
            product_name=clipped(f"{name} {version or ''}"),
            version=version,
            major_version=int(numbers[1]) if numbers else None,
            minor_version=int(numbers[2]) if numbers else None,
            arch=architecture(candidate.root),
            hostname=clipped(settings.get("hostname")) or files.first_line("etc/myname"),
            domain=domain,
            timezone=read_timezone(files),
            dns=servers,
            package_format="pkg" if name == "FreeBSD" else "pkgsrc" if name == "NetBSD" else None,
            users=_users(files),
            services=_services(files, settings),
            mountpoints=mountpoints,
            interfaces=_interfaces(files, settings),
        )


def _identified(files: Files) -> tuple[str | None, str | None]:
    match = _FREEBSD.search(files.text("bin/freebsd-version", _MAX_SCRIPT) or "")
    if match:
        return "FreeBSD", match[1]
    for path in ("etc/release", "etc/motd", "etc/motd-default"):
        found = _RELEASE.search(files.text(path, _MAX_SCRIPT) or "")
        if found:
            return found[1], found[0].partition(" ")[2]
    if not files.root.exists("etc/master.passwd"):
        return None, None
    if files.root.exists("bsd") and files.root.exists("etc/myname"):
        return "OpenBSD", None
    if files.root.exists("netbsd"):
        return "NetBSD", None
    return ("FreeBSD", None) if files.root.exists("boot/kernel/kernel") else (None, None)


def _users(files: Files) -> list[User]:
    """master.passwd(5) has name:password:uid:gid:class:change:expire:gecos:home:shell."""
    locked: dict[str, bool] = {}
    for line in files.lines("etc/master.passwd"):
        fields = line.split(":")
        if len(fields) == 10 and fields[0]:
            locked[fields[0]] = fields[1].startswith("*")
    lines = [re.sub(r"^([^:#]+):\*:", r"\1:x:", line) for line in files.lines("etc/passwd")]
    return files.bounded(parse_passwd(lines, locked), "users")


def _services(files: Files, settings: dict[str, str]) -> list[Service]:
    """Of rc.conf(5): NAME_enable of FreeBSD, NAME=YES of NetBSD, NAME_flags of OpenBSD."""
    found: list[Service] = []
    for key, value in sorted(settings.items()):
        name = key.removesuffix("_enable").removesuffix("_flags")
        is_on = value.lower() in _ON or (key.endswith("_flags") and value.lower() != "no")
        if is_on:
            found.append(Service(name, "rc.conf"))
    return files.bounded(found, "services")


def _interfaces(files: Files, settings: dict[str, str]) -> list[Interface]:
    """ifconfig_NAME of rc.conf, and OpenBSD's and NetBSD's files for each interface."""
    texts = [
        (match[1], value, "etc/rc.conf")
        for key, value in settings.items()
        if (match := _VALUE.fullmatch(key))
    ]
    for prefix in ("hostname.", "ifconfig."):
        for name in files.names("etc"):
            if name.startswith(prefix):
                path = f"etc/{name}"
                texts.append((name.removeprefix(prefix), files.text(path, 4096) or "", path))
    gateways = [settings[key] for key in ("defaultrouter", "defaultroute") if settings.get(key)]
    if line := files.first_line("etc/mygate"):
        gateways.append(line)
    return [_interface(*each, gateways) for each in texts[:1024]]


def _interface(name: str, text: str, path: str, gateways: list[str]) -> Interface:
    uses_dhcp = bool(re.search(r"\b(SYNC)?DHCP\b|\bautoconf\b", text, re.IGNORECASE))
    found = _INET.findall(text)[:MAX_ADDRESSES]
    return Interface(
        name=clipped(name) or "?",
        method="dhcp" if uses_dhcp else "static" if found else None,
        addresses=[with_prefix(address, mask) for address, mask in found],
        gateways=gateways,
        configured_in=path,
    )
