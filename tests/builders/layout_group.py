"""The layout of one LVM group over two disks; see layouts.py."""

import random
from pathlib import Path

from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.expected import Expected, Layout
from tests.builders.ext4 import Entry, make_ext4
from tests.builders.lvm import PhysicalVolume, Segment, Volume, make_group

GROUP_UUID = "GroupX-0001-0002-0003-0004-0005-000006"
PV_UUIDS = ("PvZero-0001-0002-0003-0004-0005-000006", "PvZone-0001-0002-0003-0004-0005-000006")
LINEAR_UUID = "LinLvX-0001-0002-0003-0004-0005-000006"
STRIPED_UUID = "StrLvX-0001-0002-0003-0004-0005-000006"
LINEAR_EXT4 = "e4000000-0000-4000-8000-0000000000a1"
STRIPED_EXT4 = "e4000000-0000-4000-8000-0000000000a2"

LARGE = random.Random(7).randbytes(9 * MIB + 4321)
"""A file that needs many stripes, and more than one group of blocks."""


def two_disks_one_group(folder: Path) -> Layout:
    """Two MBR disks of 64 MiB, each with 60 MiB of group `lvg2` from MiB 1 on.

    Extents of 1 MiB, 59 on each. `linear`: 0–39 of the first, then 0–9 of the second.
    `striped`: 64 KiB stripes over 40–55 of the first and 10–25 of the second.
    """
    entries = (Entry("large.bin", LARGE),)
    linear = make_ext4(folder / "linear", 50 * MIB, "linear", LINEAR_EXT4, entries)
    striped = make_ext4(folder / "striped", 32 * MIB, "striped", STRIPED_EXT4, entries)
    pvs = [
        PhysicalVolume(folder / f"pv{index}", 60 * MIB, uuid) for index, uuid in enumerate(PV_UUIDS)
    ]
    volumes = [
        Volume(
            "linear",
            image=linear,
            uuid=LINEAR_UUID,
            segments=(Segment(40, ((0, 0),)), Segment(10, ((1, 0),))),
        ),
        Volume(
            "striped",
            image=striped,
            uuid=STRIPED_UUID,
            segments=(Segment(32, ((0, 40), (1, 10)), 64 * 1024),),
        ),
    ]
    make_group("lvg2", pvs, volumes, extent_size=MIB, uuid=GROUP_UUID)
    disks = tuple(
        make_disk(
            folder / f"disk{index}.raw",
            64 * MIB,
            "dos",
            [Partition(MIB // SECTOR, pv.size // SECTOR, "8e", pv.path)],
            f"0x1f10000{index}",
        )
        for index, pv in enumerate(pvs)
    )
    content = ("large.bin", LARGE)
    files = {"lvg2/linear": content, "lvg2/striped": content}
    return Layout(disks, EXPECTED, {"disk0": 4 * MIB, "disk1": 4 * MIB}, files)


EXPECTED = (
    Expected("disk0", "disk", 67108864, table="dos", table_uuid="1f100000"),
    Expected("disk0/p1", "partition", 62914560, 1048576, content="LVM2_member", uuid=PV_UUIDS[0]),
    Expected("disk1", "disk", 67108864, table="dos", table_uuid="1f100001"),
    Expected("disk1/p1", "partition", 62914560, 1048576, content="LVM2_member", uuid=PV_UUIDS[1]),
    Expected(
        "lvg2",
        "volume-group",
        123731968,
        identity=GROUP_UUID,
        parents=("disk0/p1", "disk1/p1"),
    ),
    Expected(
        "lvg2/linear",
        "logical-volume",
        52428800,
        content="ext4",
        label="linear",
        uuid=LINEAR_EXT4,
        identity=LINEAR_UUID,
        parents=("lvg2",),
    ),
    Expected(
        "lvg2/striped",
        "logical-volume",
        33554432,
        content="ext4",
        label="striped",
        uuid=STRIPED_EXT4,
        identity=STRIPED_UUID,
        parents=("lvg2",),
    ),
)
