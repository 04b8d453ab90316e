"""Which metadata counts, and which physical volumes belong to it.

As in LVM, the text with the highest sequence number counts, of those that fit their checksums. Only
where there is none, one that does not fit is taken, if it can be read at all: LVM would give up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.agent.lvm2 import area
from appliance.agent.lvm2.area import Area, Copy, Label
from appliance.agent.lvm2.group import SECTOR, MetadataError, VolumeGroup, read_group
from appliance.agent.volume import Volume
from appliance.layer import Finding, Severity


@dataclass(frozen=True, slots=True)
class Labelled:
    """A physical volume, its label (None where that is lost), and its copies of the metadata."""

    volume: Volume
    label: Label | None
    copies: list[Copy]


@dataclass(frozen=True, slots=True)
class Assembled:
    """A group and what there is of it: name of a physical volume -> the volume."""

    group: VolumeGroup
    members: dict[str, Labelled]


@dataclass(slots=True)
class Reading:
    """What came of reading: groups, volumes to ask LVM about, and what is to be told."""

    groups: list[Assembled] = field(default_factory=list)
    unread: list[Volume] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def read(volumes: list[Volume]) -> Reading:
    """Read the groups that these physical volumes belong to."""
    reading = Reading()
    here = [each for volume in volumes if (each := _labelled(volume, reading))]
    parsed = _parse(here, reading)
    waiting = list(here)
    for group in _choose(here, parsed, reading):
        assembled = Assembled(group, _members(group, waiting, parsed, reading))
        reading.groups.append(assembled)
        taken = [id(each) for each in assembled.members.values()]
        waiting = [each for each in waiting if id(each) not in taken]
    for each in waiting:
        _tell_left(each, parsed, reading)
    return reading


def _labelled(volume: Volume, reading: Reading) -> Labelled | None:
    try:
        label = area.read_label(volume.read)
        areas = label.areas if label else [Area(area.USUAL_OFFSET, _usual_size(volume))]
        copies = [each for place in areas if (each := area.read_copy(volume.read, place))]
    except OSError as error:
        reading.findings.append(
            Finding(
                Severity.ERROR, volume.address, "unreadable", f"LVM's label or metadata: {error}"
            )
        )
        return None
    if label is None:
        reading.findings.append(
            Finding(
                Severity.WARNING,
                volume.address,
                "label-damaged",
                "the label of this physical volume is lost; its metadata is still there",
            )
        )
    elif not label.is_good:
        reading.findings.append(
            Finding(
                Severity.WARNING,
                volume.address,
                "label-damaged",
                "the label of this physical volume does not fit its checksum; LVM itself would not "
                "see the volume",
            )
        )
    return Labelled(volume, label, copies)


def _usual_size(volume: Volume) -> int:
    """What the header says itself; its place is known, its end is not."""
    header = volume.read(area.USUAL_OFFSET, SECTOR)
    return int.from_bytes(header[32:40], "little")


def _parse(here: list[Labelled], reading: Reading) -> dict[bytes, VolumeGroup]:
    """Every different text once; what cannot be read is told, and is not in the answer."""
    parsed: dict[bytes, VolumeGroup] = {}
    failed: dict[bytes, str] = {}
    for each in here:
        for number, copy in enumerate(each.copies, start=1):
            problem = copy.problem
            if copy.text and copy.text not in parsed:
                try:
                    parsed[copy.text] = read_group(copy.text)
                except MetadataError as error:
                    failed[copy.text] = str(error)
            if copy.text in failed:
                problem = "; ".join(filter(None, [problem, failed[copy.text]]))
            if problem:
                words = f"copy {number} of {len(each.copies)} of the LVM metadata: {problem}"
                reading.findings.append(
                    Finding(Severity.WARNING, each.volume.address, "metadata-damaged", words)
                )
    return parsed


def _choose(
    here: list[Labelled], parsed: dict[bytes, VolumeGroup], reading: Reading
) -> list[VolumeGroup]:
    best: dict[str, tuple[bool, int, bytes]] = {}
    for each in here:
        for copy in each.copies:
            if group := parsed.get(copy.text):
                rank = (not copy.problem, group.seqno)
                if group.uuid not in best or rank > best[group.uuid][:2]:
                    best[group.uuid] = (*rank, copy.text)
    for each in here:
        for copy in each.copies:
            if (group := parsed.get(copy.text)) and not copy.problem:
                _compare(each, group, parsed[best[group.uuid][2]], reading)
    return [parsed[text] for _, _, text in best.values()]


def _compare(each: Labelled, group: VolumeGroup, chosen: VolumeGroup, reading: Reading) -> None:
    if group is chosen:
        return
    if group.seqno < chosen.seqno:
        what = "is older than that of the others"
    else:
        what = "differs from that of the others"
    message = (
        f"its copy of the metadata of {chosen.name} (sequence number {group.seqno}) {what}; "
        f"number {chosen.seqno} counts"
    )
    reading.findings.append(
        Finding(Severity.WARNING, each.volume.address, "metadata-outdated", message)
    )


def _members(
    group: VolumeGroup,
    waiting: list[Labelled],
    parsed: dict[bytes, VolumeGroup],
    reading: Reading,
) -> dict[str, Labelled]:
    members: dict[str, Labelled] = {}
    by_uuid = {each.label.uuid: each for each in waiting if each.label}
    seen: set[str] = set()
    for name, pv in group.pvs.items():
        if pv.uuid in seen and pv.uuid in by_uuid:
            message = f"the metadata of {group.name} lists this physical volume twice"
            reading.findings.append(
                Finding(
                    Severity.WARNING, by_uuid[pv.uuid].volume.address, "metadata-damaged", message
                )
            )
        elif pv.uuid in by_uuid:
            members[name] = by_uuid[pv.uuid]
        seen.add(pv.uuid)
    _take_unlabelled(group, waiting, parsed, members)
    return {name: members[name] for name in group.pvs if name in members}


def _take_unlabelled(
    group: VolumeGroup,
    waiting: list[Labelled],
    parsed: dict[bytes, VolumeGroup],
    members: dict[str, Labelled],
) -> None:
    """Give a volume without a label the place that it has the size for, or the only one left."""
    for each in waiting:
        if each.label or not any(
            copy.text in parsed and parsed[copy.text].uuid == group.uuid for copy in each.copies
        ):
            continue
        free = [pv for pv in group.pvs.values() if pv.name not in members]
        fitting = [pv for pv in free if pv.size == each.volume.size // SECTOR]
        choice = fitting if len(fitting) == 1 else free
        if len(choice) == 1:
            members[choice[0].name] = each


def _tell_left(each: Labelled, parsed: dict[bytes, VolumeGroup], reading: Reading) -> None:
    texts = [copy for copy in each.copies if copy.text]
    if any(copy.text not in parsed and not copy.problem for copy in texts):
        reading.unread.append(each.volume)
        return
    own = next((parsed[copy.text] for copy in texts if copy.text in parsed), None)
    message = "this physical volume belongs to no volume group that could be read"
    if own is not None:
        message = (
            f"the group {own.name} that this physical volume names does not list it, or not at a "
            "place that can be told; it was removed from it, or it is a copy"
        )
    reading.findings.append(Finding(Severity.WARNING, each.volume.address, "no-group", message))
