"""The subvolumes and snapshots of a btrfs file system.

Source: Linux include/uapi/linux/btrfs_tree.h (struct btrfs_root_item, btrfs_root_ref,
btrfs_inode_ref); little endian.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from appliance.agent.filesystem.btrfs_tree import Key, Trees
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume

TOP, FIRST, LAST = 5, 256, 2**64 - 257
INODE_REF, ROOT_ITEM, ROOT_BACKREF = 12, 132, 144
READ_ONLY = 1 << 0
CREATED = 339
"""Where a root item has `otime`, whose seconds come first."""

MAX_SUBVOLUMES = 2048
MAX_DEPTH = 64
MAX_NAME = 255
MAX_PATH = 4000


@dataclass(frozen=True, slots=True)
class Subvolume:
    """One subvolume. `path` is from the top of the file system, None where it has no place there:
    deleted, and not yet cleaned up. `created` is in seconds since the epoch."""

    id: int
    root: int
    generation: int
    read_only: bool
    uuid: str | None
    parent_uuid: str | None
    created: int | None
    parent: int | None = None
    path: bytes | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a subvolume is: in a folder, by its inode's number, of the subvolume `parent`."""

    parent: int
    folder: int
    name: bytes


def read_subvolumes(volume: Volume) -> tuple[list[Subvolume], bool]:
    """All but the top one, by number, and whether that is all of them.

    Raises BadSuperblock, and OSError of the device below.
    """
    trees = Trees(volume)
    found: dict[int, Subvolume] = {}
    places: dict[int, Place] = {}
    for key, item in trees.items(trees.root, Key(TOP, ROOT_ITEM, 0)):
        if key.objectid > LAST:
            break
        if key.objectid != TOP and key.objectid < FIRST:
            continue
        if len(found) > MAX_SUBVOLUMES:
            break
        if key.type == ROOT_ITEM:
            found[key.objectid] = _subvolume(key.objectid, item)
        elif key.type == ROOT_BACKREF:
            places[key.objectid] = _place(key.offset, item)
    complete = len(found) <= MAX_SUBVOLUMES
    placed = [_placed(trees, each, found, places) for each in found.values() if each.id != TOP]
    return placed, complete


def _subvolume(number: int, item: Block) -> Subvolume:
    is_long = len(item) >= CREATED + 8  # not with kernels before 3.6
    created = item.u64(CREATED) if is_long else 0
    return Subvolume(
        id=number,
        root=item.u64(176),
        generation=item.u64(160),
        read_only=bool(item.u64(208) & READ_ONLY),
        uuid=_uuid(item, 247) if is_long else None,
        parent_uuid=_uuid(item, 263) if is_long else None,
        created=created if 0 < created < 2**63 else None,
    )


def _uuid(item: Block, at: int) -> str | None:
    value = item.raw(at, 16)
    return str(UUID(bytes=value)) if any(value) else None


def _place(parent: int, item: Block) -> Place:
    return Place(parent, item.u64(0), item.raw(18, min(item.u16(16), MAX_NAME)))


def _placed(
    trees: Trees, subvolume: Subvolume, found: dict[int, Subvolume], places: dict[int, Place]
) -> Subvolume:
    """With its path; damage on the way leaves it without one."""
    place = places.get(subvolume.id)
    if place is None:
        return subvolume
    subvolume = replace(subvolume, parent=place.parent)
    names: list[bytes] = []
    for _ in range(MAX_DEPTH):
        above = found.get(place.parent)
        if above is None:
            return subvolume
        names.insert(0, place.name)
        try:
            names[:0] = _folders(trees, above.root, place.folder)
        except BadSuperblock:
            return subvolume
        if above.id == TOP:
            path = b"/".join(names)
            return replace(subvolume, path=path) if len(path) <= MAX_PATH else subvolume
        if (further := places.get(above.id)) is None:
            return subvolume
        place = further
    return subvolume


def _folders(trees: Trees, root: int, inode: int) -> list[bytes]:
    """The names from the top of a tree down to the folder with that inode."""
    names: list[bytes] = []
    for _ in range(MAX_DEPTH):
        if inode == FIRST:
            return names
        key, item = next(trees.items(root, Key(inode, INODE_REF, 0)), (None, None))
        if key is None or item is None or (key.objectid, key.type) != (inode, INODE_REF):
            raise BadSuperblock("a folder of it has no name")
        names.insert(0, item.raw(10, min(item.u16(8), MAX_NAME)))
        inode = key.offset
    raise BadSuperblock("folders of it are nested too deeply")
