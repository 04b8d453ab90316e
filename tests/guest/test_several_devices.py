"""Windows dynamic disks, btrfs on several devices, bcache: with a real guest, without RAID."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.builders.bcache import SET, make_backing, make_dirty
from tests.builders.command import run as tool
from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.ext4 import make_ext4
from tests.builders.filesystems import make_swap
from tests.builders.ldm import GROUP, RAID5, SPANNED, STRIPED, Extent, Plan, make_dynamic_disks
from tests.builders.sparse import make_sparse
from tests.guest.conftest import Run, inspect

M = MIB // SECTOR
UUID = "5a000000-0000-4000-8000-%012d"
STARTS = (16, 33, 50, 67)
"""Where the partitions in a striped volume begin, in chunks: on different members, in different
rows, so that a wrong layout would lose one of them."""


def table(folder: Path, name: str, size: int) -> Path:
    """A disk of `size` MiB with four partitions."""
    rows = []
    for number, start in enumerate(STARTS):
        label = f"{name}{number}"
        image = make_swap(folder / label, MIB, label, UUID % start)
        rows.append(Partition(start * 128, M, "82", image))
    return make_disk(folder / name, size * MIB, "dos", rows, "0x55667788")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def dynamic(folder: Path) -> list[Path]:
    simple, mirror = (
        make_swap(folder / name, size * MIB, name, UUID % size)
        for name, size in (("SIMPLE", 1), ("MIRROR", 4))
    )
    span, stripe, raid = (table(folder, name, 6) for name in ("SPAN", "STRIPE", "RAID"))
    first, second = [Extent(1, 65 + 2 * M, 4 * M)], [Extent(3, 3 * M, 4 * M)]
    plans = [
        Plan("Volume1", SPANNED, [[Extent(1, 65, M)]], simple),
        Plan("Volume2", SPANNED, [[Extent(1, 65 + M, M // 2), Extent(2, 0, 6 * M)]], span),
        Plan("Stripe1", STRIPED, [[Extent(2, 6 * M, 3 * M), Extent(3, 0, 3 * M)]], stripe),
        Plan("Volume3", SPANNED, [first, second], mirror),
        Plan(
            "Raid1",
            RAID5,
            [[Extent(1, 65 + 6 * M, 3 * M), Extent(2, 9 * M, 3 * M), Extent(3, 7 * M, 3 * M)]],
            raid,
        ),
    ]
    return make_dynamic_disks(folder, plans)


@pytest.fixture(scope="module")
def pool(folder: Path) -> list[Path]:
    disks = [make_sparse(folder / f"pool{number}", 128 * MIB) for number in (1, 2)]
    tool("mkfs.btrfs", "-q", "-L", "pool", "-d", "raid1", "-m", "raid1", *disks)
    return disks


@pytest.fixture(scope="module")
def backing(folder: Path) -> Path:
    content = make_ext4(
        folder / "cached", 8 * MIB, "cached", "e4000000-0000-4000-8000-0000000000bc"
    )
    return make_backing(folder / "backing", content)


@pytest.fixture(scope="module")
def whole(dynamic: list[Path], pool: list[Path], backing: Path) -> Run:
    return inspect("--hash", "none", *dynamic, *pool, backing, timeout=300)


@pytest.fixture(scope="module")
def part(dynamic: list[Path], pool: list[Path], backing: Path, folder: Path) -> Run:
    """The first dynamic disk and a device of the pool are missing; the cache was dirty."""
    dirty = folder / "dirty"
    dirty.write_bytes(backing.read_bytes())
    make_dirty(dirty)
    assert b"[match]" in tool("bcache-super-show", dirty)
    assert b"dirty" in tool("bcache-super-show", dirty)
    return inspect("--hash", "none", *dynamic[1:], pool[0], dirty, timeout=300)


def ldmtool(disks: list[Path], *names: str) -> list[dict[str, Any]]:
    """What ldmtool says of the volumes."""
    lines = [f"scan {' '.join(map(str, disks))}"]
    lines += [f"show volume {GROUP} {name}" for name in names]
    done = subprocess.run(
        ["ldmtool"], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    decoder, found, text = json.JSONDecoder(), [], done.stdout
    while (start := text.find("{\n")) >= 0:
        value, end = decoder.raw_decode(text[start:])
        found.append(value)
        text = text[start + end :]
    return found


def test_volumes_are_those_of_ldmtool(whole: Run, dynamic: list[Path]) -> None:
    layers = whole.layers()
    group = layers["OFFICE-Dg0"]
    assert (group["kind"], group["status"]) == ("volume-group", "mapped")
    assert group["parents"] == ["disk0", "disk1", "disk2"]
    assert group["group"]["uuid"] == GROUP
    said = ldmtool(dynamic, "Volume1", "Volume2", "Stripe1", "Volume3", "Raid1")
    assert len(said) == 5
    for volume in said:
        layer = layers[f"OFFICE-Dg0/{volume['name']}"]
        assert layer["volume"]["uuid"] == volume["guid"]
        assert layer["volume"]["layout"] == [volume["type"].lower()]
        assert layer["size"] == volume["size"] * SECTOR


def contents(run: Run, below: str) -> list[str]:
    found = run.layers().items()
    return [
        layer["content"]["label"]
        for address, layer in found
        if address.startswith(f"{below}/p") and layer["content"]
    ]


def test_every_layout_is_read_in_the_right_order(whole: Run) -> None:
    layers = whole.layers()
    assert layers["OFFICE-Dg0/Volume1"]["content"]["label"] == "SIMPLE"
    assert layers["OFFICE-Dg0/Volume3"]["content"]["label"] == "MIRROR"
    for volume, name in (("Volume2", "SPAN"), ("Stripe1", "STRIPE"), ("Raid1", "RAID")):
        assert contents(whole, f"OFFICE-Dg0/{volume}") == [f"{name}{n}" for n in range(4)]
    assert layers["disk0"]["content"]["type"] == "LDM_member"
    assert layers["disk0/p1"]["content"] is None
    assert layers["disk0/p1"]["status"] == "mapped"


def test_a_missing_dynamic_disk(part: Run) -> None:
    layers = part.layers()
    findings = {(each["layer"], each["code"]) for each in part.json["findings"]}
    assert layers["OFFICE-Dg0"]["status"] == "damaged"
    assert layers["OFFICE-Dg0"]["group"]["missing_physical_volumes"] == 1
    assert ("OFFICE-Dg0", "missing-volume") in findings
    assert layers["OFFICE-Dg0/Volume3"]["content"]["label"] == "MIRROR"
    assert contents(part, "OFFICE-Dg0/Raid1") == [f"RAID{n}" for n in range(4)]
    assert contents(part, "OFFICE-Dg0/Stripe1") == [f"STRIPE{n}" for n in range(4)]
    for name in ("Volume1", "Volume2"):
        assert layers[f"OFFICE-Dg0/{name}"]["status"] == "damaged"
        assert (f"OFFICE-Dg0/{name}", "not-activated") in findings
    for name in ("Volume3", "Raid1"):
        assert (f"OFFICE-Dg0/{name}", "degraded") in findings


def test_btrfs_on_two_devices_is_one_layer(whole: Run, pool: list[Path]) -> None:
    layers = whole.layers()
    said = [tool("blkid", "-p", "-o", "export", disk).decode() for disk in pool]
    values = [dict(line.split("=", 1) for line in text.splitlines()) for text in said]
    (layer,) = [each for each in layers.values() if each["address"].startswith("btrfs-")]
    assert layer["address"] == f"btrfs-{values[0]['UUID'][:8]}"
    assert (layer["kind"], layer["parents"]) == ("array", ["disk3", "disk4"])
    assert layer["size"] == 256 * MIB
    assert layer["content"]["label"] == "pool"
    facts = layer["array"]
    assert (facts["uuid"], facts["devices"], facts["missing"]) == (values[0]["UUID"], 2, 0)
    assert [each["uuid"] for each in facts["members"]] == [each["UUID_SUB"] for each in values]


def test_a_missing_device_of_a_btrfs_is_counted(part: Run) -> None:
    (layer,) = [each for each in part.layers().values() if each["address"].startswith("btrfs-")]
    assert (layer["parents"], layer["array"]["missing"]) == (["disk2"], 1)
    codes = [e["code"] for e in part.json["findings"] if e["layer"] == layer["address"]]
    assert "degraded" in codes


def test_bcache_is_read_behind_its_header(whole: Run, part: Run) -> None:
    layer = whole.layers()["disk5/bcache"]
    assert layer["content"]["label"] == "cached"
    assert (layer["offset"], layer["array"]["state"]) == (8192, "no cache")
    dirty = part.layers()["disk3/bcache"]
    assert (dirty["array"]["state"], dirty["array"]["uuid"]) == ("dirty", SET)
    assert dirty["content"]["label"] == "cached"
    codes = [each["code"] for each in part.json["findings"] if each["layer"] == "disk3/bcache"]
    assert codes == ["cache-not-read"]
