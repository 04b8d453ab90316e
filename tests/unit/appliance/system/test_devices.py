"""Names of devices, and the layers that they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.agent.system.devices import Devices
from appliance.agent.system.fstab import parse, resolved
from appliance.layer import (
    Content,
    GroupFacts,
    Kind,
    Layer,
    PartitionEntry,
    Status,
    VolumeFacts,
)

LUKS = "0b5d3f8a-1111-4000-8000-000000000001"
ARRAY = "3f1c2d4e-aaaa-bbbb-cccc-0123456789ab"


def layer(address: str, kind: Kind, parents: list[str], **facts: object) -> Layer:
    return Layer(address, kind, parents, None, 1, Status.MAPPED, **facts)  # type: ignore[arg-type]


def partition(address: str, number: int, content: Content | None = None) -> Layer:
    name = address.split("/", maxsplit=1)[0]
    entry = PartitionEntry(
        number, "0x83", None, f"part {number}", f"0FF1CE12-{number:02}", False, False, False
    )
    return layer(address, Kind.PARTITION, [name], partition=entry, content=content)


def volume(group: str, name: str, uuid: str, origin: str | None = None) -> Layer:
    facts = VolumeFacts(name, "u", ["linear"], ["public"], origin, None)
    content = Content("ext4", uuid=uuid, label=name)
    return layer(f"{group}/{name}", Kind.LOGICAL_VOLUME, [group], volume=facts, content=content)


LAYERS = [
    layer("disk0", Kind.DISK, []),
    layer("disk1", Kind.DISK, []),
    layer("disk2", Kind.DISK, []),
    partition("disk0/p1", 1, Content("ext4", uuid="aaaa-1", label="my root")),
    partition("disk0/p2", 2, Content("crypto_LUKS", uuid=LUKS)),
    layer("disk0/p2/luks", Kind.CRYPT, ["disk0/p2"], content=Content("ext4", uuid="bbbb-2")),
    partition("disk1/p1", 1, Content("ext4", uuid="clone")),
    partition("disk2/p1", 1, Content("ext4", uuid="clone")),
    partition("disk0/p3", 3, Content("linux_raid_member", uuid=ARRAY)),
    layer("md127", Kind.ARRAY, ["disk0/p3"], content=Content("swap", uuid="cccc-3")),
    layer("my-vg", Kind.VOLUME_GROUP, ["disk1"], group=GroupFacts("my-vg", "u", 1, 0, 1, 0)),
    volume("my-vg", "lv-root", "dddd-4"),
    volume("my-vg", "old", "dddd-4", origin="lv-root"),
    layer("disk0/p1/home", Kind.SUBVOLUME, ["disk0/p1"], content=Content("btrfs", uuid="aaaa-1")),
    layer("disk0/p1/vss1", Kind.SHADOW_COPY, ["disk0/p1"], content=Content("ntfs", uuid="aaaa-1")),
]
DEVICES = Devices(
    LAYERS, "disk0/p1", {"data": f"UUID={LUKS}"}, {"/dev/md/raid": ARRAY.replace("-", ":")}
)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("UUID=aaaa-1", "disk0/p1"),
        ("uuid=AAAA-1", "disk0/p1"),
        ('UUID="aaaa-1"', "disk0/p1"),
        ("LABEL=my root", "disk0/p1"),
        ("/dev/disk/by-label/my\\x20root", "disk0/p1"),
        ("/dev/disk/by-uuid/bbbb-2", "disk0/p2/luks"),
        ("PARTUUID=0ff1ce12-03", "disk0/p3"),
        ("PARTLABEL=part 3", "disk0/p3"),
        ("/dev/mapper/my--vg-lv--root", "my-vg/lv-root"),
        ("/dev/my-vg/lv-root", "my-vg/lv-root"),
        ("/dev/disk/by-id/dm-name-my--vg-lv--root", "my-vg/lv-root"),
        ("UUID=dddd-4", "my-vg/lv-root"),
        ("/dev/mapper/data", "disk0/p2/luks"),
        (f"/dev/mapper/luks-{LUKS}", "disk0/p2/luks"),
        ("/dev/md127", "md127"),
        ("/dev/md/raid", "md127"),
        ("UUID=cccc-3", "md127"),
        ("LABEL=MY ROOT", None),
        ("UUID=", None),
        ("UUID=none", None),
        ("/dev/mapper/my-vg-lv-root", None),
        ("/dev/md5", None),
        ("/dev/disk/by-id/ata-Disk_1-part1", None),
        ("/swapfile", None),
        ("proc", None),
        ("", None),
    ],
)
def test_names(name: str, address: str | None) -> None:
    found, note = DEVICES.find(name)
    assert found == address
    assert (note is None) == (address is not None)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("/dev/sda1", "disk0/p1"),
        ("/dev/vdb1", "disk1/p1"),
        ("/dev/hda", "disk0"),
        ("/dev/nvme0n1p2", "disk0/p2"),
        ("/dev/ada1p1", "disk1/p1"),
        ("/dev/sdz1", None),
    ],
)
def test_names_of_disks_are_guesses(name: str, address: str | None) -> None:
    found, note = DEVICES.find(name)
    assert found == address
    assert note
    assert address is None or note.startswith("a guess")


def test_of_copies_that_of_the_own_disk_counts() -> None:
    assert DEVICES.find("UUID=clone") == (None, "there are 2 of that name: disk1/p1, disk2/p1")
    assert Devices(LAYERS, "disk2").find("UUID=clone") == ("disk2/p1", None)
    assert Devices(LAYERS, "disk1/p1").find("UUID=clone") == ("disk1/p1", None)


def test_entries_without_a_device() -> None:
    text = [
        "tmpfs /tmp tmpfs defaults 0 0",
        "//server/share /mnt cifs ro 0 0",
        "server:/x /mnt nfs ro",
        "/home /srv/home none bind 0 0",
        "UUID=aaaa-1 / btrfs subvol=@",
        "short",
        "# UUID=aaaa-1 /comment ext4",
    ]
    entries = [resolved(each, DEVICES) for each in parse(text)]
    assert [(each.path, each.layer, each.note) for each in entries] == [
        ("/tmp", None, "not on a disk"),
        ("/mnt", None, "on the network"),
        ("/mnt", None, "on the network"),
        ("/srv/home", None, "a folder of this system"),
        ("/", "disk0/p1", "subvolume @"),
    ]


@given(st.text(max_size=80) | st.text("/devmaprsU=ID-:@\\x20", max_size=40))
def test_any_name_has_an_answer(name: str) -> None:
    address, note = DEVICES.find(name)
    assert address in {None, *(each.address for each in LAYERS)}
    assert address or note
