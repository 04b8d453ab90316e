"""Reads a Linux system: puts together what the modules for its files find."""

from __future__ import annotations

from contextlib import ExitStack

from appliance.agent.system.assignments import unquoted
from appliance.agent.system.attach import attach_all
from appliance.agent.system.candidate import Candidate
from appliance.agent.system.devices import Devices
from appliance.agent.system.elf import architecture
from appliance.agent.system.fstab import read_fstab
from appliance.agent.system.identity import (
    read_hostname,
    read_installed,
    read_machine_id,
    read_timezone,
)
from appliance.agent.system.kernels import read_kernels
from appliance.agent.system.logins import read_history, with_last_login
from appliance.agent.system.network import read_interfaces, read_resolver
from appliance.agent.system.packages import read_packages
from appliance.agent.system.passwd import read_users
from appliance.agent.system.release import Release, read_release
from appliance.agent.system.services import read_services
from appliance.system import MountEntry, System

_BSD = ("bin/freebsd-version", "etc/master.passwd", "etc/pwd.db")


def recognise(candidate: Candidate) -> System | None:
    """Read the system; None where nothing says that it is a Linux."""
    if any(map(candidate.root.exists, _BSD)):
        return None
    files = candidate.files
    with ExitStack() as stack:
        mountpoints = read_fstab(files, devices_of(candidate))
        attach_all(candidate, mountpoints, stack)
        release = read_release(files)
        if release is None and not candidate.root.exists("lib/modules"):
            return None
        return _system(candidate, release or Release(), mountpoints)


def devices_of(candidate: Candidate) -> Devices:
    """The names of devices, with those that crypttab(5) and mdadm.conf(5) give."""
    home = candidate.file_system.volume.address
    files, layers = candidate.files, candidate.work.outcome.layers
    crypttab: dict[str, str] = {}
    for line in files.lines("etc/crypttab"):
        words = line.split()
        if len(words) > 1 and not words[0].startswith("#"):
            crypttab[words[0]] = words[1]
    arrays: dict[str, str] = {}
    for path in ("etc/mdadm.conf", "etc/mdadm/mdadm.conf"):
        for line in files.lines(path):
            words = line.split()
            if len(words) > 1 and words[0] == "ARRAY":
                uuids = [each[5:] for each in words[2:] if each.upper().startswith("UUID=")]
                arrays[words[1]] = unquoted("".join(uuids[:1]))
    return Devices(layers, home, crypttab, arrays)


def _system(candidate: Candidate, release: Release, mountpoints: list[MountEntry]) -> System:
    files = candidate.files
    arch = architecture(candidate.root)
    expected, tool = release.packages
    package_format, applications = read_packages(files, expected)
    history = read_history(files, arch)
    users = read_users(files)
    with_last_login(users, history, files, arch)
    installed, installed_from = read_installed(files, candidate.file_system.content, applications)
    servers, domain = read_resolver(files)
    major, minor = release.numbers
    return System(
        root=candidate.file_system.volume.address,
        root_path=candidate.path,
        name="linux",
        distro=release.distro,
        product_name=release.product_name,
        product_variant=release.variant,
        version=release.version,
        major_version=major,
        minor_version=minor,
        build_id=release.build_id,
        arch=arch,
        hostname=read_hostname(files),
        domain=domain,
        machine_id=read_machine_id(files),
        timezone=read_timezone(files),
        install_date=installed,
        install_date_from=installed_from,
        last_boot=history.last_boot,
        last_shutdown=history.last_shutdown,
        kernels=read_kernels(files),
        dns=servers,
        package_format=package_format,
        package_management=tool or _TOOLS.get(package_format or ""),
        users=users,
        services=read_services(files),
        mountpoints=mountpoints,
        interfaces=read_interfaces(files),
        applications=applications,
    )


_TOOLS = {"deb": "apt", "rpm": "dnf", "apk": "apk", "pacman": "pacman", "ebuild": "portage"}
"""Where the distribution is not known."""
