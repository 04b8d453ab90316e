"""Orders to the core that need no evidence: a state to restore guests from, and a proof of KVM."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from controller import guest as guests
from controller.artifacts import verify
from controller.domain_xml import Accelerator, domain
from controller.errors import GuestFailed
from controller.guest import Guest
from controller.places import OUTPUT, PATHS, PORT
from controller.wire import Appliance, Done, MakeState, ProveKvm

SIGN_OF_LIFE = b"forensic: init"
"""The first line of the recipe's init."""

Phase = Callable[[str, str], AbstractContextManager[None]]
"""Counts the time of a phase by its name, and tells the user what it does."""

Keep = Callable[[Guest], Guest]
"""Gets the guest as soon as there is one, so that its console is not lost."""


def make_state(order: MakeState, stack: ExitStack, phase: Phase, keep: Keep) -> Done:
    """Boot, warm and save a guest. Raises ForensicError."""
    from controller import ssh  # noqa: PLC0415 - paramiko is loaded while the guest starts

    appliance = order.appliance
    with phase("verify", "check the appliance"):
        verify(appliance)
    connection = stack.enter_context(guests.hypervisor(None))
    with phase("boot", "boot the guest"):
        xml = domain(_accelerator(appliance), appliance.memory, appliance.processors, PATHS)
        guest = keep(stack.enter_context(guests.booted(connection, xml, appliance.memory)))
        ssh.order_warm(PORT, seconds=order.seconds)
    with phase("save", "save the guest"):
        guest.save(OUTPUT / "state")
    for file in guests.capabilities_folder().iterdir():
        (OUTPUT / file.name).write_bytes(file.read_bytes())
    tools = {
        "qemu": _number(connection.getVersion()),
        "libvirt": _number(connection.getLibVersion()),
    }
    return Done(tools=tools)


def prove(order: ProveKvm, stack: ExitStack, keep: Keep) -> Done:
    """Boot with KVM until the guest says something. Raises ForensicError."""
    verify(order.appliance)
    connection = stack.enter_context(guests.hypervisor(None))
    xml = domain("kvm", order.appliance.memory, 1, PATHS)
    guest = keep(stack.enter_context(guests.booted(connection, xml, order.appliance.memory)))
    deadline = time.monotonic() + order.seconds
    while SIGN_OF_LIFE not in guest.console.content():
        if time.monotonic() > deadline:
            raise GuestFailed(f"its kernel said nothing within {order.seconds:.0f} seconds")
        time.sleep(0.05)
    return Done()


def _accelerator(appliance: Appliance) -> Accelerator:
    return "kvm" if appliance.accelerator == "kvm" else "tcg"


def _number(version: int) -> str:
    """libvirt's version numbers: major × 1,000,000 + minor × 1,000 + release."""
    return f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}"
