"""A volume: a run of bytes in the guest that something may be on."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.agent.device import Device
from appliance.image import ImageFacts
from appliance.layer import (
    ArrayFacts,
    Kind,
    PartitionEntry,
    ShadowCopyFacts,
    SubvolumeFacts,
    VolumeFacts,
)


@dataclass(frozen=True, slots=True)
class Volume:
    """What becomes a layer once its content is known.

    The bytes are `size` bytes at `start` of `device`; `node` is the block device for exactly
    these bytes, None where the kernel made none. With `subvolume` it is only that part of the file
    system on them. `offset` is the layer's (docs/reference).
    `incomplete` where it is known that some of the bytes are missing; `padded` then has zeros for
    them, where that can be, so that what is there can be recognised: nothing else reads it.
    `companions` are the nodes of the other devices of a file system that lies on several; it
    cannot be mounted without naming them. `total` is the size of the whole where that is more
    than the bytes that can be read here.
    `writable`: it is on the way to what is repaired, on an overlay of the host's.
    """

    address: str
    kind: Kind
    parents: list[str]
    offset: int | None
    size: int
    device: Device
    start: int
    node: str | None
    partition: PartitionEntry | None = None
    logical_volume: VolumeFacts | None = None
    incomplete: bool = False
    padded: Device | None = None
    subvolume: SubvolumeFacts | None = None
    shadow_copy: ShadowCopyFacts | None = None
    image: ImageFacts | None = None
    array: ArrayFacts | None = None
    companions: tuple[str, ...] = ()
    total: int | None = None
    writable: bool = False

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset` of the volume; short at its end. Raises OSError."""
        wanted = max(0, min(length, self.size - offset))
        return self.device.read(self.start + offset, wanted) if offset >= 0 else b""
