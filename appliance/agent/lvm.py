"""LVM2's own tool: it activates what lies on more than plain extents, and reads what we cannot.

Snapshots, thin pools, RAID and caches need to write to open at all (their headers and superblocks),
so LVM is only ever shown throw-away overlays in the guest's memory (overlay.py), under a name and
UUID of their own (lvm2/stand_in.py). Linear and striped volumes need no LVM (lvm2/table.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from appliance.agent import dm
from appliance.agent.command import CommandError, Completed, finish
from appliance.agent.lvm2.group import SAFE_NAME
from appliance.agent.standby import Standby
from appliance.agent.volume import Volume
from appliance.layer import GroupFacts, VolumeFacts

CONFIGURATION = """\
devices { dir="/dev" scan=["/dev"] use_devicesfile=0 scan_lvs=1 obtain_device_list_from_udev=0
    external_device_info_source="none" multipath_component_detection=0 md_component_detection=0
    fw_raid_component_detection=0 preferred_names=["^/dev/dm-"] }
activation { udev_sync=0 udev_rules=0 monitoring=0 use_mlockall=0 reserved_memory=0
    reserved_stack=0 }
backup { backup=0 archive=0 }
global { use_lvmpolld=0 use_lvmlockd=0 event_activation=0 metadata_read_only=1 units="b" suffix=0 }
report { output_format="json" }
shell { history_size=0 }
"""
"""For /etc/lvm/lvm.conf: no udev, no daemons, nothing is ever written to metadata."""

_COLUMNS = "lv_name,lv_uuid,lv_size,lv_layout,lv_role,origin,pool_lv"
_REPORT = (
    "fullreport --units b --nosuffix "
    "--configreport vg -o vg_name,vg_uuid,vg_size,vg_extent_size,vg_free,pv_count,"
    "vg_missing_pv_count "
    "--configreport pv -o pv_name,pv_uuid "
    f"--configreport lv -a -o {_COLUMNS} "
    "--configreport seg -o lv_uuid --configreport pvseg -o pv_uuid"
)
_TIMEOUT = 60.0

standby = Standby(["/usr/sbin/lvm"])
"""lvm shells that wait for their first command; a started process is in the saved state."""


class LvmError(Exception):
    """LVM's metadata could not be read or a volume could not be activated."""


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A visible logical volume as LVM reports it; `size` in bytes."""

    facts: VolumeFacts
    size: int

    @property
    def is_pool(self) -> bool:
        """A thin or cache pool holds other volumes' blocks and has no content of its own."""
        return "pool" in self.facts.layout


@dataclass(frozen=True, slots=True)
class Group:
    """A volume group with its size in bytes, the members that are here, and visible volumes."""

    facts: GroupFacts
    size: int
    members: list[Volume]
    volumes: list[LogicalVolume]


@dataclass(frozen=True, slots=True)
class Activated:
    """UUID of a logical volume -> what LVM says of it, and its node where it has one.

    `problem` is what LVM complained about, "" if nothing.
    """

    facts: dict[str, VolumeFacts]
    nodes: dict[str, str]
    problem: str


def read_groups(members: list[Volume]) -> list[Group]:
    """Have LVM read the groups that these physical volumes belong to. Raises LvmError."""
    nodes = {member.node: member for member in members if member.node}
    if not nodes:
        return []
    done = _lvm(f"{_REPORT} --devices {','.join(nodes)}")
    try:
        reports = _documents(done)[0]["report"]
    except (KeyError, TypeError, IndexError) as error:
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
    if not SAFE_NAME.fullmatch(facts.name):
        raise LvmError("a volume group has a name that LVM does not allow")
    members = [nodes[pv["pv_name"]] for pv in report.get("pv", []) if pv["pv_name"] in nodes]
    volumes = [
        LogicalVolume(_facts(lv), int(lv["lv_size"]))
        for lv in report.get("lv", [])
        # lvs -a puts the parts that a volume is made of into brackets.
        if not lv["lv_name"].startswith("[")
    ]
    return Group(facts, int(row["vg_size"]), members, volumes)


def _facts(row: dict[str, Any]) -> VolumeFacts:
    facts = VolumeFacts(
        name=row["lv_name"],
        uuid=row["lv_uuid"],
        layout=row["lv_layout"].split(","),
        role=row["lv_role"].split(","),
        origin=row["origin"].strip("[]") or None,
        pool=row["pool_lv"].strip("[]") or None,
    )
    if not SAFE_NAME.fullmatch(facts.name):
        raise LvmError("a logical volume has a name that LVM does not allow")
    return facts


def activate(
    group: str, uuid: str, nodes: Sequence[str], volumes: Sequence[str], stack: ExitStack
) -> Activated:
    """Activate volumes of the group that lies on these overlays, in one process of LVM.

    `uuid` is the group's own; `stack` takes the devices down again. Raises LvmError.
    """
    devices = f"--devices {','.join(nodes)}"
    targets = " ".join(f"{group}/{name}" for name in volumes)
    prefix = f"LVM-{uuid.replace('-', '')}"
    stack.callback(dm.remove_all, prefix)
    done = _lvm(
        f"lvs -a --units b --nosuffix -o {_COLUMNS} {devices} {group}\n"
        "lvchange -ay -K -y --activationmode partial --config 'global{metadata_read_only=0}' "
        f"{devices} {targets}"
    )
    try:
        rows = [row for document in _documents(done) for row in _rows(document)]
        facts = {row["lv_uuid"]: _facts(row) for row in rows if row["lv_name"] in volumes}
    except (ValueError, KeyError, TypeError) as error:
        raise LvmError(f"lvm's report makes no sense: {error}") from error
    made = dm.nodes_by_uuid(prefix)
    found = {each: made[each.replace("-", "")] for each in facts if each.replace("-", "") in made}
    # The shell ends with status 0 whatever its commands said, so only the words tell.
    return Activated(facts, found, _words(done))


def _rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for each in document.get("report", []) for row in each.get("lv", [])]


def _documents(done: Completed) -> list[dict[str, Any]]:
    """What the shell wrote: a report, and its log, for each command."""
    decoder = json.JSONDecoder()
    text = done.stdout.decode("utf-8", "replace")
    found: list[dict[str, Any]] = []
    at = text.find("{")
    while at >= 0:
        try:
            document, end = decoder.raw_decode(text, at)
        except ValueError:
            break
        found.append(document)
        at = text.find("{", end)
    return found


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
