"""What a layout's disks hold, written down by hand: the product's code has no part in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["disk", "partition", "volume-group", "logical-volume"]


@dataclass(frozen=True)
class Expected:
    """One layer. None means: nothing there, or (offset, identity) nothing to compare.

    `size` is what the table or the metadata says, `present` how much of that the disk has, where
    that is less. `offset` counts from the start of the layer's disk, for partitions only.
    `content` is libblkid's TYPE with its `label` and `uuid`; `table` is its PTTYPE. `name` and
    `identity` are the layer's own: GPT partition name and UUID, group or volume UUID. Bytes that
    are not valid UTF-8 are in `label` as surrogate escapes (`os.fsencode` gives them back), a lone
    surrogate of a GPT name is itself.
    """

    address: str
    kind: Kind
    size: int
    offset: int | None = None
    present: int | None = None
    content: str | None = None
    label: str | None = None
    uuid: str | None = None
    table: str | None = None
    table_uuid: str | None = None
    name: str | None = None
    identity: str | None = None
    extended: bool = False
    bootable: bool = False
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Disks in the order in which they are to be attached, what they hold, and the gaps.

    `gaps` are the bytes of each disk outside all partitions but the extended one (table and
    boot records included): partitions + gaps = disk, for disks with a table. `files` names a
    file per layer with its content.
    """

    disks: tuple[Path, ...]
    expected: tuple[Expected, ...]
    gaps: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)

    def find(self, address: str) -> Expected:
        """The layer of an address."""
        return next(layer for layer in self.expected if layer.address == address)
