"""Disk images that are files in file systems, with a real guest: listed, opened, refused."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.builders import nested
from tests.builders.nested_hostile import FORMATS, LABEL, ODD_NAMES, SIZE, UUID, make_hostile
from tests.guest.conftest import Run, forensic, inspect

pytestmark = pytest.mark.timeout(900)
WORD = "pässwörd 7"
OUTER = "lvg1/lvroot:/images/os43.qcow2"
BOTTOM = "guestvg/lvroot:/bottom.qcow2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nested")
    (path / "key").write_text(WORD + "\n")
    return path


@pytest.fixture(scope="module")
def disks(folder: Path) -> tuple[Path, Path]:
    return nested.deep(folder, WORD.encode())


def work_in(run: Run) -> float:
    """Seconds of mapping without the derivation of keys."""
    timings = run.json["timings"]
    return timings["map"] - timings["map.unlock"]


def test_the_way_of_a_kvm_hosts_disk(disks: tuple[Path, Path], folder: Path) -> None:
    """Partition → LUKS2 → LVM → ext4 → qcow2 → MBR → LVM → ext4 → qcow2 → ext4, in one command.

    The innermost image is named first: the order of the options is of no consequence.
    """
    deep, shallow = disks
    key = ("--key", f"disk0/p1:file:{folder / 'key'}")
    run = inspect(*key, "--nested", "--open", BOTTOM, "--open", OUTER, deep)
    assert run.status == 0, run.stdout.decode() + run.stderr
    layers = run.layers()
    image = layers[OUTER]
    assert (image["kind"], image["parents"]) == ("disk", ["lvg1/lvroot"])
    assert image["size"] == (folder / "inner.raw").stat().st_size
    assert image["table"]["type"] == "dos"
    assert image["image"] == {
        "format": "qcow2",
        "chain": [],
        "files": [{"path": "/images/os43.qcow2", "size": (folder / "inner.qcow2").stat().st_size}],
    }
    assert layers[f"{OUTER}/p1"]["content"]["uuid"] == nested.SWAP_UUID
    assert layers["guestvg"]["parents"] == [f"{OUTER}/p2"]
    assert_ext4(layers["guestvg/lvroot"], nested.INNER_LABEL, nested.INNER_UUID, 8 << 20)
    # This one is read from a file in the innermost file system.
    assert layers[BOTTOM]["parents"] == ["guestvg/lvroot"]
    assert_ext4(layers[BOTTOM], "bottom", nested.BOTTOM_UUID, nested.BOTTOM_SIZE)
    listed = [(each["address"], each["virtual_size"]) for each in run.json["nested_images"]]
    assert listed == [(OUTER, image["size"]), (BOTTOM, nested.BOTTOM_SIZE)]

    outermost = inspect(*key, shallow)
    assert outermost.status == 0, outermost.stderr
    once = inspect(*key, "--open", OUTER, deep)
    assert "guestvg/lvroot" in once.layers()
    # Twice is the aim, measured on an idle machine; this is for one that does other things besides.
    assert work_in(once) < 5 * work_in(outermost) + 2


def assert_ext4(layer: dict[str, Any], label: str, uuid: str, size: int) -> None:
    content = layer["content"]
    assert (content["type"], content["label"], content["uuid"]) == ("ext4", label, uuid)
    assert (content["usage"], content["size"]) == ("filesystem", size)
    assert 0 < content["used"] < size


def test_recovered_view_and_the_report(disks: tuple[Path, Path], folder: Path) -> None:
    run = forensic(
        *("inspect", "--accel", "tcg", "--key", f"disk0/p1:file:{folder / 'key'}"),
        *("--view", "recovered", "--nested", "--open", OUTER, disks[0]),
    )
    text = run.stdout.decode()
    assert run.status == 0, text + run.stderr
    assert "image in the format qcow2" in text
    assert "Disk images in file systems (2)" in text
    assert f"--open {BOTTOM}\n" in text
    assert nested.INNER_UUID in text


OPENED = [*(f"disk.{ending}" for ending in FORMATS), "disk.raw", "disk.E01", "disk.raw.gz"]
REFUSED = {
    "bad/parents.qcow2": "does not exist",
    "bad/absolute.qcow2": "does not exist",
    "bad/guest.qcow2": "does not exist",
    "bad/proc.qcow2": "does not exist",
    "bad/device.qcow2": "does not exist",
    "bad/data.qcow2": "does not exist",
    "bad/linked.qcow2": "does not exist",
    "bad/sda.vmdk": "does not exist",
    "bad/self.qcow2": "is used twice",
    "bad/ping.qcow2": "is used twice",
    "bad/json.qcow2": "of a protocol or a device",
    "bad/nbd.qcow2": "of a protocol or a device",
    "bad/chain/0.qcow2": "more than 64 images",
    "bad/fifo": "is a named pipe",
    "bad/node": "is a block device",
    "bad/loop": "symbolic links",
    "bad/huge": "",
    "good": "is a folder",
}
MISSING = ["bad/outside", "bad/absolute-link", "bad/none", "../../../../etc/passwd"]


@pytest.fixture(scope="module")
def hostile(folder: Path) -> Run:
    image = make_hostile(folder, WORD)
    opened = [*(f"good/{each}" for each in OPENED), "good/overlay.qcow2", "good/locked-too.qcow2"]
    opened += ["good/locked.qcow2", "good/snapshot.vmdk", "bad/chain/10.qcow2"]
    words: list[str | bytes | Path] = []
    for path in [*opened, *REFUSED, *MISSING]:
        words += ["--open", f"disk0:/{path}"]
    words += ["--open", b"disk0:/names/" + ODD_NAMES[2], "--open", r"disk0:/names/a\x0ab"]
    words += ["--open", "disk1:/x", "--open", "disk0:/good/disk.raw:/y"]
    words += ["--key", f"disk0:/good/locked.qcow2:file:{folder / 'key'}"]
    return inspect("--nested", "--timeout", "600", *words, image, timeout=700)


def test_every_format_is_opened(hostile: Run) -> None:
    assert hostile.status == 1
    layers = hostile.layers()
    for name in [*OPENED, "overlay.qcow2", "locked.qcow2", "snapshot.vmdk"]:
        layer = layers[f"disk0:/good/{name}"]
        assert (layer["parents"], layer["size"]) == (["disk0"], SIZE), name
        assert (layer["content"]["label"], layer["content"]["uuid"]) == (LABEL, UUID), name
    assert layers["disk0:/good/overlay.qcow2"]["image"]["chain"] == ["raw /good/disk.raw"]
    snapshot = layers["disk0:/good/snapshot.vmdk"]["image"]
    assert snapshot["chain"] == ["vmdk /good/base/disk.vmdk"]
    assert len(snapshot["files"]) == 6
    # As many files as an image may stand on.
    assert len(layers["disk0:/bad/chain/10.qcow2"]["image"]["files"]) == 60
    locked = layers["disk0:/good/locked-too.qcow2"]
    assert (locked["status"], locked["size"]) == ("locked", SIZE)
    assert r"disk0:/names/\xff\xfe" in layers
    assert r"disk0:/names/a\x0ab" in layers


def test_traps_stay_in_the_file_system(hostile: Run) -> None:
    findings = hostile.json["findings"]
    told = {
        each["message"].split(": ")[0].removeprefix("--open disk0:/"): each
        for each in findings
        if each["message"].startswith("--open ")
    }
    for path, words in REFUSED.items():
        assert told[path]["code"] == "not-opened"
        assert words in told[path]["message"], path
    for path in MISSING:
        assert told[path]["code"] == "no-such-image", path
    assert told["good/disk.raw:/y"]["message"].endswith("there is no such file")
    assert told["--open disk1:/x"]["message"].endswith("there is no such file system")
    opened = {each["address"] for each in hostile.json["layers"]}
    assert not any(f"disk0:/{path}" in opened for path in [*REFUSED, *MISSING])
    (locked,) = [each for each in findings if each["code"] == "locked"]
    assert "--key disk0:/good/locked-too.qcow2:file:PATH" in locked["message"]
    assert WORD not in hostile.stdout.decode() + hostile.stderr


def test_search_lists_by_content_and_is_bounded(hostile: Run) -> None:
    images = {each["path"]: each for each in hostile.json["nested_images"]}
    for name in OPENED:
        if not name.endswith(".gz"):
            assert images[f"/good/{name}"]["virtual_size"] == SIZE, name
    assert images["/good/disk.raw"]["content"] == "ext4"
    assert images["/good/disk.fixed.vhd"]["format"] == "vhd"
    assert not any(each.startswith("/many/") or "unseen" in each for each in images)
    assert {"/bad/fifo", "/bad/node", "/bad/outside", "/bad/loop"}.isdisjoint(images)
    names = {
        base64.b64decode(each["path_base64"]) if each["path_base64"] else each["path"].encode()
        for each in images.values()
    }
    assert {b"/names/" + name for name in ODD_NAMES} <= names
    assert all(each["address"].isprintable() for each in images.values())
    limits = [
        each["message"] for each in hostile.json["findings"] if each["code"] == "search-limit"
    ]
    assert any("64 folders deep" in each for each in limits)
