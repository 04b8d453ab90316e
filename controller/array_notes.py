"""What a report says below an array, and below what it is made of."""

from __future__ import annotations

from collections.abc import Callable

from appliance.layer import Layer
from controller.sizes import count, human


def array_notes(layer: Layer, show: Callable[[str | bytes], str]) -> list[str]:
    """Items about what is put together from several devices, none for any other layer."""
    array = layer.array
    if array is None:
        return []
    version = f" {show(array.version)}" if array.version else ""
    items = [f"{show(array.level)} ({show(array.format)}{version})"]
    if array.name:
        items.append(f"named {show(array.name)}")
    if array.missing:
        items.append(f"{array.missing} of {count(array.devices, 'device')} missing")
    if array.chunk_size:
        items.append(f"chunks of {human(array.chunk_size)}")
    if array.layout:
        items.append(show(array.layout))
    if array.state:
        items.append(show(array.state))
    return items
