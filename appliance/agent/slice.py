"""A block device for exactly the bytes of a volume, where the kernel has made none itself."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from appliance.agent.dm import SECTOR, mapped
from appliance.agent.volume import Volume


def with_node(volume: Volume, stack: ExitStack) -> Volume:
    """The same volume with a `node`, read-only unless it is to be repaired. Raises MappingError.

    The kernel makes nodes for the partitions of a disk, but not for those inside of a volume.
    """
    if volume.node:
        return volume
    parameters = f"{volume.device.path} {volume.start // SECTOR}"
    node = stack.enter_context(
        mapped(volume.size, "linear", parameters, read_only=not volume.writable)
    )
    return replace(volume, node=node)
