"""Detached LUKS headers: disks that the host attached, each for one layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from appliance.agent.device import open_disk
from appliance.agent.outcome import Outcome
from appliance.agent.volume import Volume
from appliance.layer import Kind
from appliance.protocol import Disk

_SECONDS = 20.0


def open_headers(disks: Sequence[Disk], outcome: Outcome, stack: ExitStack) -> dict[str, Volume]:
    """Wait for these disks; return them by the address of the layer that each is for.

    Raises DeviceError.
    """
    headers = {}
    for disk in disks:
        with outcome.phase("wait for the header", disk.address, "disks"):
            device = open_disk(disk.serial, disk.size, timeout=_SECONDS)
        stack.callback(device.close)
        headers[disk.address] = Volume(
            disk.address, Kind.DISK, [], None, device.size, device, 0, device.path
        )
    return headers
