"""Groups whose metadata only LVM itself understands: read and activated by it, as it sees them."""

from __future__ import annotations

from contextlib import ExitStack

from appliance.agent import lvm
from appliance.agent.device import DeviceError, seal
from appliance.agent.group_volumes import Result, closed_layer, opened_volume
from appliance.agent.lvm import Group, LogicalVolume
from appliance.agent.overlay import overlay
from appliance.layer import Finding, Layer, Severity, Status


class LvmOnly:
    """The logical volumes of one such group, whose layer has this address.

    It keeps its own name and UUID; of two that share one, LVM activates only the first.
    """

    def __init__(self, address: str, group: Group) -> None:
        self._address = address
        self._group = group
        self.others = [each for each in group.volumes if not each.is_pool]

    def open_direct(self, _stack: ExitStack) -> list[Result]:
        """None: what they lie on is not known."""
        return []

    def open_others(self, stack: ExitStack) -> list[Result]:
        """All of them, on overlays. Raises LvmError and MappingError."""
        facts = self._group.facts
        nodes = [stack.enter_context(overlay(each.node or "")) for each in self._group.members]
        names = [each.facts.name for each in self.others]
        done = lvm.activate(facts.name, facts.uuid, nodes, names, stack)
        return [
            self._opened(each, done.nodes.get(each.facts.uuid), done.problem, stack)
            for each in self.others
        ]

    def closed(self) -> list[Result]:
        """Pools, which have no content of their own."""
        pools = [each for each in self._group.volumes if each.is_pool]
        return [Result(None, self._layer(each, Status.MAPPED), []) for each in pools]

    def left_alone(self, *, direct: bool) -> list[Result]:
        """What was not opened."""
        if direct:
            return []
        return [Result(None, self._layer(each, Status.DAMAGED), []) for each in self.others]

    def _opened(
        self, volume: LogicalVolume, node: str | None, problem: str, stack: ExitStack
    ) -> Result:
        try:
            if node is not None:
                seal(node)
                opened = opened_volume(
                    self._address, node, volume.facts, incomplete=False, stack=stack
                )
                return Result(opened, None, [])
            problem = problem or "lvm did not make a device for it"
        except (OSError, DeviceError) as error:
            problem = str(error)
        address = f"{self._address}/{volume.facts.name}"
        finding = Finding(Severity.ERROR, address, "not-activated", problem)
        return Result(None, self._layer(volume, Status.DAMAGED), [finding])

    def _layer(self, volume: LogicalVolume, status: Status) -> Layer:
        return closed_layer(self._address, volume.facts, volume.size, status)
