"""Repairs with a real guest: on an overlay, checked again, and kept only when they are whole."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from controller.base import find as find_base
from controller.store import Store
from tests.builders.command import execute, run
from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.ext4 import Entry, make_ext4
from tests.builders.filesystems import make_btrfs, make_vfat, make_xfs
from tests.builders.in_guest import run_in_guest
from tests.builders.luks import HEADER, make_luks
from tests.builders.lvm import PhysicalVolume, Volume, make_group
from tests.builders.repairable import EXT_DAMAGES, damage_vfat, damage_xfs
from tests.guest.conftest import ROOT, Run, command_of, descendants, forensic, started
from tests.guest.test_containers import qemu_img

WORD = b"secret"
UUID = "0ff1ce00-0000-4000-8000-0000000000"
QEMU = "guest=forensic"
FILES = [
    Entry("etc"),
    Entry("docs"),
    *(Entry(f"etc/{name}", f"this is {name}\n".encode() * 200) for name in "ab"),
    Entry("docs/c", bytes(range(256)) * 400),
]


def fsck(*arguments: str | Path) -> Run:
    """`forensic fsck --json`, and the proof that no image was changed."""
    images = [Path(each) for each in arguments if Path(each).is_file()]
    before = [_digest(each) for each in images]
    done = forensic("fsck", "--json", "-q", "--accel", "tcg", *arguments, timeout=600)
    assert [_digest(each) for each in images] == before
    assert "Traceback" not in done.stderr
    return done


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _results(run: Run) -> dict[str, str]:
    return {each["layer"]: each["result"] for each in run.json["repairs"]}


def _codes(run: Run) -> set[str]:
    return {each["code"] for each in run.json["findings"]}


def _ext4(path: Path, damage: str, size: int = 8 * MIB) -> Path:
    make_ext4(path, size, "test", f"{UUID}01", FILES)
    if damage:
        EXT_DAMAGES[damage](path)
        # Its own "-n" ends with 0 on some of them.
        probe = path.with_suffix(".probe")
        probe.write_bytes(path.read_bytes())
        assert execute("e2fsck", "-fy", probe).returncode == 1, damage
        probe.unlink()
    return path


def _cut(disk: Path, offset: int, size: int, target: Path) -> Path:
    with disk.open("rb") as file:
        file.seek(offset)
        target.write_bytes(file.read(size))
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repair")
    (path / "key").write_bytes(WORD)
    return path


@pytest.fixture(scope="module")
def ext_disk(folder: Path) -> Path:
    """A GPT disk with a partition for each damage, and a sound one at the end."""
    names = [*EXT_DAMAGES, ""]
    rows = [
        Partition(
            (1 + 8 * number) * MIB // SECTOR,
            8 * MIB // SECTOR,
            "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
            _ext4(folder / f"part{number}", name),
        )
        for number, name in enumerate(names)
    ]
    return make_disk(folder / "ext.raw", (2 + 8 * len(rows)) * MIB, "gpt", rows, f"{UUID}02")


def test_every_damage_of_ext4_is_repaired_and_the_copy_passes_e2fsck(
    ext_disk: Path, folder: Path
) -> None:
    copy, delta = folder / "copy.raw", folder / "delta.qcow2"
    run_ = fsck("--repair", "--save-overlay", delta, "--output", copy, ext_disk)
    result = run_.json
    assert _results(run_) == {
        f"disk0/p{number + 1}": "corrected" for number in range(len(EXT_DAMAGES))
    }, result
    assert run_.status == 1, result["findings"]
    sound = len(EXT_DAMAGES) + 1
    for number in range(1, sound + 1):
        part = _cut(copy, (1 + 8 * (number - 1)) * MIB, 8 * MIB, folder / "cut")
        done = execute("e2fsck", "-fn", part)
        assert done.returncode == 0, (number, done.stdout)
    for repair in result["repairs"]:
        assert [each["purpose"] for each in repair["check"]["runs"]] == ["check", "trial"]
    assert _paths(result, "an inode without a name") == [("added", "/lost+found/#14")]
    assert _paths(result, "a name without an inode") == [("removed", "/etc/a")]
    assert _paths(result, "the size of a file") == [("changed", "/docs/c")]
    assert _paths(result, "a link count") == []
    _check_delta(result, ext_disk, copy, sound)
    assert result["output"]["sha256"] == _digest(copy)
    assert result["overlay"]["sha256"] == _digest(delta)
    assert oct(delta.stat().st_mode & 0o777) == "0o600"
    subprocess.run(["qemu-img", "check", delta], check=True, capture_output=True)
    qemu_img("compare", delta, copy)


def _paths(result: dict[str, Any], damage: str) -> list[tuple[str, str]]:
    repair = result["repairs"][list(EXT_DAMAGES).index(damage)]
    return [(each["change"], each["path"]) for each in repair["paths"]]


def _check_delta(result: dict[str, Any], disk: Path, copy: Path, sound: int) -> None:
    """The ranges are exactly the blocks in which the copy differs from the evidence."""
    before, after = disk.read_bytes(), copy.read_bytes()
    assert len(before) == len(after)
    differ = [
        start
        for start in range(0, len(before), 4096)
        if before[start : start + 4096] != after[start : start + 4096]
    ]
    (delta,) = result["deltas"]
    told = [
        start
        for each in delta["ranges"]
        for start in range(each["offset"], each["offset"] + each["length"], 4096)
    ]
    assert told == differ
    assert delta["changed_blocks"] == len(differ)
    for each in delta["ranges"]:
        number = (each["offset"] - MIB) // (8 * MIB) + 1
        assert each["layer"] == f"disk0/p{number}"
        assert number != sound


def test_the_saved_overlay_opens_and_is_clean(ext_disk: Path, folder: Path) -> None:
    again = fsck(folder / "delta.qcow2", "--allow-dir", folder)
    assert again.status == 0, again.json["findings"]
    assert {each["verdict"] for each in again.json["checks"]} == {"clean"}
    taken = fsck("--repair", "--save-overlay", folder / "delta.qcow2", ext_disk)
    assert taken.status == 16
    assert "exists already" in taken.stderr


@pytest.fixture(scope="module")
def group(folder: Path) -> Path:
    """LVM: a damaged volume, a sound one."""
    pv = PhysicalVolume(folder / "pv", 40 * MIB)
    root = _ext4(folder / "root", "the size of a file", 16 * MIB)
    sound = _ext4(folder / "sound", "", 8 * MIB)
    make_group("vg", [pv], [Volume("root", 16 * MIB, root), Volume("sound", 8 * MIB, sound)])
    return pv.path


def test_lvm_in_qcow2(group: Path, folder: Path) -> None:
    image = folder / "group.qcow2"
    qemu_img("convert", "-O", "qcow2", group, image)
    delta, copy = folder / "lvm-delta.qcow2", folder / "lvm.qcow2"
    done = fsck("--repair", "--save-overlay", delta, "--output", copy, image)
    assert _results(done) == {"vg/root": "corrected"}
    assert done.status == 1
    for each in (delta, copy):
        subprocess.run(["qemu-img", "check", each], check=True, capture_output=True)
    qemu_img("compare", delta, copy)
    qemu_img("convert", "-O", "raw", copy, folder / "lvm.raw")
    # The first extent of the builder's groups is at 1 MiB.
    part = _cut(folder / "lvm.raw", MIB, 16 * MIB, folder / "cut")
    assert execute("e2fsck", "-fn", part).returncode == 0
    again = fsck(delta)
    assert again.status == 0, again.json["findings"]


def test_two_groups_of_one_name_of_which_one_is_repaired(group: Path, folder: Path) -> None:
    """The repair's guest sees one of them, and it must go by the name that it had among both."""
    other = PhysicalVolume(folder / "other-pv", 20 * MIB)
    make_group("vg", [other], [Volume("root", 8 * MIB, _ext4(folder / "other", ""))])
    done = fsck("--repair", other.path, group)
    assert _results(done) == {"vg@disk1/root": "corrected"}, done.stdout
    assert done.status == 1, done.json["findings"]
    assert [each["disk"] for each in done.json["deltas"]] == ["disk1"]


def test_lvm_in_luks_in_a_partition(group: Path, folder: Path) -> None:
    volume = folder / "luks"
    make_luks(volume, group, WORD, 2)
    size = volume.stat().st_size
    rows = [Partition(MIB // SECTOR, size // SECTOR, "83", volume)]
    image = make_disk(folder / "luks.raw", 2 * MIB + size, "dos", rows, "0x1a2b3c4d")
    delta = folder / "luks-delta.qcow2"
    key = ("--key", f"disk0/p1:file:{folder / 'key'}")
    done = fsck("--repair", "--save-overlay", delta, *key, image)
    assert _results(done) == {"vg/root": "corrected"}
    assert done.status == 1, done.json["findings"]
    assert {each["layer"] for each in done.json["deltas"][0]["ranges"]} == {"disk0/p1/luks"} or {
        each["layer"] for each in done.json["deltas"][0]["ranges"]
    } == {"disk0/p1"}
    again = fsck(delta, *key)
    assert again.status == 0, again.json["findings"]


def test_luks_with_a_detached_header(folder: Path) -> None:
    """The header stays a read-only disk beside the overlay."""
    volume, header = folder / "headless.raw", folder / "header"
    make_luks(volume, _ext4(folder / "inside", "the size of a file"), WORD, 2)
    header.write_bytes(volume.read_bytes()[:HEADER])
    with volume.open("r+b") as file:
        file.write(bytes(HEADER))
    opened = ("--key", f"disk0:file:{folder / 'key'}", "--header", f"disk0:{header}")
    delta = folder / "headless.qcow2"
    done = fsck("--repair", "--save-overlay", delta, *opened, volume)
    assert _results(done) == {"disk0/luks": "corrected"}, done.stdout
    assert done.status == 1, done.json["findings"]
    again = fsck(delta, *opened)
    assert again.status == 0, again.json["findings"]


def test_other_types_and_what_cannot_be_repaired(folder: Path) -> None:
    vfat = make_vfat(folder / "vfat", 16 * MIB, "FAT", "1234ABCD")
    damage_vfat(vfat)
    xfs = make_xfs(folder / "xfs", 64 * MIB, "xfs", f"{UUID}03")
    damage_xfs(xfs)
    btrfs = make_btrfs(folder / "btrfs", 64 * MIB, "btrfs", f"{UUID}04")
    _spoil_btrfs(btrfs)
    rows, start = [], MIB
    for each in (vfat, xfs, btrfs):
        size = each.stat().st_size
        rows.append(Partition(start // SECTOR, size // SECTOR, "83", each))
        start += size
    image = make_disk(folder / "others.raw", start + MIB, "dos", rows, "0x1a2b3c4d")
    copy = folder / "others-copy.raw"
    done = fsck("--repair", "--output", copy, image)
    assert _results(done) == {"disk0/p1": "corrected", "disk0/p2": "corrected"}, done.stdout
    # Corrected, errors left in btrfs, and it could not be repaired.
    assert done.status == 1 | 4 | 8
    assert "not-repairable" in _codes(done)
    cut = _cut(copy, MIB, vfat.stat().st_size, folder / "cut")
    assert execute("fsck.fat", "-n", cut).returncode == 0
    cut = _cut(copy, rows[1].offset, rows[1].size, folder / "cut")
    assert execute("xfs_repair", "-n", cut).returncode == 0


def _spoil_btrfs(image: Path) -> None:
    """Spoil the tree of the checksums. In the builder's images what is logical is physical too."""
    text = run("btrfs", "inspect-internal", "dump-tree", "-r", image).decode()
    (line,) = [each for each in text.splitlines() if each.startswith("checksum tree")]
    with image.open("r+b") as file:
        file.seek(int(line.split()[-3]) + 200)
        file.write(b"\xff" * 64)
    assert execute("btrfs", "check", "--readonly", image).returncode != 0


@pytest.fixture(scope="module")
def dirty(folder: Path) -> tuple[Path, Path]:
    """XFS with changes in its log that are not in place: damaged besides, and with a log that no
    kernel replays."""
    image, other = make_xfs(folder / "dirty", 64 * MIB, "xfs", f"{UUID}06"), folder / "stuck"
    script = """
mkdir -p /run/m; mount -t xfs /dev/sda /run/m; cd /run/m
for name in a b c; do echo $name > $name; done
sync -f a; xfs_io -x -c "shutdown -f" /run/m; cd /; umount /run/m
"""
    found = find_base(Store())
    assert found is not None
    run_in_guest(found, ROOT / "appliance/recipe", script, [image], folder)
    text = run("xfs_db", "-c", "sb 0", "-c", "print logstart blocksize agblocks", image).decode()
    values = {line.split(" = ")[0]: int(line.split(" = ")[1]) for line in text.splitlines()}
    group, block = divmod(values["logstart"], 1 << (values["agblocks"] - 1).bit_length())
    log = (group * values["agblocks"] + block) * values["blocksize"]
    other.write_bytes(image.read_bytes())
    with other.open("r+b") as file:
        for sector in (2, 3, 4, 5, 6, 8, 9):
            file.seek(log + sector * SECTOR + 40)
            file.write(b"\xee" * 300)
    run("xfs_db", "-x", "-c", "inode 131", "-c", "write core.nlinkv2 9", image)
    return image, other


def test_log_of_xfs_is_replayed_and_thrown_away_only_when_asked(dirty: tuple[Path, Path]) -> None:
    done = fsck("--repair", *dirty)
    assert _results(done) == {"disk0": "corrected"}, done.stdout
    assert done.status == 1 | 8
    (repair,) = done.json["repairs"]
    assert "its journal was replayed before" in repair["reason"]
    assert [each["path"] for each in repair["paths"]] == ["/a", "/b", "/c"]
    done = fsck("--repair", "--force-log-zeroing", dirty[1])
    (repair,) = done.json["repairs"]
    assert "-L" in repair["runs"][0]["arguments"]
    assert "thrown away" in repair["reason"]
    assert done.status == {"corrected": 1, "errors-left": 4}[repair["result"]]


def test_compressed_evidence_has_no_overlay_but_a_copy(folder: Path) -> None:
    raw = _ext4(folder / "plain", "a name without an inode")
    packed = folder / "plain.gz"
    packed.write_bytes(gzip.compress(raw.read_bytes(), 1))
    refused = fsck("--repair", "--save-overlay", folder / "no.qcow2", packed)
    assert refused.status == 16
    assert "--output" in refused.stderr
    copy = folder / "unpacked.raw"
    done = fsck("--repair", "--output", copy, packed)
    assert done.status == 1, done.stderr
    assert execute("e2fsck", "-fn", copy).returncode == 0


def test_nothing_to_repair_writes_nothing(folder: Path) -> None:
    sound = _ext4(folder / "nothing", "")
    target = folder / "nothing.qcow2"
    done = fsck("--repair", "--save-overlay", target, sound)
    assert done.status == 0
    assert "not-saved" in _codes(done)
    assert not target.exists()


def test_a_full_overlay_is_an_error_and_no_verdict(folder: Path) -> None:
    spread = ("-O", "^flex_bg,^uninit_bg,^metadata_csum")
    image = make_ext4(folder / "large", 128 * MIB, "test", f"{UUID}05", FILES, spread)
    # Every group's map of its blocks is lost, and each lies far from the others.
    text = run("dumpe2fs", image).decode()
    places = [line.split()[3] for line in text.splitlines() if "Block bitmap at" in line]
    assert len(places) == 16
    with image.open("r+b") as file:
        for place in places:
            file.seek(int(place) * 1024)
            file.write(bytes(512))
    target = folder / "full.qcow2"
    done = fsck("--repair", "--overlay-size", "1M", "--save-overlay", target, image)
    assert done.status == 8, done.stdout
    assert "overlay" in done.stderr
    assert "--overlay-size" in done.stderr
    assert not done.stdout
    assert not target.exists()


@pytest.mark.parametrize("victim", ["command", "guest"])
def test_killed_in_the_middle_leaves_no_file(folder: Path, victim: str) -> None:
    image = _ext4(folder / f"killed-{victim}", "a link count")
    place = folder / victim
    place.mkdir()
    process = started(
        *("fsck", "--repair", "-v", "--json", "--accel", "tcg"),
        *("--save-overlay", place / "delta.qcow2", "--output", place / "copy.raw", image),
    )
    assert process.stderr is not None
    begin = time.monotonic()
    for line in process.stderr:
        if line.startswith(b"repair disk0"):
            break
    assert time.monotonic() - begin < 300
    if victim == "command":
        process.kill()
    else:
        (qemu,) = [pid for pid in descendants(process.pid) if _is_guest(pid)]
        os.kill(qemu, signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode == (-9 if victim == "command" else 4 | 8)
    assert list(place.iterdir()) == []


def _is_guest(pid: int) -> bool:
    """QEMU itself, not the sandboxes around it."""
    return QEMU in command_of(pid) and command_of(pid).startswith("/usr/bin/qemu")
