"""The words for what shares the bytes of a file system: subvolumes, and older states of it."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.bounds import check_numbers, check_text


@dataclass(frozen=True, slots=True)
class SubvolumeFacts:
    """A subvolume or snapshot of btrfs, or a volume of an APFS container.

    `path` is from the top of the file system, None where it has none; `parent_uuid` is that of
    what it is a snapshot of. `created` is in seconds since the epoch.
    """

    id: int
    parent_id: int | None = None
    path: str | None = None
    uuid: str | None = None
    parent_uuid: str | None = None
    read_only: bool = False
    generation: int | None = None
    created: int | None = None

    def __post_init__(self) -> None:
        check_text(self.path, self.uuid, self.parent_uuid)
        check_numbers(self.id, self.parent_id, self.generation, self.created)


@dataclass(frozen=True, slots=True)
class ShadowCopyFacts:
    """A shadow copy of an NTFS volume: its identifier, and when it was made (epoch seconds)."""

    id: str
    created: int | None

    def __post_init__(self) -> None:
        check_text(self.id)
        check_numbers(self.created)
