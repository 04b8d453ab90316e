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

from appliance.protocol import Disk, Progress, Provisioned
from appliance.secret import wiped
from controller import core_state, overlays
from controller import guest as guests
from controller.artifacts import verify
from controller.death import Death, blamed
from controller.errors import (
    ForensicError,
    GuestFailed,
)
from controller.guest import Guest
from controller.places import CAPABILITIES, PORT, STATE
from controller.shown_disks import ShownDisks, export_all
from controller.wire import (
    Done,
    Inspect,
    Link,
    MakeState,
    OpenCase,
    Order,
    ProveKvm,
    RepairDisks,
    Step,
    Trouble,
    WriteCopy,
)

if TYPE_CHECKING:
    from appliance.layer import Finding
    from controller.agent_client import Mapping

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
                done = core_state.make_state(order, self._stack, self._phase, self._keep)
                done.timings = self.timings
                return done
            case ProveKvm():
                return core_state.prove(order, self._stack, self._keep)
            case OpenCase():
                return self._open(order)
            case Inspect():
                with wiped([key.secret for key in order.keys]):
                    return self._inspect(order)
            case RepairDisks():
                with wiped([key.secret for key in order.keys]):
                    return self._repair(order)
            case WriteCopy():
                base = self._shown.disks[order.overlay.disk]
                overlays.write_copy(order, base, self._show)
                return Done()

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

    @property
    def _disks(self) -> list[Disk]:
        return [each.disk for each in self._shown.disks]

    def _keep(self, guest: Guest) -> Guest:
        """For its console."""
        self._guest = guest
        return guest

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
        self._begin = partial(self._start_guest, restore, order.seconds)
        all_shown = [*self._shown.disks, *self._shown.headers]
        self._start = partial(self._begin, [each.xml for each in all_shown])
        self._start()
        sizes = [disk.size for disk in self._disks]
        return Done(self.timings, session=self._session, sizes=sizes)

    def _start_guest(
        self,
        restore: Callable[[], AbstractContextManager[Guest]],
        seconds: float,
        disks: list[str],
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
            for xml in disks:
                self._guest.attach(xml)

    def _note(self, answer: Provisioned) -> None:
        self._session = {"host_key": answer.host_key, "draw": answer.draw}

    def _inspect(self, order: Inspect) -> Done:
        """Map; where the evidence kills a guest, go on with another that leaves this alone."""
        deadline = time.monotonic() + order.seconds
        deaths: list[Death] = []

        def attempt() -> Mapping:
            if deaths:
                self._start()
            return self._map(order, self._disks, deaths, deadline)

        with self._phase("map", "map the layers"):
            found = self._survived(attempt, deaths, deadline)
        known = {layer.address for layer in found.layers}
        return self._done(found, [death.finding(known) for death in deaths])

    def _repair(self, order: RepairDisks) -> Done:
        """The same with overlays; what a guest that is lost has written is thrown away."""
        deadline = time.monotonic() + order.seconds
        deaths: list[Death] = []
        headers = [each.xml for each in self._shown.headers]

        def attempt() -> Mapping:
            self._life.close()
            with overlays.attached(order.overlays, self._shown.disks) as attached:
                try:
                    self._begin([*attached.xml, *headers])
                    found = self._map(order, attached.disks, deaths, deadline)
                except GuestFailed:
                    attached.refuse_full()
                    raise
                # The guest ends first, so that nothing writes any more.
                self._life.close()
                attached.finish()
                return found

        with self._phase("repair", "repair"):
            found = self._survived(attempt, deaths, deadline)
        with self._phase("compare", "compare the blocks"):
            deltas = [overlays.delta(each, self._shown.disks[each.disk]) for each in order.overlays]
        done = self._done(found, [death.finding(_addresses(order)) for death in deaths])
        done.deltas = deltas
        return done

    def _survived(
        self, attempt: Callable[[], Mapping], deaths: list[Death], deadline: float
    ) -> Mapping:
        """Try until a guest lives to the end, as often as that has a point."""
        while True:
            try:
                return attempt()
            except GuestFailed as error:
                death = Death.of(error, self._agent.doing, self._guest)
                if death is None or not death.may_be_survived(deaths, deadline):
                    raise blamed(error, self._agent.doing) from error
                deaths.append(death)
                self._consoles += self.console
                self._link.send(Step("start another guest", death.deed.layer))

    def _done(self, found: Mapping, deaths: list[Finding]) -> Done:
        self.timings |= {f"map.{phase}": seconds for phase, seconds in found.timings.items()}
        return Done(
            self.timings,
            found.tools,
            found.layers,
            findings=[*found.findings, *deaths],
            nested_images=found.nested,
            systems=found.systems,
            console=self._consoles + self.console,
            memory=found.memory,
            checks=found.checks,
            repairs=found.repairs,
            paths=found.paths,
        )

    def _show(self, operation: str, done: int, total: int) -> None:
        self._link.send(Step(operation, "", done, total))

    def _map(
        self,
        order: Inspect | RepairDisks,
        disks: list[Disk],
        deaths: list[Death],
        deadline: float,
    ) -> Mapping:
        return self._agent.map(
            disks,
            order.keys,
            wanted=order.wanted,
            headers=[each.disk for each in self._shown.headers],
            fatal=[death.deed for death in deaths],
            seconds=deadline - time.monotonic(),
            watch=self._pass_on,
        )

    def _pass_on(self, step: Progress) -> None:
        share = step.share
        if share is None:
            self._link.send(Step(step.operation, step.layer))
        else:
            self._link.send(Step(step.operation, step.layer, share, 1000, "\u2030"))


def _addresses(order: RepairDisks) -> set[str]:
    return set(order.wanted.repair.path) if order.wanted.repair else set()


def _preload() -> None:
    """Import paramiko and what needs it while QEMU reads the saved state: a fifth of a second."""
    import controller.agent_client  # noqa: PLC0415
    import controller.ssh  # noqa: F401, PLC0415


def limit_memory() -> None:
    """Bound this process before it listens to the guest. QEMU has been started already."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY_LIMIT, resource.RLIM_INFINITY))


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
