"""The second truth about a dirty file system: what it says once its journal has been replayed.

The kernel replays it when it mounts a device that takes writes: here an overlay that is thrown
away, so the evidence stays as it was. Mounted is read-only all the same, which keeps the kernel
from writing what a replay does not call for (the time of a mount, say).
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

from appliance.agent.content import Examined, examine
from appliance.agent.device import Device
from appliance.agent.dm import MappingError
from appliance.agent.drivers import DRIVERS, Driver
from appliance.agent.mount import RECOVERED, options_of
from appliance.agent.mount_call import MountError, attached
from appliance.agent.outcome import LeftAlone
from appliance.agent.overlay import overlay
from appliance.agent.slice import with_node
from appliance.agent.volume import Volume
from appliance.agent.work import Work
from appliance.layer import Finding, Severity

_SECONDS = 180
_WANTS_REPLAY = {"needs-recovery", "orphan-inodes"}


def in_the_view(volume: Volume, found: Examined, work: Work) -> Examined:
    """What is on the volume in the view that is wanted: as found, or after the replay."""
    codes = {finding.code for finding in found.findings}
    if work.wanted.view != RECOVERED or not found.content or not codes & _WANTS_REPLAY:
        return found
    kind = found.content.type
    driver = DRIVERS.get(kind)
    if driver is None or not driver.replays or not driver.name:
        return _not_replayed(volume, found, f"nothing in the guest replays the journal of {kind}")
    try:
        with work.outcome.phase("replay the journal", volume.address, "replay", _SECONDS):
            return _replayed(volume, found, driver)
    except LeftAlone:
        return _not_replayed(volume, found, "the guest did not survive that")
    except (MappingError, MountError, OSError) as error:
        return _not_replayed(volume, found, f"its journal could not be replayed: {error}")


def _replayed(volume: Volume, found: Examined, driver: Driver) -> Examined:
    with ExitStack() as stack:
        node = stack.enter_context(overlay(with_node(volume, stack).node or ""))
        with attached(node, driver.name or "", options_of(volume, driver, RECOVERED)):
            pass  # that was the replay
        fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        device = Device(node, fd, volume.size, volume.device.sector_size)
        after = examine(replace(volume, device=device, start=0, node=node))
    before = " ".join(each.message for each in found.findings)
    message = (
        "its journal was replayed on a throw-away overlay, and this is what it says since; "
        f"before, that was: {before}"
    )
    finding = Finding(Severity.INFO, volume.address, "replayed", message)
    # A replay does not always set the mark of a clean unmount (ReiserFS); it is done all the same.
    kept = [each for each in after.findings if each.code != "needs-recovery"]
    return replace(after, findings=[*kept, finding])


def _not_replayed(volume: Volume, found: Examined, why: str) -> Examined:
    finding = Finding(
        Severity.WARNING, volume.address, "not-replayed", f"{why}; it is shown as it was found"
    )
    return replace(found, findings=[*found.findings, finding])
