"""Every type of file system in a real guest, clean and after a crash, in both views."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from controller.base import RECIPE, find
from controller.store import Store
from tests.builders.every_filesystem import (
    LATE_NAME,
    MAKERS,
    UMLAUT_NAME,
    WRITABLE,
    Every,
    blkid_type,
    make_every,
)
from tests.builders.filesystems import GREETING, GREETING_NAME
from tests.builders.in_guest import run_in_guest
from tests.builders.sparse import data_ranges
from tests.builders.vss import SIZE, Made, make_shadowed
from tests.guest.conftest import ROOT, Run, inspect
from tests.guest.test_overlay import agent_code

FOUND, RECOVERED = "as-found", "recovered"
JOURNALED = ("ext3", "ext4", "xfs4", "xfs5", "btrfs", "f2fs", "reiserfs")
"""What was written and synchronised just before the crash is in their journals alone."""

COPIES = [Made(1700000000, UUID(int=0xA1), UUID(int=0xB1)),
          Made(1710000000, UUID(int=0xA2), UUID(int=0xB2))]  # fmt: skip
SCRIPT = """
mkdir -p /run/overlays
mount -t tmpfs -o size=40% overlays /run/overlays
cd /usr/lib/forensic && python3 -B look.py wanted.json
"""
Looks = dict[tuple[str, str, int | None], dict[str, Any]]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Every:
    folder = tmp_path_factory.mktemp("every")
    base = find(Store())
    assert base
    return make_every(folder, base, RECIPE)


@pytest.fixture(scope="module")
def shadowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [b"first\n", b"second " * 3000, b"third\n"]
    return make_shadowed(tmp_path_factory.mktemp("vss") / "shadowed.raw", texts, COPIES)


@pytest.fixture(scope="module")
def looks(every: Every, tmp_path_factory: pytest.TempPathFactory) -> Looks:
    """What each file system shows, and that the bytes of the disks stayed as they were."""
    wanted = {name: (blkid_type(name), [FOUND], []) for name in MAKERS}
    wanted["btrfs"] = ("btrfs", [FOUND], [int(row["id"]) for row in every.subvolumes])
    wanted["apfs"] = ("apfs", [FOUND], [1])
    wanted |= {f"dirty-{name}": (blkid_type(name), [FOUND, RECOVERED], []) for name in WRITABLE}
    files = agent_code() | {
        "look.py": (ROOT / "tests/builders/look.py").read_bytes(),
        "wanted.json": json.dumps(wanted).encode(),
    }
    disks = [every.clean, every.dirty]
    before = [digest(disk) for disk in disks]
    base = find(Store())
    assert base
    folder = tmp_path_factory.mktemp("looks")
    text = run_in_guest(base, RECIPE, SCRIPT, disks, folder, files=files)
    assert [digest(disk) for disk in disks] == before
    found = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("LOOK ")]
    return {(each["name"], each["view"], each["part"]): each for each in found}


@pytest.fixture(scope="module")
def found(every: Every, shadowed: Path) -> Run:
    return inspect(every.clean, every.dirty, shadowed, timeout=300)


@pytest.fixture(scope="module")
def recovered(every: Every) -> Run:
    return inspect("--view", RECOVERED, every.dirty, timeout=300)


def digest(path: Path) -> str:
    """Of the file's data without its holes, and of where they are."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        for start, end in data_ranges(file.fileno(), 0, path.stat().st_size):
            file.seek(start)
            piece = file.read(end - start)
            if piece.count(0) != len(piece):
                whole.update(piece.strip(b"\0"))
    return whole.hexdigest()


@pytest.mark.parametrize("name", MAKERS)
def test_every_type_is_mounted_read_only(name: str, looks: Looks) -> None:
    look = looks[name, FOUND, None]
    assert "error" not in look
    assert {"ro", "nosuid", "nodev"} <= set(look["options"])
    if name == "apfs":  # no tool writes a file into one
        assert look["files"] == {}
    else:
        assert look["files"][GREETING_NAME] == GREETING.decode()
    if name in ("ext4", "ntfs", "btrfs", "rock", "joliet", "squashfs", "erofs", "ufs1"):
        assert UMLAUT_NAME in look["files"]


@pytest.mark.parametrize("name", JOURNALED)
def test_two_truths(name: str, looks: Looks) -> None:
    before, after = (looks[f"dirty-{name}", view, None]["files"] for view in (FOUND, RECOVERED))
    assert before[GREETING_NAME] == after[GREETING_NAME] == GREETING.decode()
    assert LATE_NAME not in before
    assert after[LATE_NAME] == GREETING.decode()


@pytest.mark.parametrize("name", [each for each in WRITABLE if each not in JOURNALED])
def test_one_truth(name: str, looks: Looks) -> None:
    look = looks[f"dirty-{name}", RECOVERED, None]
    assert look["files"][GREETING_NAME] == GREETING.decode()
    look = looks[f"dirty-{name}", FOUND, None]
    assert look["files"][GREETING_NAME] == GREETING.decode()


def test_subvolumes_are_those_that_btrfs_lists(every: Every, found: Run) -> None:
    layers = found.layers()
    top = next(each for each in layers.values() if named(each) == "btrfs")
    mine = [each for each in layers.values() if each["parents"] == [top["address"]]]
    assert len(every.subvolumes) == 4
    assert [
        {
            "id": str(each["subvolume"]["id"]),
            "parent": str(each["subvolume"]["parent_id"]),
            "gen": str(each["subvolume"]["generation"]),
            "uuid": each["subvolume"]["uuid"],
            "path": each["subvolume"]["path"],
        }
        for each in mine
    ] == every.subvolumes
    assert [each["address"] for each in mine] == [
        f"{top['address']}/sv{row['id']}" for row in every.subvolumes
    ]
    by_path = {each["subvolume"]["path"]: each["subvolume"] for each in mine}
    assert by_path["snapshot"]["read_only"]
    assert by_path["snapshot"]["parent_uuid"] == by_path["@home"]["uuid"]
    assert by_path["@home"]["parent_uuid"] is None
    assert not by_path["@home"]["read_only"]


def test_a_subvolume_is_mounted_by_itself(every: Every, looks: Looks) -> None:
    """And the whole is the top one, though another is the default."""
    for row in every.subvolumes:
        look = looks["btrfs", FOUND, int(row["id"])]
        inside = {"@home": {"inside.txt"}, "snapshot": {"inside.txt"}}.get(row["path"], set())
        assert set(look["files"]) == inside
    assert {GREETING_NAME, "@home/inside.txt"} <= set(looks["btrfs", FOUND, None]["files"])


def test_dirt_is_found_without_mounting(found: Run) -> None:
    layers = found.layers()
    codes: dict[str, set[str]] = {named(each): set() for each in layers.values() if named(each)}
    for each in found.json["findings"]:
        codes[named(layers[each["layer"]])].add(each["code"])
    for name in (*JOURNALED, "jfs", "nilfs2"):
        assert codes[f"dirty-{name}"] == {"needs-recovery"}
    for name in ("ext2", "vfat", "exfat", "hfs", "hfsplus", "udf"):
        assert "not-clean" in codes[f"dirty-{name}"]
    assert {name: codes[name] for name in MAKERS} == {name: set() for name in MAKERS}


def test_the_recovered_view_has_the_numbers_from_after_the_replay(
    found: Run, recovered: Run
) -> None:
    before = {named(each): each["content"] for each in found.layers().values()}
    layers = recovered.layers()
    after = {named(each): each for each in layers.values()}
    findings = {(each["layer"], each["code"]) for each in recovered.json["findings"]}
    for name in (*JOURNALED, "nilfs2"):
        address = after[f"dirty-{name}"]["address"]
        assert (address, "replayed") in findings
        assert (address, "needs-recovery") not in findings
    for name in ("ext3", "ext4"):
        content = after[f"dirty-{name}"]["content"]
        assert content["ext"]["free_inodes"] == before[f"dirty-{name}"]["ext"]["free_inodes"] - 1
        assert content["used"] == before[f"dirty-{name}"]["used"] + content["block_size"]
    for name in ("xfs4", "xfs5", "f2fs"):
        assert after[f"dirty-{name}"]["content"]["used"] > before[f"dirty-{name}"]["used"]
    jfs = after["dirty-jfs"]["address"]
    assert {(jfs, "not-replayed"), (jfs, "needs-recovery")} <= findings
    assert recovered.status == 1


def test_the_volume_of_an_apfs_container(every: Every, found: Run) -> None:
    layers = found.layers()
    container = next(each for each in layers.values() if named(each) == "apfs")
    volume = layers[f"{container['address']}/apfs1"]
    assert re.search(rf"Identifier\s*: {container['content']['uuid']}", every.apfs)
    assert re.search(rf"Identifier\s*: {volume['subvolume']['uuid']}", every.apfs)
    assert volume["content"]["label"] == volume["subvolume"]["path"] == "apple"
    assert volume["status"] == "mapped"


def test_shadow_copies_are_volumes(found: Run) -> None:
    layers = found.layers()
    for number, made in enumerate(COPIES, start=1):
        layer = layers[f"disk2/vss{number}"]
        assert (layer["kind"], layer["parents"]) == ("shadow-copy", ["disk2"])
        assert (layer["size"], layer["content"]["type"]) == (SIZE, "ntfs")
        assert layer["shadow_copy"] == {"id": str(made.copy), "created": made.created}
    # The second state had a longer file: 21000 bytes in clusters of 4096, where one was enough.
    used = [layers[name]["content"]["used"] for name in ("disk2/vss1", "disk2/vss2")]
    assert used[1] - used[0] >= 21000


def named(layer: dict[str, Any]) -> str:
    return (layer["partition"] or {}).get("name") or ""
