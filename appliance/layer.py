"""The words for what is on a disk, shared by the agent that finds it and the host that prints it.

A layer is one thing that occupies bytes: a disk, a partition, a gap, a volume group, a logical
volume. Layers form a graph through `parents` (a volume group has several), drawn as a tree.
All sizes and offsets are in bytes. Everything here is also JSON (docs/reference/inspect.md): a
field that is added later must not rename one that is here.

The host decodes these types from a hostile guest, so every constructor checks its own bounds and
raises ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from appliance.array import ArrayFacts as ArrayFacts
from appliance.array import ArrayMember as ArrayMember
from appliance.bounds import MAX_BYTES as MAX_BYTES
from appliance.bounds import MAX_LIST as MAX_LIST
from appliance.bounds import MAX_TEXT as MAX_TEXT
from appliance.bounds import check_bytes as check_bytes
from appliance.bounds import check_list as check_list
from appliance.bounds import check_text as check_text
from appliance.image import ImageFacts
from appliance.part import ShadowCopyFacts as ShadowCopyFacts
from appliance.part import SubvolumeFacts as SubvolumeFacts


class Kind(StrEnum):
    """What a layer is."""

    DISK = "disk"
    PARTITION = "partition"
    GAP = "gap"
    CRYPT = "crypt"
    ARRAY = "array"
    VOLUME_GROUP = "volume-group"
    LOGICAL_VOLUME = "logical-volume"
    SUBVOLUME = "subvolume"
    SHADOW_COPY = "shadow-copy"


class Status(StrEnum):
    """How far a layer could be read."""

    MAPPED = "mapped"
    LOCKED = "locked"
    UNSUPPORTED = "unsupported"
    DAMAGED = "damaged"
    LIMIT = "limit"


class Severity(StrEnum):
    """How much a finding matters. Anything above INFO makes the exit code 1."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ExtState:
    """What the superblock of an ext2, ext3 or ext4 file system says, as `tune2fs -l` shows it.

    Times are seconds since the epoch, None where the superblock holds 0 ("never").
    """

    state: str
    errors_behavior: str
    mount_count: int
    maximum_mount_count: int
    created: int | None
    last_mounted: int | None
    last_written: int | None
    last_checked: int | None
    check_interval: int
    last_mounted_on: str
    features: list[str]
    block_count: int
    free_blocks: int
    inode_count: int
    free_inodes: int
    inode_size: int
    error_count: int

    def __post_init__(self) -> None:
        check_text(self.state, self.errors_behavior, self.last_mounted_on, *self.features)
        check_list(self.features)
        numbers = (getattr(self, name) for name in self.__slots__)
        if any(isinstance(each, int) and not -(2**63) <= each < 2**64 for each in numbers):
            raise ValueError("a number of a superblock has more than 64 bits")


@dataclass(frozen=True, slots=True)
class Content:
    """What was recognised on a layer.

    `type` is libblkid's TYPE. `label` is text; where the bytes on disk are not valid UTF-8,
    `label_base64` holds them exactly and `label` replaces the invalid ones by U+FFFD.
    `size`, `used` and `free` are the file system's own account, None where it keeps none.
    """

    type: str
    usage: str | None = None
    version: str | None = None
    label: str | None = None
    label_base64: str | None = None
    uuid: str | None = None
    block_size: int | None = None
    size: int | None = None
    used: int | None = None
    free: int | None = None
    ext: ExtState | None = None

    def __post_init__(self) -> None:
        check_text(self.type, self.usage, self.version, self.label, self.label_base64, self.uuid)
        check_bytes(self.block_size, self.size, self.used, self.free)


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table found on a layer; `type` is libblkid's PTTYPE (dos, gpt, …)."""

    type: str
    uuid: str | None
    sector_size: int

    def __post_init__(self) -> None:
        check_text(self.type, self.uuid)
        check_bytes(self.sector_size)


@dataclass(frozen=True, slots=True)
class PartitionEntry:
    """A partition's own row of its table.

    `type` is the MBR type as 0x83 or the GPT type GUID, `type_name` its usual name if known.
    """

    number: int
    type: str
    type_name: str | None
    name: str | None
    uuid: str | None
    bootable: bool
    extended: bool
    logical: bool

    def __post_init__(self) -> None:
        check_text(self.type, self.type_name, self.name, self.uuid)
        check_bytes(self.number)


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """An LVM2 volume group as its metadata describes it; sizes in bytes."""

    name: str
    uuid: str
    extent_size: int
    free: int
    physical_volumes: int
    missing_physical_volumes: int

    def __post_init__(self) -> None:
        check_text(self.name, self.uuid)
        check_bytes(self.extent_size, self.free, self.physical_volumes)
        check_bytes(self.missing_physical_volumes)


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """An LVM2 logical volume; `layout` as lvs(8) names it (linear, striped, mirror, thin …)."""

    name: str
    uuid: str
    layout: list[str]
    role: list[str]
    origin: str | None
    pool: str | None

    def __post_init__(self) -> None:
        check_text(self.name, self.uuid, self.origin, self.pool, *self.layout, *self.role)
        check_list(self.layout)
        check_list(self.role)


@dataclass(frozen=True, slots=True)
class Keyslot:
    """One of the ways to open an encrypted volume: what deriving its key costs.

    `memory` is in bytes; None where the function needs none to speak of (PBKDF2).
    """

    number: int
    kdf: str
    iterations: int
    memory: int | None

    def __post_init__(self) -> None:
        check_text(self.kdf)
        check_bytes(self.number, self.iterations, self.memory)


@dataclass(frozen=True, slots=True)
class Encryption:
    """What the header of an encrypted volume says, and what came of the keys that were given.

    `scheme` is luks1, luks2, bitlocker, filevault2, truecrypt or veracrypt; `opened_by` counts from
    1 in the order in which the keys were given, None where none has opened it.
    """

    scheme: str
    cipher: str | None = None
    key_bits: int | None = None
    keyslots: list[Keyslot] = field(default_factory=list)
    keys_tried: int = 0
    opened_by: int | None = None

    def __post_init__(self) -> None:
        check_text(self.scheme, self.cipher)
        check_bytes(self.key_bits, self.keys_tried, self.opened_by)
        check_list(self.keyslots)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. `offset` is set only where it is one contiguous slice of its only parent."""

    address: str
    kind: Kind
    parents: list[str]
    offset: int | None
    size: int
    status: Status
    content: Content | None = None
    table: Table | None = None
    partition: PartitionEntry | None = None
    group: GroupFacts | None = None
    volume: VolumeFacts | None = None
    encryption: Encryption | None = None
    subvolume: SubvolumeFacts | None = None
    shadow_copy: ShadowCopyFacts | None = None
    image: ImageFacts | None = None
    array: ArrayFacts | None = None

    def __post_init__(self) -> None:
        check_text(self.address, *self.parents)
        check_list(self.parents)
        check_bytes(self.offset, self.size)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth a line to the user; `layer` is an address or None for the whole run."""

    severity: Severity
    layer: str | None
    code: str
    message: str

    def __post_init__(self) -> None:
        check_text(self.layer, self.code, self.message)
