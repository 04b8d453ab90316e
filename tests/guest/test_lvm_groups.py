"""Groups with odd names, groups within groups of the same UUIDs, and damaged metadata."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.lvm import make_group
from tests.builders.lvm_damage import (
    VOLUME,
    damaged,
    file_system,
    nested,
    overwrite,
    rewrite,
    simple,
)
from tests.builders.lvm_text import DATA_OFFSET, SECTOR, PhysicalVolume, Segment, Volume
from tests.guest.conftest import FORENSIC, Run, inspect

VDO = """
segment1 {
start_extent = 0
extent_count = 1
type = "vdo"
vdo_pool = "vpool"
vdo_offset = 0
}
"""
VDO_POOL = """
segment1 {
start_extent = 0
extent_count = 1
type = "vdo-pool"
data = "vdata"
header_size = 0
virtual_extents = 1
}
"""
TWICE = """
pv1 {
id = "{uuid}"
device = "/dev/sdz"
status = ["ALLOCATABLE"]
flags = []
dev_size = 8192
pe_start = 2048
pe_count = 2
}
}

logical_volumes {"""


def older(folder: Path) -> list[Path]:
    """Two physical volumes, of which the second one has metadata from before a volume was made."""
    disks = [folder / "seq0.raw", folder / "seq1.raw"]
    pvs = [PhysicalVolume(disk, DATA_OFFSET + 2 * VOLUME) for disk in disks]
    make_group(
        "seq",
        pvs,
        [
            Volume("new", VOLUME, file_system(folder, "new")),
            Volume("far", VOLUME, file_system(folder, "far"), (Segment(1, ((1, 0),)),)),
        ],
    )
    rewrite(disks[0], lambda text: text.replace("seqno = 1", "seqno = 7"))
    rewrite(disks[1], lambda text: text.replace("\nnew {", "\nearlier {"))
    return disks


def short(folder: Path) -> Path:
    """A physical volume that was cut off within its second volume."""
    disk = folder / "short.raw"
    volumes = [Volume(name, VOLUME, file_system(folder, name)) for name in ("whole", "cut")]
    make_group("short", [PhysicalVolume(disk, DATA_OFFSET + 2 * VOLUME)], volumes)
    os.truncate(disk, DATA_OFFSET + VOLUME + VOLUME // 2)
    return disk


def with_vdo(folder: Path) -> Path:
    """A volume of LVM-VDO beside a linear one; there is nothing in the pool."""
    disk = folder / "vdo.raw"
    volumes = [
        Volume("plain", VOLUME, file_system(folder, "vdo-plain")),
        Volume("squeezed", raw_segments=(VDO,)),
        Volume("vpool", raw_segments=(VDO_POOL,)),
        Volume("vdata", VOLUME, status=("READ", "WRITE")),
    ]
    make_group("vdo", [PhysicalVolume(disk, DATA_OFFSET + 2 * VOLUME)], volumes)
    return disk


def status(word: str) -> str:
    return f'status = ["{word}", "RESIZEABLE", "READ", "WRITE"]'


READY = 'status = ["RESIZEABLE", "READ", "WRITE"]'


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("groups")
    twice = simple(folder, "twice")
    own = twice.read_bytes()[SECTOR + 32 : SECTOR + 64].decode()
    own = "-".join((own[:6], *(own[at : at + 4] for at in range(6, 26, 4)), own[26:]))
    grown = simple(folder, "grown")
    os.truncate(grown, grown.stat().st_size + 3 * 1024 * 1024)
    first, second = older(folder)
    return {
        "nest": nested(folder),
        "warm": simple(folder, "warm"),
        "disk0": simple(folder, "disk0"),
        "md127": simple(folder, "md127"),
        "odd": simple(folder, "a+b_c.d-e--f", "l-v.1+2_3", "odd"),
        "seq0": first,
        "seq1": second,
        "lost": overwrite(simple(folder, "lost"), SECTOR, bytes(SECTOR)),
        "crc": overwrite(simple(folder, "crc"), SECTOR + 16, b"\0\0\0\0"),
        "short": short(folder),
        "grown": grown,
        "moved": rewrite(simple(folder, "moved"), lambda t: t.replace(READY, status("EXPORTED"))),
        "foreign": rewrite(
            simple(folder, "foreign"),
            lambda text: text.replace(READY, f'{READY}\nsystem_id = "other-host"'),
        ),
        "shared": rewrite(
            simple(folder, "shared"),
            lambda text: text.replace(READY, f'{READY}\nlock_type = "sanlock"'),
        ),
        "twice": rewrite(
            twice,
            lambda text: text.replace(
                "}\n\nlogical_volumes {", TWICE.replace("{uuid}", own).lstrip(), 1
            ),
        ),
        "vdo": with_vdo(folder),
        "broken": damaged(simple(folder, "broken")),
        "nonsense": rewrite(
            simple(folder, "nonsense"), lambda text: text.replace("extent_size", "extent_sighs")
        ),
    }


@pytest.fixture(scope="module")
def run(disks: dict[str, Path]) -> Run:
    return inspect(*disks.values(), timeout=300)


def at(disks: dict[str, Path], name: str) -> str:
    """The address of a disk."""
    return f"disk{list(disks).index(name)}"


def label(run: Run, address: str) -> str:
    return str(run.layers()[address]["content"]["label"])


def told(run: Run, address: str) -> list[tuple[str, str]]:
    return [
        (each["code"], each["message"]) for each in run.json["findings"] if each["layer"] == address
    ]


def test_group_in_a_group_of_the_same_uuids(run: Run) -> None:
    """Both are there at the end: `root` of the outer one is what the inner one lies on."""
    layers = run.layers()
    assert layers["nest"]["group"]["uuid"] == layers["nest@nest.root"]["group"]["uuid"]
    assert layers["nest/root"]["volume"]["uuid"] == layers["nest@nest.root/root"]["volume"]["uuid"]
    assert label(run, "nest/data") == "outer"
    assert label(run, "nest@nest.root/root") == "inner"


def test_names_of_the_guest_and_of_other_layers(run: Run, disks: dict[str, Path]) -> None:
    assert label(run, "warm/root") == "warm"
    for name in ("disk0", "md127"):
        assert label(run, f"{name}@{at(disks, name)}/root") == name
    assert label(run, "a+b_c.d-e--f/l-v.1+2_3") == "odd"


def test_the_newest_metadata_counts(run: Run, disks: dict[str, Path]) -> None:
    assert label(run, "seq/new") == "new"
    assert label(run, "seq/far") == "far"
    assert "seq/earlier" not in run.layers()
    ((code, message),) = told(run, at(disks, "seq1"))
    assert code == "metadata-outdated"
    assert "(sequence number 1) is older than that of the others; number 7 counts" in message


@pytest.mark.parametrize("name", ["lost", "crc"])
def test_damaged_label(run: Run, disks: dict[str, Path], name: str) -> None:
    assert label(run, f"{name}/root") == name
    assert "label-damaged" in dict(told(run, at(disks, name)))


def test_metadata_that_does_not_fit_its_checksum(run: Run, disks: dict[str, Path]) -> None:
    assert label(run, "broken/root") == "broken"
    assert dict(told(run, at(disks, "broken"))) == {
        "metadata-damaged": "copy 1 of 1 of the LVM metadata: "
        "the metadata does not fit its checksum"
    }


def test_metadata_that_makes_no_sense(run: Run, disks: dict[str, Path]) -> None:
    """It is LVM that has the last word."""
    findings = dict(told(run, at(disks, "nonsense")))
    assert "extent_size is missing" in findings["metadata-damaged"]
    assert {"lvm", "no-group"} & set(findings)


def test_other_size(run: Run, disks: dict[str, Path]) -> None:
    assert label(run, "short/whole") == "whole"
    assert label(run, "short/cut") == "cut"
    assert run.layers()["short/cut"]["status"] == "damaged"
    (cut,) = told(run, "short/cut")
    assert cut[0] == "incomplete"
    assert cut[1].startswith("bytes 2097152 to 4194303 lie on the physical volume pv0 (")
    assert cut[1].endswith("which is shorter than the metadata says")
    assert "pv-too-short" in dict(told(run, at(disks, "short")))
    assert label(run, "grown/root") == "grown"
    assert [code for code, _ in told(run, at(disks, "grown"))] == ["pv-resized"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("moved", "it was exported (vgexport)"),
        ("foreign", "only the system with the ID other-host may use it"),
        ("shared", "it is shared between several systems (lock type sanlock)"),
    ],
)
def test_groups_that_lvm_would_not_open(run: Run, name: str, words: str) -> None:
    assert label(run, f"{name}/root") == name
    ((code, message),) = told(run, name)
    assert code == "group-flags"
    assert message.startswith(words)


def test_physical_volume_that_is_listed_twice(run: Run, disks: dict[str, Path]) -> None:
    assert label(run, "twice/root") == "twice"
    findings = dict(told(run, at(disks, "twice")))
    assert "lists this physical volume twice" in findings["metadata-damaged"]


def test_vdo_is_named(run: Run) -> None:
    assert label(run, "vdo/plain") == "vdo-plain"
    assert run.layers()["vdo/squeezed"]["status"] == "unsupported"
    ((code, message),) = told(run, "vdo/squeezed")
    assert code == "not-opened"
    assert "vdo" in message


# --- the host's own groups -----------------------------------------------------------------------


@pytest.fixture
def host_group(tmp_path: Path) -> Iterator[Path]:
    """A group `warm` of the host itself, on a loop device, in an LVM configuration of its own."""
    file = tmp_path / "host.raw"
    with file.open("wb") as made:
        made.truncate(16 << 20)
    loop = subprocess.check_output(["losetup", "-f", "--show", file], text=True).strip()
    (tmp_path / "lvm.conf").write_text(
        f"""devices {{ use_devicesfile=0 obtain_device_list_from_udev=0
            filter=["a|^{loop}$|", "r|.*|"] }}
        global {{ event_activation=0 use_lvmpolld=0 locking_dir="{tmp_path}/lock" }}
        backup {{ backup=0 archive=0 }}"""
    )
    environment = os.environ | {"LVM_SYSTEM_DIR": str(tmp_path), "LVM_SUPPRESS_FD_WARNINGS": "1"}
    try:
        for command in (["pvcreate", "-q", loop], ["vgcreate", "-q", "warm", loop]):
            subprocess.run(command, env=environment, check=True, capture_output=True)
        yield file
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def test_group_of_the_host_is_of_no_consequence(
    host_group: Path, disks: dict[str, Path], tmp_path: Path
) -> None:
    """LVM of the host is not started, nothing of it is opened, and nothing is changed."""
    before = hashlib.sha256(host_group.read_bytes()).digest()
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=execve,open,openat,connect"]
    command += ["-o", str(trace), str(FORENSIC), "inspect", "--json", "--accel", "tcg"]
    done = subprocess.run([*command, disks["warm"]], capture_output=True, timeout=300, check=False)
    found = Run(done.returncode, done.stdout, done.stderr.decode(), 0)
    assert found.status == 0, found.stderr
    assert found.layers()["warm"]["group"]["uuid"] not in host_group.read_bytes().decode("latin-1")
    assert label(found, "warm/root") == "warm"
    assert hashlib.sha256(host_group.read_bytes()).digest() == before
    text = trace.read_text(errors="replace")
    assert "qemu-system-x86_64" in text, "strace has seen what the command started"
    for each in ("/sbin/lvm", "/dev/mapper", "/dev/dm-", "/dev/loop", "/etc/lvm", "/run/lvm"):
        assert each not in text
