"""One guest under libvirt's embedded QEMU driver: no daemon, no root, gone with its cell.

Everything here runs inside the cell, so there is exactly one hypervisor connection and one guest
at a time, and all paths are the cell's own.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt

from controller.console import Console
from controller.errors import EnvironmentFailed, GuestFailed
from controller.places import CONSOLE, LIBVIRT_ROOT

_QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
seccomp_sandbox = 1
namespaces = []
cgroup_controllers = []
max_core = 0
dump_guest_core = 0
save_image_format = "raw"
"""
_OVERHEAD = 8 << 30
"""Address space that QEMU needs besides the guest's memory: TCG's code buffer, and up to 64 threads
that read files, each with a stack and an arena (images/sandbox.py has what too little does)."""


@contextmanager
def hypervisor(capabilities: Path | None) -> Iterator[libvirt.virConnect]:
    """Open the embedded driver; `capabilities` is a folder that an earlier run kept.

    Without it libvirt starts QEMU several times to learn what it can do, which costs a second.
    Raises EnvironmentFailed.
    """
    (LIBVIRT_ROOT / "etc").mkdir(parents=True)
    (LIBVIRT_ROOT / "etc/qemu.conf").write_text(_QEMU_CONF)
    cache = capabilities_folder()
    cache.mkdir(parents=True)
    for file in capabilities.iterdir() if capabilities and capabilities.is_dir() else ():
        (cache / file.name).write_bytes(file.read_bytes())
    # Errors arrive as exceptions; libvirt would print them as well.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_events, daemon=True, name="libvirt events").start()
    try:
        connection = libvirt.open(f"qemu:///embed?root={LIBVIRT_ROOT}")
    except libvirt.libvirtError as error:
        raise EnvironmentFailed(
            f"libvirt's embedded QEMU driver cannot be opened: {error}",
            hint="run `forensic doctor`",
        ) from error
    try:
        yield connection
    finally:
        with suppress(libvirt.libvirtError):
            connection.close()


def capabilities_folder() -> Path:
    """Where libvirt keeps what it learned about QEMU."""
    return LIBVIRT_ROOT / "cache/qemu/capabilities"


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


class Guest:
    """A running domain and its console."""

    def __init__(self, domain: libvirt.virDomain, console: Console) -> None:
        self._domain = domain
        self.console = console

    def attach(self, disk_xml: str) -> None:
        """Hot-attach a disk. Raises GuestFailed."""
        try:
            self._domain.attachDevice(disk_xml)
        except libvirt.libvirtError as error:
            raise GuestFailed(f"the evidence could not be attached to the guest: {error}") from None

    def save(self, path: Path) -> None:
        """Write the guest's state to `path` and end the guest."""
        try:
            self._domain.save(str(path))
        except libvirt.libvirtError as error:
            raise GuestFailed(f"the guest's state could not be saved: {error}") from None

    def is_alive(self) -> bool:
        """Whether QEMU still runs it."""
        try:
            return bool(self._domain.isActive())
        except libvirt.libvirtError:
            return False

    def destroy(self) -> None:
        """End the guest at once."""
        with suppress(libvirt.libvirtError):  # it may be gone already
            self._domain.destroy()


@contextmanager
def booted(connection: libvirt.virConnect, domain_xml: str, memory: int) -> Iterator[Guest]:
    """Boot a new guest with `memory` MiB. Raises EnvironmentFailed."""
    with _bounded(memory):
        try:
            domain = connection.createXML(domain_xml, 0)
        except libvirt.libvirtError as error:
            raise _not_started(error) from error
    with _owned(domain) as guest:
        yield guest


@contextmanager
def restored(connection: libvirt.virConnect, state: Path, memory: int) -> Iterator[Guest]:
    """Restore a guest from a saved state. Raises EnvironmentFailed."""
    with _bounded(memory):
        try:
            connection.restoreFlags(str(state), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
            domain = connection.lookupByName("forensic")
        except libvirt.libvirtError as error:
            raise _not_started(error) from error
    with _owned(domain) as guest:
        yield guest


@contextmanager
def _owned(domain: libvirt.virDomain) -> Iterator[Guest]:
    with Console(CONSOLE) as console:
        guest = Guest(domain, console)
        try:
            yield guest
        finally:
            guest.destroy()


@contextmanager
def _bounded(memory: int) -> Iterator[None]:
    """Let what starts in here (QEMU) have no more address space than it can need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = (memory << 20) + _OVERHEAD
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _not_started(error: libvirt.libvirtError) -> EnvironmentFailed:
    return EnvironmentFailed(
        f"the guest could not be started: {error}", hint="run `forensic doctor`"
    )
