"""LVM2: volume groups over one or several physical volumes, and their logical volumes.

Linear and striped volumes are activated read-only, straight on the read-only evidence. Snapshots,
thin pools and RAID need to write to open at all (their headers and superblocks), so the physical
volumes of such a group get a throw-away overlay in the guest's memory (overlay.py) first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from appliance.agent import dm
from appliance.agent.command import CommandError, Completed, finish
from appliance.agent.device import Device, DeviceError, open_device, seal
from appliance.agent.overlay import overlay
from appliance.agent.standby import Standby
from appliance.agent.volume import Volume
from appliance.layer import GroupFacts, Kind, VolumeFacts

CONFIGURATION = """\
devices { dir="/dev" scan=["/dev"] use_devicesfile=0 scan_lvs=1 obtain_device_list_from_udev=0
    external_device_info_source="none" multipath_component_detection=0 md_component_detection=0
    fw_raid_component_detection=0 }
activation { udev_sync=0 udev_rules=0 monitoring=0 use_mlockall=0 reserved_memory=0
    reserved_stack=0 }
backup { backup=0 archive=0 }
global { use_lvmpolld=0 use_lvmlockd=0 event_activation=0 metadata_read_only=1 units="b" suffix=0 }
report { output_format="json" }
shell { history_size=0 }
"""
"""For /etc/lvm/lvm.conf: no udev, no daemons, nothing is ever written to metadata."""

_REPORT = (
    "fullreport --units b --nosuffix "
    "--configreport vg -o vg_name,vg_uuid,vg_size,vg_extent_size,vg_free,pv_count,"
    "vg_missing_pv_count "
    "--configreport pv -o pv_name,pv_uuid "
    "--configreport lv -a -o lv_name,lv_uuid,lv_size,lv_layout,lv_role,origin,pool_lv "
    "--configreport seg -o lv_uuid --configreport pvseg -o pv_uuid"
)
_SAFE_NAME = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]*")
_DIRECT = {"linear", "striped"}
_COPIES = {"origin", "snapshot"}
_TIMEOUT = 60.0

standby = Standby(["/usr/sbin/lvm"])
"""lvm shells that wait for their first command; a started process is in the saved state."""


class LvmError(Exception):
    """LVM's metadata could not be read or a volume could not be activated."""


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A visible logical volume; `size` in bytes."""

    facts: VolumeFacts
    size: int

    @property
    def is_pool(self) -> bool:
        """A thin or cache pool holds other volumes' blocks and has no content of its own."""
        return "pool" in self.facts.layout

    @property
    def is_direct(self) -> bool:
        """Can be activated on a device that nothing can write to."""
        return set(self.facts.layout) <= _DIRECT and not _COPIES & set(self.facts.role)


@dataclass(frozen=True, slots=True)
class Group:
    """A volume group with its size in bytes, the members that are here, and visible volumes."""

    facts: GroupFacts
    size: int
    members: list[Volume]
    volumes: list[LogicalVolume]


def read_groups(members: list[Volume]) -> list[Group]:
    """Read the groups that these physical volumes belong to. Raises LvmError."""
    nodes = {member.node: member for member in members if member.node}
    if not nodes:
        return []
    done = _lvm(f"{_REPORT} --devices {','.join(nodes)}")
    try:
        # lvm's shell writes one more document, its log, behind the report.
        reports = json.JSONDecoder().raw_decode(done.stdout.decode().strip())[0]["report"]
    except (ValueError, KeyError, TypeError) as error:
        raise LvmError(f"lvm gave no report: {_words(done) or done.status}") from error
    try:
        return [_group(each, nodes) for each in reports if each.get("vg", [{}])[0].get("vg_uuid")]
    except (ValueError, KeyError, IndexError) as error:
        raise LvmError(f"lvm's report makes no sense: {error}") from error


def _group(report: dict[str, Any], nodes: dict[str, Volume]) -> Group:
    row = report["vg"][0]
    facts = GroupFacts(
        name=row["vg_name"],
        uuid=row["vg_uuid"],
        extent_size=int(row["vg_extent_size"]),
        free=int(row["vg_free"]),
        physical_volumes=int(row["pv_count"]),
        missing_physical_volumes=int(row["vg_missing_pv_count"] or 0),
    )
    if not _SAFE_NAME.fullmatch(facts.name):
        raise LvmError("a volume group has a name that LVM does not allow")
    members = [nodes[pv["pv_name"]] for pv in report.get("pv", []) if pv["pv_name"] in nodes]
    volumes = [_logical_volume(lv) for lv in report.get("lv", []) if _is_visible(lv)]
    return Group(facts, int(row["vg_size"]), members, volumes)


def _is_visible(row: dict[str, Any]) -> bool:
    # lvs -a puts the parts that a volume is made of into brackets.
    return not row["lv_name"].startswith("[")


def _logical_volume(row: dict[str, Any]) -> LogicalVolume:
    facts = VolumeFacts(
        name=row["lv_name"],
        uuid=row["lv_uuid"],
        layout=row["lv_layout"].split(","),
        role=row["lv_role"].split(","),
        origin=row["origin"].strip("[]") or None,
        pool=row["pool_lv"].strip("[]") or None,
    )
    if not _SAFE_NAME.fullmatch(facts.name):
        raise LvmError("a logical volume has a name that LVM does not allow")
    return LogicalVolume(facts, int(row["lv_size"]))


def activate(group: Group, stack: ExitStack) -> Iterator[tuple[LogicalVolume, Device | LvmError]]:
    """Activate the group's volumes one set at a time; `stack` deactivates and cleans up.

    Yields each volume with its open device, or with the reason why there is none.
    """
    direct = [volume for volume in group.volumes if volume.is_direct]
    others = [volume for volume in group.volumes if not volume.is_direct and not volume.is_pool]
    for volumes, on_overlay in ((direct, False), (others, True)):
        if volumes:
            problem = _activate(group, volumes, stack, on_overlay=on_overlay)
            for volume in volumes:
                yield volume, _opened(group, volume, problem, stack)


def _activate(
    group: Group, volumes: list[LogicalVolume], stack: ExitStack, *, on_overlay: bool
) -> str:
    """Return what lvm complained about, "" if nothing."""
    name = group.facts.name
    nodes = [member.node for member in group.members if member.node]
    options = f'activation{{read_only_volume_list=["{name}"]}}'
    if on_overlay:
        nodes = [stack.enter_context(overlay(node)) for node in nodes]
        options = "global{metadata_read_only=0}"
    targets = " ".join(f"{name}/{volume.facts.name}" for volume in volumes)
    devices = ",".join(nodes)
    stack.callback(_deactivate, name, devices)
    done = _lvm(
        f"lvchange -ay -K -y --activationmode partial --config '{options}' "
        f"--devices {devices} {targets}"
    )
    # The shell ends with status 0 whatever its commands said, so only the words tell.
    return _words(done)


def _deactivate(name: str, devices: str) -> None:
    _lvm(f"vgchange -an --devices {devices} {name}")


def _opened(
    group: Group, volume: LogicalVolume, problem: str, stack: ExitStack
) -> Device | LvmError:
    # LVM makes device-mapper's uuid of both; names could collide.
    node = dm.node_by_uuid(f"LVM-{group.facts.uuid}{volume.facts.uuid}")
    if node is None:
        return LvmError(problem or "lvm did not make a device for it")
    try:
        if not volume.is_direct:
            seal(node)
        device = open_device(node)
    except (OSError, DeviceError) as error:
        return LvmError(str(error))
    stack.callback(device.close)
    return device


def as_volume(group_address: str, volume: LogicalVolume, device: Device) -> Volume:
    """The activated volume as something to look into."""
    return Volume(
        address=f"{group_address}/{volume.facts.name}",
        kind=Kind.LOGICAL_VOLUME,
        parents=[group_address],
        offset=None,
        # lvs gives a snapshot the size of its changes; the device has that of its origin.
        size=device.size,
        device=device,
        start=0,
        node=device.path,
        logical_volume=volume.facts,
    )


def _lvm(command: str) -> Completed:
    try:
        return finish(standby.take(), standby.argv, timeout=_TIMEOUT, stdin=f"{command}\n".encode())
    except CommandError as error:
        raise LvmError(str(error)) from error


def _words(done: Completed) -> str:
    """What lvm complained about: in JSON mode it writes that into its log, on standard output."""
    lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines()]
    lines += [
        json.loads(f'"{found[1].decode("utf-8", "replace")}"')
        for found in re.finditer(
            rb'"log_type":"error".*"log_message":"((?:[^"\\]|\\.)*)"', done.stdout
        )
    ]
    return "; ".join(line for line in lines if line)[:1000]


def lvm_version() -> str:
    """LVM's own version, such as 2.03.31(2)."""
    found = re.search(rb"LVM version: *([0-9.()]+)", _lvm("version").stdout)
    return found[1].decode() if found else "?"
