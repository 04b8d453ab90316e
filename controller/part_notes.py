"""What a report says below a subvolume or a shadow copy."""

from __future__ import annotations

from collections.abc import Callable

from appliance.layer import Layer
from controller.sizes import moment


def part_notes(layer: Layer, show: Callable[[str | bytes], str]) -> list[str]:
    """Items about a part or an older state of a file system, none for any other layer."""
    items = []
    if (part := layer.subvolume) is not None:
        if part.path is None:
            items.append("has no place in the file system")
        if part.read_only:
            items.append("read-only")
        if part.parent_uuid:
            items.append(f"snapshot of {show(part.parent_uuid)}")
        items += _made(part.created)
    if (copy := layer.shadow_copy) is not None:
        items += [f"shadow copy {show(copy.id)}", *_made(copy.created)]
    return items


def _made(created: int | None) -> list[str]:
    return [] if created is None else [f"made {moment(created)}"]
