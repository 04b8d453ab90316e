"""The core: the first program of a cell. Takes orders from the command until it hangs up."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.protocol import Progress, Provisioned
from appliance.secret import wipe
from controller import guest as guests
from controller.artifacts import verify
from controller.death import Death
from controller.domain_xml import Accelerator, domain
from controller.errors import (
    ForensicError,
    GuestFailed,
)
from controller.guest import Guest
from controller.places import CAPABILITIES, OUTPUT, PATHS, PORT, STATE
from controller.shown_disks import ShownDisks, export_all
from controller.wire import (
    Appliance,
    Done,
    Inspect,
    Link,
    MakeState,
    OpenCase,
    Order,
    ProveKvm,
    Step,
    Trouble,
)
from images.quoting import shown

if TYPE_CHECKING:
    from controller.agent_client import Mapping

SIGN_OF_LIFE = b"forensic: init"
"""The first line of the recipe's init."""

_PR_SET_DUMPABLE = 4
_MEMORY_LIMIT = 1 << 30
"""Address space beyond what the core had before it met the guest."""


class Core:
    """What is open in this cell. Everything with a lifetime is on the one stack."""

    def __init__(self, link: Link, stack: ExitStack) -> None:
        self._link = link
        self._stack = stack
        self._guest: Guest | None = None
        self._shown = ShownDisks()
        self.timings: dict[str, float] = {}
        """Seconds per phase so far."""
        self._session: dict[str, str] = {}
        self._life = stack.enter_context(ExitStack())
        self._consoles = b""
        self._preload = threading.Thread(target=_preload, name="preload")

    def obey(self, order: Order) -> Done:
        """Carry out one order."""
        match order:
            case MakeState():
                return self._make_state(order)
            case ProveKvm():
                return self._prove(order)
            case OpenCase():
                return self._open(order)
            case Inspect():
                return self._inspect(order)

    @property
    def console(self) -> bytes:
        """The guest's console so far."""
        return self._guest.console.content() if self._guest else b""

    @contextmanager
    def _phase(self, name: str, operation: str) -> Iterator[None]:
        self._link.send(Step(operation))
        begin = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = round(time.monotonic() - begin, 4)

    def _make_state(self, order: MakeState) -> Done:
        from controller import ssh  # noqa: PLC0415 - paramiko is loaded while the guest starts

        appliance = order.appliance
        with self._phase("verify", "check the appliance"):
            verify(appliance)
        connection = self._stack.enter_context(guests.hypervisor(None))
        with self._phase("boot", "boot the guest"):
            xml = domain(_accelerator(appliance), appliance.memory, appliance.processors, PATHS)
            self._guest = self._stack.enter_context(
                guests.booted(connection, xml, appliance.memory)
            )
            ssh.order_warm(PORT, seconds=order.seconds)
        with self._phase("save", "save the guest"):
            self._guest.save(OUTPUT / "state")
        for file in guests.capabilities_folder().iterdir():
            (OUTPUT / file.name).write_bytes(file.read_bytes())
        tools = {
            "qemu": _number(connection.getVersion()),
            "libvirt": _number(connection.getLibVersion()),
        }
        return Done(timings=self.timings, tools=tools)

    def _prove(self, order: ProveKvm) -> Done:
        verify(order.appliance)
        connection = self._stack.enter_context(guests.hypervisor(None))
        xml = domain("kvm", order.appliance.memory, 1, PATHS)
        guest = guests.booted(connection, xml, order.appliance.memory)
        self._guest = self._stack.enter_context(guest)
        deadline = time.monotonic() + order.seconds
        while SIGN_OF_LIFE not in self._guest.console.content():
            if time.monotonic() > deadline:
                raise GuestFailed(f"its kernel said nothing within {order.seconds:.0f} seconds")
            time.sleep(0.05)
        return Done()

    def _open(self, order: OpenCase) -> Done:
        self._preload.start()
        appliance = order.appliance
        # Hashing runs beside what needs no guest; the guest waits for its result.
        checked = self._stack.enter_context(ThreadPoolExecutor(1)).submit(verify, appliance)
        with self._phase("export", "open the evidence"):
            self._shown = export_all(order, self._stack)
        with self._phase("hypervisor", "start the hypervisor"):
            connection = self._stack.enter_context(guests.hypervisor(CAPABILITIES))
        with self._phase("verify", "check the appliance"):
            checked.result()
        restore = partial(guests.restored, connection, STATE, appliance.memory)
        self._start = partial(self._start_guest, restore, order.seconds)
        self._start()
        sizes = [disk.size for disk in self._shown.disks]
        return Done(self.timings, session=self._session, sizes=sizes)

    def _start_guest(
        self,
        restore: Callable[[], AbstractContextManager[Guest]],
        seconds: float,
    ) -> None:
        """Restore a guest, in place of the one before, and show it the evidence."""
        self._life.close()
        with self._phase("restore", "restore the guest"):
            self._guest = self._life.enter_context(restore())
        self._preload.join()
        from controller import ssh  # noqa: PLC0415 - see _preload
        from controller.agent_client import AgentClient  # noqa: PLC0415

        limit_memory()
        with self._phase("session", "open the session"):
            session = ssh.session(PORT, seconds=seconds, note=self._note)
            channel, meter = self._life.enter_context(session)
            self._session["server_draw"] = ssh.server_draw(meter.opening)
            self._agent = AgentClient(channel, meter)
            self._agent.ping(seconds=seconds)
        with self._phase("attach", "attach the evidence"):
            for xml in self._shown.xml:
                self._guest.attach(xml)

    def _note(self, answer: Provisioned) -> None:
        self._session = {"host_key": answer.host_key, "draw": answer.draw}

    def _inspect(self, order: Inspect) -> Done:
        """Map with the keys, and wipe them."""
        try:
            return self._map_to_the_end(order)
        finally:
            for key in order.keys:
                wipe(key.secret)

    def _map_to_the_end(self, order: Inspect) -> Done:
        """Map; where the evidence kills a guest, go on with another that leaves this alone."""
        deadline = time.monotonic() + order.seconds
        deaths: list[Death] = []
        with self._phase("map", "map the layers"):
            while True:
                try:
                    found = self._map(order, deaths, deadline - time.monotonic())
                    break
                except GuestFailed as error:
                    death = Death.of(error, self._agent.doing, self._guest)
                    if death is None or not death.may_be_survived(deaths, deadline):
                        raise self._blamed(error) from error
                    deaths.append(death)
                    self._consoles += self.console
                    self._link.send(Step("start another guest", death.deed.layer))
                    self._start()
        self.timings |= {f"map.{phase}": seconds for phase, seconds in found.timings.items()}
        known = {layer.address for layer in found.layers}
        return Done(
            self.timings,
            found.tools,
            found.layers,
            findings=[*found.findings, *(death.finding(known) for death in deaths)],
            nested_images=found.nested,
            systems=found.systems,
            console=self._consoles + self.console,
            memory=found.memory,
            checks=found.checks,
        )

    def _map(self, order: Inspect, deaths: list[Death], seconds: float) -> Mapping:
        return self._agent.map(
            self._shown.disks,
            order.keys,
            wanted=order.wanted,
            headers=self._shown.headers,
            fatal=[death.deed for death in deaths],
            seconds=seconds,
            watch=self._pass_on,
        )

    def _pass_on(self, step: Progress) -> None:
        share = step.share
        if share is None:
            self._link.send(Step(step.operation, step.layer))
        else:
            self._link.send(Step(step.operation, step.layer, share, 1000, "\u2030"))

    def _blamed(self, error: GuestFailed) -> GuestFailed:
        """The error with what the agent did last: it names the evidence that may be the cause."""
        doing = self._agent.doing
        if doing is None:
            return error
        operation, layer = shown(doing.operation), shown(doing.layer)
        return type(error)(
            f"{error.message}; the last that it said: {operation}, layer {layer}",
            hint=error.hint
            or "the evidence may have crashed the guest: that is a finding in itself",
        )


def _preload() -> None:
    """Import paramiko and what needs it while QEMU reads the saved state: a fifth of a second."""
    import controller.agent_client  # noqa: PLC0415
    import controller.ssh  # noqa: F401, PLC0415


def limit_memory() -> None:
    """Bound this process before it listens to the guest. QEMU has been started already."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY_LIMIT, resource.RLIM_INFINITY))


def _accelerator(appliance: Appliance) -> Accelerator:
    return "kvm" if appliance.accelerator == "kvm" else "tcg"


def _number(version: int) -> str:
    """libvirt's version numbers: major × 1,000,000 + minor × 1,000 + release."""
    return f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}"


def main() -> None:
    """Serve the command until it closes the link; then the cell ends, whatever still runs."""
    # QEMU runs under the same account: it must not be able to trace this process.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    # No exit handlers and no orderly teardown of QEMU: the cell's end is the kernel's to make,
    # and it has proved faster and surer (docs/design.md).
    core = Core(link, ExitStack())
    while (order := link.receive_order()) is not None:
        try:
            link.send(core.obey(order))
        except ForensicError as error:
            link.send(
                Trouble(type(error).__name__, error.message, error.hint, core.console, core.timings)
            )
    os._exit(0)


if __name__ == "__main__":
    main()
