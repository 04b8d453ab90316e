"""Puts together the operating systems that a guest reports in parts."""

from __future__ import annotations

from dataclasses import fields

from appliance.layer import MAX_LIST, Layer
from appliance.protocol import SystemPart
from appliance.system import MAX_APPLICATIONS, MAX_SYSTEMS, System
from controller.errors import GuestHostile

_PARTS = [each.name for each in fields(SystemPart)]


class Systems:
    """What was reported so far. Everything raises GuestHostile for what no agent would send."""

    def __init__(self) -> None:
        self.found: list[System] = []

    def add(self, system: System) -> None:
        """Begin with another one; its lists follow."""
        if len(self.found) >= MAX_SYSTEMS:
            raise GuestHostile("the agent reports more operating systems than it may")
        if any(getattr(system, name) for name in _PARTS):
            raise GuestHostile("the agent reports a system whose lists are not apart")
        self.found.append(system)

    def extend(self, part: SystemPart) -> None:
        """More of the last one."""
        if not self.found:
            raise GuestHostile("the agent reports a part of no operating system")
        for name in _PARTS:
            entries = getattr(self.found[-1], name)
            entries.extend(getattr(part, name))
            limit = MAX_APPLICATIONS if name == "applications" else MAX_LIST
            if len(entries) > limit:
                raise GuestHostile(f"the agent reports more {name} than it may")

    def check(self, layers: list[Layer]) -> None:
        """Make sure that they lie on layers that were reported, too."""
        known = {layer.address for layer in layers}
        for system in self.found:
            entries = (*system.mountpoints, *system.drive_mappings)
            named = {system.root, *(each.layer for each in entries if each.layer is not None)}
            if not named <= known:
                raise GuestHostile("the agent reports a system on a layer that it did not report")
