"""The words for an operating system that was found on disks, shared by agent and host.

Names are those of virt-inspector (guestfs-tools, virt-inspector.rng) and of dissect's target-info
where they have one. Times are seconds since the epoch. Everything here is also JSON
(docs/reference/os.md), and is decoded from a hostile guest, so every constructor checks its bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.layer import MAX_BYTES, check_bytes, check_list, check_text

MAX_SYSTEMS = 64
"""Operating systems in one run."""

MAX_APPLICATIONS = 50000
"""Packages and programs of one system."""


@dataclass(frozen=True, slots=True)
class Application:
    """An installed package or program."""

    name: str
    version: str
    release: str | None = None
    epoch: str | None = None
    arch: str | None = None
    display_name: str | None = None
    publisher: str | None = None
    install_path: str | None = None
    install_date: int | None = None

    def __post_init__(self) -> None:
        check_text(self.name, self.version, self.release, self.epoch, self.arch)
        check_text(self.display_name, self.publisher, self.install_path)
        check_time(self.install_date)


@dataclass(frozen=True, slots=True)
class User:
    """An account. `uid` is a number on Unix, a SID on Windows."""

    name: str
    uid: str
    gid: str | None = None
    full_name: str | None = None
    home: str | None = None
    shell: str | None = None
    last_login: int | None = None
    locked: bool | None = None

    def __post_init__(self) -> None:
        check_text(self.name, self.uid, self.gid, self.full_name, self.home, self.shell)
        check_time(self.last_login)


@dataclass(frozen=True, slots=True)
class Service:
    """What starts by itself; `start` is systemd's target, a runlevel, or Windows' start type."""

    name: str
    start: str
    command: str | None = None

    def __post_init__(self) -> None:
        check_text(self.name, self.start, self.command)


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of fstab or a drive letter, and the `layer` that it means (None: none is here).

    `note` says how sure that is, or why there is none.
    """

    source: str
    path: str
    type: str | None = None
    options: str | None = None
    layer: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        check_text(self.source, self.path, self.type, self.options, self.layer)
        check_text(self.note)


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface as it is configured; `method` is dhcp, static or what the system says."""

    name: str
    method: str | None = None
    addresses: list[str] = field(default_factory=list)
    gateways: list[str] = field(default_factory=list)
    dns: list[str] = field(default_factory=list)
    mac: str | None = None
    configured_in: str | None = None

    def __post_init__(self) -> None:
        check_text(self.name, self.method, self.mac, self.configured_in)
        for each in (self.addresses, self.gateways, self.dns):
            check_list(each)
            check_text(*each)


@dataclass(frozen=True, slots=True)
class System:
    """An operating system. `root` is the address of the layer that its root file system is on,
    and `root_path` where the system's root lies in it: "/" but for subvolumes and the like.

    `install_date_from` names what says so. `name` is the family: linux, windows, freebsd, netbsd,
    openbsd, macos, hurd, dos, unknown.
    """

    root: str
    root_path: str
    name: str
    distro: str | None = None
    product_name: str | None = None
    product_variant: str | None = None
    version: str | None = None
    major_version: int | None = None
    minor_version: int | None = None
    build_id: str | None = None
    arch: str | None = None
    hostname: str | None = None
    domain: str | None = None
    machine_id: str | None = None
    timezone: str | None = None
    install_date: int | None = None
    install_date_from: str | None = None
    last_boot: int | None = None
    last_shutdown: int | None = None
    kernels: list[str] = field(default_factory=list)
    dns: list[str] = field(default_factory=list)
    package_format: str | None = None
    package_management: str | None = None
    windows_systemroot: str | None = None
    windows_current_control_set: str | None = None
    users: list[User] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    mountpoints: list[MountEntry] = field(default_factory=list)
    drive_mappings: list[MountEntry] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)
    applications: list[Application] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_text(
            self.root,
            self.root_path,
            self.name,
            self.distro,
            self.product_name,
            self.product_variant,
        )
        check_text(self.version, self.build_id, self.arch, self.hostname, self.domain)
        check_text(self.machine_id, self.timezone, self.package_format, self.package_management)
        check_text(self.windows_systemroot, self.windows_current_control_set, *self.kernels)
        check_text(self.install_date_from, *self.dns)
        check_bytes(self.major_version, self.minor_version)
        check_time(self.install_date, self.last_boot, self.last_shutdown)
        for each in (self.kernels, self.dns, self.users, self.services, self.mountpoints):
            check_list(each)
        for others in (self.drive_mappings, self.interfaces):
            check_list(others)
        if len(self.applications) > MAX_APPLICATIONS:
            raise ValueError(f"there are more than {MAX_APPLICATIONS} applications")


def check_time(*values: int | None) -> None:
    """Raise ValueError for a time beyond 64 bits; before 1970 is possible."""
    if any(value is not None and not -MAX_BYTES <= value <= MAX_BYTES for value in values):
        raise ValueError("a time has more than 64 bits")
