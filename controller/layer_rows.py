"""What a report says about one layer: the values of its columns, and the notes below them."""

from __future__ import annotations

import base64
import binascii
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from appliance.layer import Content, ExtState, Kind, Layer, PartitionEntry, Status
from controller.array_notes import array_notes
from controller.columns import Column
from controller.image_list import about
from controller.part_notes import part_notes
from controller.sizes import count, human, moment, sectors

COLUMNS = (
    Column("LAYER", least=40, most=60),
    Column("TYPE", least=14, most=24, rank=1),
    Column("LABEL", least=8, most=40, rank=2),
    Column("SIZE", is_number=True),
    Column("BYTES", is_number=True, rank=5),
    Column("USED", is_number=True, rank=3),
    Column("FREE", is_number=True, rank=3),
    Column("OFFSET", is_number=True, rank=5),
    Column("SECTORS", is_number=True, rank=5),
    Column("STATUS", rank=4),
    Column("UUID", least=40, most=40, rank=6),
)
"""Offsets are in bytes from the start of the layer above, sectors those of its table."""

_TABLES = {"dos": "MBR", "gpt": "GPT"}
_MAX_NAMED = 16
_DAY = 86400
_ODD_SPACE = re.compile(r"^ | $|(?<= ) ")

Show = Callable[[str | bytes], str]
"""Makes text from evidence fit to be printed."""


@dataclass(frozen=True, slots=True)
class Note:
    """Items that share lines below a layer, as many on one as fit."""

    items: list[str]
    separator: str = "; "


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of other layers is needed to describe one.

    `sector_sizes` of partition tables in bytes, by the address of the layer that has the table;
    `elsewhere` the layers that are drawn under another of their parents, by this parent's address.
    """

    sector_sizes: dict[str, int]
    elsewhere: dict[str, list[Layer]]

    @classmethod
    def of(cls, layers: list[Layer]) -> Surroundings:
        elsewhere: dict[str, list[Layer]] = defaultdict(list)
        for layer in layers:
            for parent in layer.parents[1:]:
                elsewhere[parent].append(layer)
        tables = {layer.address: layer.table for layer in layers}
        return cls({name: table.sector_size for name, table in tables.items() if table}, elsewhere)


def values_of(layer: Layer, around: Surroundings, show: Show, *, exact: bool) -> list[str]:
    """One value for each of COLUMNS, "" where there is none; `exact` adds the size in bytes."""
    content = layer.content
    used = content.used if content else None
    free = content.free if content else None
    return [
        _cell(layer.address, show),
        _cell(type_of(layer), show),
        _label(content, show),
        human(layer.size),
        str(layer.size) if exact else "",
        "" if used is None else human(used),
        "" if free is None else human(free),
        "" if layer.offset is None else str(layer.offset),
        _sectors(layer, around),
        "" if layer.status is Status.MAPPED else layer.status.value,
        _cell(_uuid(layer), show),
    ]


def type_of(layer: Layer) -> str:
    """In one word what is there: the content, else what the partition is for, else the kind."""
    table = _table_name(layer)
    if layer.content:
        return f"{layer.content.type}, {table}" if table else layer.content.type
    if layer.kind is Kind.GAP:
        return "unallocated"
    if layer.partition:
        return layer.partition.type_name or layer.partition.type
    if layer.volume:
        return " ".join(layer.volume.layout)
    return table or layer.kind.replace("-", " ")


def _table_name(layer: Layer) -> str:
    return _TABLES.get(layer.table.type, layer.table.type) if layer.table else ""


def _label(content: Content | None, show: Show) -> str:
    if content is None or content.label is None:
        return ""
    return _cell(exact_label(content), show)


def exact_label(content: Content) -> str | bytes:
    """The bytes on disk where they are not text, else the label."""
    if content.label_base64:
        try:
            return base64.b64decode(content.label_base64, validate=True)
        except (binascii.Error, ValueError):
            return content.label or ""
    return content.label or ""


def _cell(value: str | bytes, show: Show) -> str:
    r"""Escaped so that it cannot pass for several columns or for none: odd spaces become \x20."""
    text = _ODD_SPACE.sub(r"\\x20", show(value))
    return r"\x2d" if text == "-" else text


def _uuid(layer: Layer) -> str:
    facts = layer.group or layer.volume or layer.array
    candidates = (
        layer.content.uuid if layer.content else None,
        facts.uuid if facts else None,
        layer.table.uuid if layer.table else None,
    )
    return next((uuid for uuid in candidates if uuid), "")


def _sectors(layer: Layer, around: Surroundings) -> str:
    size = around.sector_sizes.get(layer.parents[0]) if layer.parents else None
    return sectors(layer.offset, layer.size, size) if size and layer.offset is not None else ""


def notes_of(layer: Layer, around: Surroundings, show: Show, *, verbose: bool) -> list[Note]:
    """The notes below a layer, each with at least one item."""
    facts = [*_relations(layer, around, show), *_volume(layer, show)]
    notes = [Note(facts), Note(about(layer.image, show))]
    notes += [Note(part_notes(layer, show)), Note(_encryption(layer, show))]
    notes.append(Note(array_notes(layer, show)))
    if layer.content and layer.content.ext:
        notes.append(Note(_ext(layer.content.ext, show)))
    if verbose:
        notes += _details(layer, show)
    return [note for note in notes if note.items]


def _relations(layer: Layer, around: Surroundings, show: Show) -> list[str]:
    items = []
    if layer.parents[1:]:
        items.append(f"also on {_names(layer.parents[1:], show)}")
    items += [
        f"part of {show(other.address)}, shown under {show(other.parents[0])}"
        for other in around.elsewhere.get(layer.address, [])[:_MAX_NAMED]
    ]
    if layer.group and layer.group.missing_physical_volumes:
        missing = layer.group.missing_physical_volumes
        items.append(
            f"{missing} of {count(layer.group.physical_volumes, 'physical volume')} missing"
        )
    return items


def _names(addresses: list[str], show: Show) -> str:
    named = ", ".join(show(address) for address in addresses[:_MAX_NAMED])
    rest = len(addresses) - _MAX_NAMED
    return f"{named} and {rest} more" if rest > 0 else named


def _volume(layer: Layer, show: Show) -> list[str]:
    volume = layer.volume
    if volume is None:
        return []
    # Without content the layout is what stands in the column for the type.
    is_said = layer.content is None or volume.layout == ["linear"]
    items = [] if is_said else [show(", ".join(volume.layout))]
    if volume.origin:
        items.append(f"made from {show(volume.origin)}")
    if volume.pool:
        items.append(f"in pool {show(volume.pool)}")
    return items


def _encryption(layer: Layer, show: Show) -> list[str]:
    facts = layer.encryption
    if facts is None:
        return []
    items = [show(facts.scheme)]
    if facts.cipher:
        bits = f" with {facts.key_bits} bits" if facts.key_bits else ""
        items.append(f"{show(facts.cipher)}{bits}")
    if facts.keyslots:
        named = ", ".join(
            f"{slot.number} ({show(slot.kdf)})" for slot in facts.keyslots[:_MAX_NAMED]
        )
        items.append(f"{count(len(facts.keyslots), 'keyslot')}: {named}")
    if facts.opened_by:
        items.append(f"opened by key {facts.opened_by}")
    elif facts.keys_tried:
        items.append(f"{count(facts.keys_tried, 'key')} tried, none opened it")
    return items


def _ext(ext: ExtState, show: Show) -> list[str]:
    limit = f" of at most {ext.maximum_mount_count}" if ext.maximum_mount_count > 0 else ""
    where = f" on {show(ext.last_mounted_on)}" if ext.last_mounted_on else ""
    mounted = "never" if ext.last_mounted is None else moment(ext.last_mounted)
    checked = "never" if ext.last_checked is None else moment(ext.last_checked)
    return [
        show(ext.state),
        f"mounted {count(ext.mount_count, 'time')}{limit} since the last check",
        f"last checked {checked}",
        f"last mounted {mounted}{where}",
    ]


def _details(layer: Layer, show: Show) -> list[Note]:
    notes = [Note(_entry(layer.partition, show)), Note(_content(layer, show))]
    if layer.group:
        group = layer.group
        extents = f"extents of {human(group.extent_size)}"
        notes.append(Note([count(group.physical_volumes, "physical volume"), extents]))
    ext = layer.content.ext if layer.content else None
    if ext:
        notes.append(Note(_ext_details(ext, show)))
        if ext.features:
            features = [show(feature) for feature in ext.features]
            notes.append(Note(["features:", *features], " "))
    return notes


def _entry(entry: PartitionEntry | None, show: Show) -> list[str]:
    if entry is None:
        return []
    name = f" ({show(entry.type_name)})" if entry.type_name else ""
    items = [f"table entry {entry.number}: type {show(entry.type)}{name}"]
    if entry.name:
        items.append(f"name {show(entry.name)}")
    if entry.uuid:
        items.append(f"partition UUID {show(entry.uuid)}")
    marks = (("bootable", entry.bootable), ("logical", entry.logical))
    return items + [mark for mark, is_set in marks if is_set]


def _content(layer: Layer, show: Show) -> list[str]:
    content = layer.content
    if content is None:
        return []
    items = [f"version {show(content.version)}"] if content.version else []
    numbers = (
        ("blocks of", content.block_size),
        ("file system size", content.size),
        ("used", content.used),
        ("free", content.free),
    )
    items += [f"{name} {number} bytes" for name, number in numbers if number is not None]
    if layer.table and layer.table.uuid and content.uuid:
        items.append(f"table UUID {show(layer.table.uuid)}")
    return items


def _ext_details(ext: ExtState, show: Show) -> list[str]:
    times = (("created", ext.created), ("last written", ext.last_written))
    items = [f"{name} {moment(at)}" for name, at in times if at is not None]
    if ext.check_interval > 0:
        items.append(f"check due every {count(ext.check_interval // _DAY, 'day')}")
    return [
        *items,
        f"{ext.free_inodes} of {count(ext.inode_count, 'inode')} free",
        f"inodes of {ext.inode_size} bytes",
        f"on errors: {show(ext.errors_behavior)}",
        f"errors recorded: {ext.error_count}",
    ]
