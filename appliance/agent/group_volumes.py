"""Opens the logical volumes of a group: what lies on plain extents at once, the others by LVM."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from appliance.agent import lvm
from appliance.agent.device import DeviceError, open_device, seal
from appliance.agent.dm import SECTOR, MappingError
from appliance.agent.lvm2.choice import Assembled
from appliance.agent.lvm2.group import LogicalVolume
from appliance.agent.lvm2.layout import Layout
from appliance.agent.lvm2.stand_in import stand_in
from appliance.agent.lvm2.table import ZEROS, Hole, Place, Tables, holes
from appliance.agent.volume import Volume
from appliance.layer import Finding, Kind, Layer, Severity, Status, VolumeFacts

MAX_VOLUMES = 1024
"""Logical volumes of one group that are opened."""

_MAX_HOLES = 8
"""Findings of one volume about what it lacks; then one says how many more there are."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a logical volume: a `volume` to explore, or a `layer` without content."""

    volume: Volume | None
    layer: Layer | None
    findings: list[Finding]


class GroupVolumes:
    """The logical volumes of one group, whose layer has this address."""

    def __init__(self, address: str, assembled: Assembled) -> None:
        self._address = address
        self._assembled = assembled
        self._group = assembled.group
        self._layout = Layout(assembled.group)
        self._visible, self._more = _first(self._layout.visible())
        self._absent = frozenset(assembled.group.pvs) - frozenset(assembled.members)

    def open_direct(self, stack: ExitStack) -> list[Result]:
        """Those that are linear or striped, straight on the read-only evidence."""
        return [self._direct(each, stack) for each in self._visible if self._is_direct(each)]

    def open_writable(self, may_write: Callable[[str], bool], stack: ExitStack) -> list[Result]:
        """For a repair: of the linear and striped ones those that may be written to."""
        wanted = [each for each in self._visible if self._is_direct(each)]
        return [
            self._direct(each, stack, writable=True) for each in wanted if may_write(self._at(each))
        ]

    @cached_property
    def others(self) -> list[LogicalVolume]:
        """Those that LVM must activate."""
        return [
            each
            for each in self._visible
            if not self._is_direct(each)
            and not self._layout.is_pool(each)
            and each.name not in self._left_out
        ]

    def open_others(self, stack: ExitStack) -> list[Result]:
        """Those that LVM must activate, on overlays. Raises LvmError and MappingError."""
        if not self.others:
            return []
        shown = stand_in(self._assembled, self._left_out, stack)
        names = [each.name for each in self.others]
        done = lvm.activate(shown.name, shown.uuid, shown.nodes, names, stack)
        results = []
        for each in self.others:
            facts = done.facts.get(each.uuid) or self._layout.facts(each)
            node = done.nodes.get(each.uuid)
            problem = done.problem or "lvm did not make a device for it"
            results.append(self._activated(each, facts, node, problem, stack))
        return results

    def closed(self) -> list[Result]:
        """Pools, which have no content of their own, and what this guest cannot open."""
        results = []
        if self._more:
            message = f"more than {MAX_VOLUMES} logical volumes: {self._more} are not shown"
            results.append(
                Result(None, None, [Finding(Severity.ERROR, self._address, "limit", message)])
            )
        for each in self._visible:
            if self._is_direct(each):
                continue
            if each.name in self._left_out:
                kind = self._left_out[each.name]
                message = f"it lies on {kind}, which is recognised, but not opened by this version"
                finding = Finding(Severity.WARNING, self._at(each), "not-opened", message)
                results.append(Result(None, self._layer(each, Status.UNSUPPORTED), [finding]))
            elif self._layout.is_pool(each):
                results.append(Result(None, self._layer(each, Status.MAPPED), []))
        return results

    def left_alone(self, *, direct: bool) -> list[Result]:
        """The direct volumes or the others, shown and not opened."""
        volumes = [each for each in self._visible if self._is_direct(each)]
        return [
            Result(None, self._layer(each, Status.DAMAGED), [])
            for each in (volumes if direct else self.others)
        ]

    @cached_property
    def _left_out(self) -> dict[str, str]:
        """What is not opened, and everything that lies on it, with the type of what it is."""
        found = self._layout.unopened()
        more = True
        while more:
            more = False
            for volume in self._group.lvs.values():
                below = next((found[part] for part in _parts(volume) if part in found), None)
                if volume.name not in found and below:
                    found[volume.name] = below
                    more = True
        return found

    def _is_direct(self, volume: LogicalVolume) -> bool:
        return self._layout.is_direct(volume)

    @cached_property
    def _places(self) -> dict[str, Place]:
        found = {}
        for name, member in self._assembled.members.items():
            node = member.volume.node
            if node:
                found[name] = Place(_number(node), member.volume.size // SECTOR)
        return found

    def _direct(self, volume: LogicalVolume, stack: ExitStack, *, writable: bool = False) -> Result:
        lacking = holes(self._group, volume, self._places)
        findings = [
            Finding(Severity.WARNING, self._at(volume), "incomplete", message)
            for message in self._hole_messages(lacking)
        ]
        lost = sum(each.lost for each in lacking)
        # A repair would take what cannot be read for lost, and lose more.
        if lost >= self._size(volume) or (lost and writable):
            return Result(None, self._layer(volume, Status.DAMAGED), findings)
        try:
            node = Tables(self._group, self._places).open(volume, stack, writable=writable)
            facts = self._layout.facts(volume)
            opened = self._opened(node, facts, bool(lacking), stack, writable=writable)
            if lacking:
                zeros = Tables(self._group, self._places, ZEROS).open(volume, stack)
                padded = open_device(zeros)
                stack.callback(padded.close)
                opened = replace(opened, padded=padded)
        except (MappingError, OSError, DeviceError) as error:
            return self._failed(volume, self._layout.facts(volume), str(error), findings)
        return Result(opened, None, findings)

    def _hole_messages(self, lacking: list[Hole]) -> Iterable[str]:
        for each in lacking[:_MAX_HOLES]:
            which = "" if each.lost == each.end - each.begin else "stripes of "
            why = "is missing" if each.pv in self._absent else "is shorter than the metadata says"
            yield (
                f"{which}bytes {each.begin} to {each.end - 1} lie on {self._called(each.pv)}, "
                f"which {why}"
            )
        if len(lacking) > _MAX_HOLES:
            yield f"and {len(lacking) - _MAX_HOLES} more runs of bytes cannot be read"

    def _activated(
        self,
        volume: LogicalVolume,
        facts: VolumeFacts,
        node: str | None,
        problem: str,
        stack: ExitStack,
    ) -> Result:
        loss = self._layout.loss(volume, self._absent)
        findings = []
        fatal = loss.fatal if node else loss.fatal | loss.spared
        if fatal:
            message = f"parts of it lie on what is missing: {self._all_called(fatal)}"
            findings.append(Finding(Severity.WARNING, self._at(volume), "incomplete", message))
        if node is None:
            own = [each for each in problem.split("; ") if volume.name in each]
            return self._failed(volume, facts, "; ".join(own) or problem, findings)
        if loss.spared:
            message = (
                f"parts of it lie on what is missing: {self._all_called(loss.spared)}; it is read "
                "from the copies or the parity that are left"
            )
            findings.append(Finding(Severity.WARNING, self._at(volume), "degraded", message))
        try:
            seal(node)
            opened = self._opened(node, facts, bool(loss.fatal), stack)
        except (OSError, DeviceError) as error:
            return self._failed(volume, facts, str(error), findings)
        return Result(opened, None, findings)

    def _failed(
        self, volume: LogicalVolume, facts: VolumeFacts, problem: str, findings: list[Finding]
    ) -> Result:
        finding = Finding(Severity.ERROR, self._at(volume), "not-activated", problem)
        layer = closed_layer(self._address, facts, self._size(volume), Status.DAMAGED)
        return Result(None, layer, [*findings, finding])

    def _opened(
        self,
        node: str,
        facts: VolumeFacts,
        incomplete: bool,
        stack: ExitStack,
        *,
        writable: bool = False,
    ) -> Volume:
        return opened_volume(self._address, node, facts, incomplete, stack, writable=writable)

    def _layer(self, volume: LogicalVolume, status: Status) -> Layer:
        facts = self._layout.facts(volume)
        return closed_layer(self._address, facts, self._size(volume), status)

    def _size(self, volume: LogicalVolume) -> int:
        return volume.extents * self._group.extent_bytes

    def _at(self, volume: LogicalVolume) -> str:
        return f"{self._address}/{volume.name}"

    def _all_called(self, names: Iterable[str]) -> str:
        return ", ".join(self._called(name) for name in sorted(names)[:_MAX_HOLES])

    def _called(self, name: str) -> str:
        return f"the physical volume {name} ({self._group.pvs[name].uuid})"


def opened_volume(  # noqa: PLR0913 - what a volume is, and for how long
    group_address: str,
    node: str,
    facts: VolumeFacts,
    incomplete: bool,
    stack: ExitStack,
    *,
    writable: bool = False,
) -> Volume:
    """An active logical volume as something to look into. Raises DeviceError."""
    device = open_device(node, writable=writable)
    stack.callback(device.close)
    return Volume(
        address=f"{group_address}/{facts.name}",
        kind=Kind.LOGICAL_VOLUME,
        parents=[group_address],
        offset=None,
        # lvs gives a snapshot the size of its changes; the device has that of its origin.
        size=device.size,
        device=device,
        start=0,
        node=device.path,
        logical_volume=facts,
        incomplete=incomplete,
    )


def closed_layer(group_address: str, facts: VolumeFacts, size: int, status: Status) -> Layer:
    """A logical volume that is shown without content."""
    address = f"{group_address}/{facts.name}"
    return Layer(address, Kind.LOGICAL_VOLUME, [group_address], None, size, status, volume=facts)


def _first(volumes: list[LogicalVolume]) -> tuple[list[LogicalVolume], int]:
    return volumes[:MAX_VOLUMES], max(0, len(volumes) - MAX_VOLUMES)


def _parts(volume: LogicalVolume) -> list[str]:
    return [part for segment in volume.segments for part in segment.parts]


def _number(node: str) -> str:
    """As device-mapper names a device: no name is looked up for it."""
    status = Path(node).stat()
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
