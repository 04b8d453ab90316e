"""Shadow copies of an NTFS volume: each is the volume as it was at some time, opened read-only.

libvshadow puts them together in user space (vshadowmount); a loop device over each of its files
is a volume like any other.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from appliance.agent.device import DeviceError, open_device
from appliance.agent.dm import MappingError
from appliance.agent.filesystem.reading import BadSuperblock
from appliance.agent.filesystem.reading import Volume as Bytes
from appliance.agent.filesystem.vss import ShadowCopy, read_shadow_copies
from appliance.agent.loop import read_only_device
from appliance.agent.mount_call import MountError
from appliance.agent.outcome import LeftAlone
from appliance.agent.slice import with_node
from appliance.agent.user_space import shown_by
from appliance.agent.volume import Volume
from appliance.agent.work import Opened, Work
from appliance.layer import Finding, Kind, Severity, ShadowCopyFacts

_SECONDS = 90


def ntfs_volume(volume: Volume, work: Work) -> Opened:
    """Open the volume's shadow copies, if it has any."""
    if volume.kind is Kind.SHADOW_COPY:  # which has the header of the volume's, and no others
        return Opened()
    try:
        copies = read_shadow_copies(Bytes(volume.read, volume.size))
        if not copies:
            return Opened()
        with work.outcome.phase("open the shadow copies", volume.address, "shadow", _SECONDS):
            return _open(volume, copies, work.stack)
    except LeftAlone:
        return Opened()
    except (BadSuperblock, MappingError, MountError, OSError) as error:
        message = f"its shadow copies cannot be opened: {error}"
        finding = Finding(Severity.ERROR, volume.address, "shadow-copies-unreadable", message)
        return Opened(findings=[finding])


def _open(volume: Volume, copies: list[ShadowCopy], stack: ExitStack) -> Opened:
    node = with_node(volume, stack).node or ""
    folder = stack.enter_context(shown_by(["vshadowmount"], node))
    volumes: list[Volume] = []
    findings: list[Finding] = []
    for number, copy in enumerate(copies, start=1):
        try:
            volumes.append(_inside(volume, copy, number, folder, stack))
        except (OSError, DeviceError) as error:
            message = f"shadow copy {number} ({copy.id}) cannot be opened: {error}"
            code = "shadow-copies-unreadable"
            findings.append(Finding(Severity.ERROR, volume.address, code, message))
    return Opened(volumes=volumes, findings=findings)


def _inside(
    volume: Volume, copy: ShadowCopy, number: int, folder: Path, stack: ExitStack
) -> Volume:
    node = stack.enter_context(read_only_device(folder / f"vss{number}"))
    device = open_device(node)
    stack.callback(device.close)
    return Volume(
        address=f"{volume.address}/vss{number}",
        kind=Kind.SHADOW_COPY,
        parents=[volume.address],
        offset=None,
        size=device.size,
        device=device,
        start=0,
        node=node,
        shadow_copy=ShadowCopyFacts(copy.id, copy.created),
    )
