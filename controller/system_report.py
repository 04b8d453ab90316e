"""The operating systems of an inspection, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

from appliance.system import Application, Interface, MountEntry, Service, System, User
from controller.columns import pack
from controller.page import Line, Page, room
from controller.sizes import count

_LEAST_PERSON = 1000
"""From this number on accounts are people's on Linux (UID_MIN, login.defs(5))."""
_NO_SHELLS = ("nologin", "false", "sync", "halt", "shutdown")
_SID = "S-1-5-21-"
_INDENT = 2

T = TypeVar("T")
_MAX_SHOWN = 12


def describe_systems(systems: Sequence[System] | None, page: Page) -> list[Line]:
    """A paragraph for each; nothing where nobody asked for them."""
    if systems is None:
        return []
    title = count(len(systems), "operating system")
    lines: list[Line] = [[(title[0].upper() + title[1:], "bold")]]
    for system in systems:
        lines += [[], *_describe(system, page)]
    return [*lines, []]


def _describe(system: System, page: Page) -> list[Line]:
    place = system.root if system.root_path == "/" else f"{system.root}:{system.root_path}"
    name = system.product_name or f"unknown system ({system.name})"
    lines: list[Line] = [[(f"{page.show(place)}  {page.show(name)}", "bold")]]
    for caption, items in _rows(system, page):
        before = f"{' ' * _INDENT}{caption + ':':<15}"
        for index, text in enumerate(pack(items, "; ", room(page, len(before)))):
            lines.append([(before if index == 0 else " " * len(before), "dim"), (text, "")])
    return lines


def _rows(system: System, page: Page) -> list[tuple[str, list[str]]]:
    """Captions, and what stands behind each; what is not known is left out."""
    facts = [
        ("type", _joined(page, system.name, system.distro, system.product_variant)),
        ("version", _joined(page, system.version, system.build_id)),
        ("architecture", _joined(page, system.arch)),
        ("host name", _joined(page, system.hostname, system.domain)),
        ("machine-id", _joined(page, system.machine_id)),
        ("time zone", _joined(page, system.timezone)),
        ("installed", _installed(system, page)),
        ("last boot", _time(system.last_boot)),
        ("last shutdown", _time(system.last_shutdown)),
        ("kernels", [page.show(each) for each in system.kernels]),
        ("system folder", _joined(page, system.windows_systemroot)),
        ("users", _users(system.users, page)),
        ("packages", _packages(system, page)),
        ("services", _services(system.services, page)),
        ("mounts", [_mount(each, page) for each in system.mountpoints]),
        ("drives", [_mount(each, page) for each in system.drive_mappings]),
        ("network", [_interface(each, page) for each in _interfaces(system.interfaces, page)]),
        ("name servers", [page.show(each) for each in system.dns]),
    ]
    return [(caption, items) for caption, items in facts if items]


def _joined(page: Page, *values: str | None) -> list[str]:
    text = ", ".join(page.show(each) for each in values if each)
    return [text] if text else []


def _time(value: int | None) -> list[str]:
    if value is None:
        return []
    try:
        return [datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")]
    except (ValueError, OverflowError, OSError):
        return [f"{value} s since 1970"]


def _installed(system: System, page: Page) -> list[str]:
    times = _time(system.install_date)
    if times and system.install_date_from:
        return [f"{times[0]} ({page.show(system.install_date_from)})"]
    return times


def _users(users: list[User], page: Page) -> list[str]:
    chosen = users if page.verbose else [each for each in users if _is_person(each)]
    shown = [_user(each, page) for each in _first(chosen, page)]
    rest = len(users) - len(shown)
    return [*shown, *([f"{rest} more"] if rest and users else [])]


def _is_person(user: User) -> bool:
    if user.uid.startswith(_SID):
        return True
    if user.uid == "0":
        return True
    has_shell = not (user.shell or "").endswith(_NO_SHELLS)
    return user.uid.isdigit() and int(user.uid[:12]) >= _LEAST_PERSON and has_shell


def _user(user: User, page: Page) -> str:
    facts = [user.uid, user.full_name, user.home, user.shell]
    words = [page.show(each) for each in facts if each]
    if user.locked:
        words.append("locked")
    if user.last_login is not None:
        words.append(f"last login {_time(user.last_login)[0]}")
    return f"{page.show(user.name)} ({', '.join(words)})"


def _packages(system: System, page: Page) -> list[str]:
    if not system.applications and not system.package_format:
        return []
    kind = f" ({page.show(system.package_format)})" if system.package_format else ""
    total = f"{len(system.applications)}{kind}"
    names = [_package(each, page) for each in system.applications] if page.verbose else []
    return [total, *names]


def _package(package: Application, page: Page) -> str:
    epoch = f"{package.epoch}:" if package.epoch else ""
    release = f"-{package.release}" if package.release else ""
    arch = f" {package.arch}" if package.arch else ""
    return page.show(f"{package.name} {epoch}{package.version}{release}{arch}")


def _services(services: list[Service], page: Page) -> list[str]:
    if not services:
        return []
    if not page.verbose:
        return [count(len(services), "service") + " enabled"]
    return [page.show(f"{each.name} ({each.start})") for each in services]


def _mount(entry: MountEntry, page: Page) -> str:
    where = page.show(entry.layer) if entry.layer else "?"
    path = "swap" if entry.type == "swap" else entry.path
    text = f"{page.show(path)} = {where}"
    if page.verbose or not entry.layer:
        text += f" [{page.show(entry.source)}]"
    return text + (f" ({page.show(entry.note)})" if entry.note else "")


def _interfaces(interfaces: list[Interface], page: Page) -> list[Interface]:
    if page.verbose:
        return interfaces
    return _first([each for each in interfaces if each.method != "loopback"], page)


def _interface(interface: Interface, page: Page) -> str:
    parts = [interface.method, *interface.addresses]
    parts += [f"gateway {each}" for each in interface.gateways]
    words = " ".join(page.show(each) for each in parts if each)
    return f"{page.show(interface.name)} {words}".strip()


def _first(items: list[T], page: Page) -> list[T]:
    return items if page.verbose else items[:_MAX_SHOWN]
