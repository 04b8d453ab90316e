"""Recognises Windows NT and its successors at the root of a file system, and reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from itertools import islice

from appliance.agent.regf.hive import Hive
from appliance.agent.system.candidate import Candidate
from appliance.agent.system.files import Files
from appliance.agent.system.root import text_of
from appliance.agent.system.windows.accounts import users_of
from appliance.agent.system.windows.drives import drives_of
from appliance.agent.system.windows.hibernation import tell_hibernation
from appliance.agent.system.windows.hives import opened_hive
from appliance.agent.system.windows.machine import control_set_of, machine_of
from appliance.agent.system.windows.network import interfaces_of
from appliance.agent.system.windows.product import architecture_of, product_of
from appliance.agent.system.windows.programs import programs_of
from appliance.agent.system.windows.services import services_of
from appliance.agent.system.windows.win9x import read_win9x
from appliance.layer import MAX_TEXT
from appliance.system import MAX_APPLICATIONS, System

_NAMES = {"windows", "winnt", "win", "reactos"}
_PREVIOUS = "windows.old"
"""Where an upgrade puts the Windows that was there before; a second one is Windows.old.000."""
_SYSTEM = "the registry's SYSTEM"
_MAX_ROOTS = 8
_SECONDS = 180


@dataclass(frozen=True, slots=True)
class _Place:
    """A Windows: `root` is "" or the folder that its root was moved to, `folder` is in that."""

    root: str
    folder: str

    def system32(self) -> str:
        return f"{self.root}{self.folder}/System32"

    def hive(self, name: str) -> str:
        return f"{self.system32()}/config/{name}"


def recognise(candidate: Candidate) -> System | list[System] | None:
    """Read every Windows that is here."""
    address, outcome = candidate.file_system.volume.address, candidate.work.outcome
    files = Files(candidate.root.ignoring_case(), address, outcome)
    places = files.bounded(
        list(islice(_places(files), _MAX_ROOTS + 1)), "or more Windows folders", _MAX_ROOTS
    )
    found = [_read(place, files, candidate) for place in places]
    if found:
        tell_hibernation(files, address, outcome)
    return found or read_win9x(files, address, candidate.path)


def _places(files: Files) -> Iterator[_Place]:
    names = files.names("/")
    roots = [f"/{name}" for name in names if name.casefold().startswith(_PREVIOUS)]
    for root in ["", *roots[:_MAX_ROOTS]]:
        for name in files.names(root) if root else names:
            place = _Place(root, f"/{name}")
            hives = (place.hive(each) for each in ("SYSTEM", "SOFTWARE"))
            if name.casefold() in _NAMES and any(files.root.exists(each) for each in hives):
                yield place


def _read(place: _Place, files: Files, candidate: Candidate) -> System:
    address = candidate.file_system.volume.address
    with ExitStack() as stack:
        sam, software, system = (
            stack.enter_context(opened_hive(place.hive(name), files, candidate))
            for name in ("SAM", "SOFTWARE", "SYSTEM")
        )
        found = System(
            root=address,
            root_path=text_of(candidate.path.rstrip("/") + place.root)[:MAX_TEXT] or "/",
            name="windows",
            distro="windows",
            windows_systemroot=text_of(place.folder)[:MAX_TEXT],
            arch=architecture_of(files, place.system32()),
        )
        # Each hive has its own time: how much is read of it is bounded, and not that of others.
        with _reading(candidate):
            found = replace(found, users=files.bounded(users_of(sam, software), "users"))
        if system:
            with _reading(candidate):
                found = _with_system(found, system, files, candidate)
        else:
            files.tell(place.hive("SYSTEM"), "it is not there; most of this system is not known")
        if software:
            with _reading(candidate):
                found = _with_software(found, software, files)
    return found


def _reading(candidate: Candidate) -> AbstractContextManager[None]:
    address = candidate.file_system.volume.address
    return candidate.work.outcome.phase("read the registry", address, "registry", _SECONDS)


def _with_software(found: System, software: Hive, files: Files) -> System:
    product = product_of(software)
    programs = list(islice(programs_of(software, found.arch), MAX_APPLICATIONS + 1))
    return replace(
        found,
        product_name=product.name,
        product_variant=product.variant or found.product_variant,
        version=product.version,
        major_version=product.major,
        minor_version=product.minor,
        build_id=product.build,
        machine_id=product.machine_id,
        install_date=product.install_date,
        install_date_from=None if product.install_date is None else "registry",
        applications=files.bounded(programs, "programs", MAX_APPLICATIONS),
    )


def _with_system(found: System, system: Hive, files: Files, candidate: Candidate) -> System:
    layers = candidate.work.outcome.layers
    found = replace(found, drive_mappings=list(drives_of(system, layers, found.root)))
    control_set = control_set_of(system)
    if control_set is None:
        files.tell(f"{_SYSTEM}/Select", "it names no control set that is there")
        return found
    machine = machine_of(system, control_set)
    return replace(
        found,
        hostname=machine.hostname,
        domain=machine.domain,
        timezone=machine.timezone,
        last_shutdown=machine.last_shutdown,
        arch=found.arch or machine.arch,
        product_variant=machine.variant,
        windows_current_control_set=control_set.name,
        services=files.bounded(list(services_of(system, control_set)), "services"),
        interfaces=files.bounded(list(interfaces_of(system, control_set)), "interfaces"),
    )
