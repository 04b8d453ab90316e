"""A folder of the host as the root of a system, as the agent sees a mounted one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from appliance.agent.device import Device
from appliance.agent.outcome import Outcome
from appliance.agent.system.candidate import Candidate
from appliance.agent.system.files import Files
from appliance.agent.system.mounts import Mounts
from appliance.agent.system.root import opened_root
from appliance.agent.volume import Volume
from appliance.agent.work import FileSystem, Work
from appliance.layer import Content, Finding, Kind, Layer, Status
from appliance.protocol import Body

HOME = "disk0/p1"


@contextmanager
def candidate(folder: Path) -> Iterator[tuple[Candidate, list[Body]]]:
    """The candidate, and everything that is reported meanwhile."""
    told: list[Body] = []
    with ExitStack() as stack:
        work = Work(Outcome(told.append), stack)
        content = Content("ext4")
        work.outcome.add(Layer("disk0", Kind.DISK, [], None, 1, Status.MAPPED))
        layer = Layer(HOME, Kind.PARTITION, ["disk0"], 0, 1, Status.MAPPED, content)
        work.outcome.add(layer)
        told.clear()
        root = stack.enter_context(opened_root(folder))
        volume = Volume(HOME, Kind.PARTITION, [], None, 0, Device("", -1, 0, 512), 0, None)
        files = Files(root, HOME, work.outcome)
        file_system = FileSystem(volume, content)
        yield Candidate(root, files, file_system, "/", [], Mounts(work, stack), work), told


def messages(told: list[Body]) -> list[str]:
    return [each.message for each in told if isinstance(each, Finding)]
