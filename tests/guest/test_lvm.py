"""LVM beyond linear: made by LVM itself in a guest, since the host has no device-mapper."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.base import RECIPE, find
from controller.store import Store
from tests.builders.in_guest import LVM_CONFIGURATION, run_in_guest
from tests.guest.conftest import Run, inspect

MIB = 1 << 20
SCRIPT = f"""
cat > /etc/lvm/lvm.conf <<'E'
{LVM_CONFIGURATION}
E
pvcreate -q -y /dev/sda /dev/sdb
vgcreate -q vg /dev/sda /dev/sdb
make() {{ name=$1; shift; lvcreate -q -y -Wn -Zn -n $name "$@" vg; }}
make linear -L 16M
make stripes -i 2 -L 16M
make raidone --type raid1 -m 1 -L 16M
make raidfive --type raid0 -i 2 -L 16M
make legs --type mirror --mirrorlog core -m 1 -L 16M
lvcreate -q -y -Zn --type thin-pool -L 32M -n pool vg
lvcreate -q -y -V 64M --thinpool pool -n thin vg
sleep 1
for name in linear stripes raidone raidfive legs thin; do
    /usr/sbin/mke2fs -q -F -t ext4 -L $name /dev/vg/$name
done
sync
lvcreate -q -y -s -L 8M -n old vg/linear
lvcreate -q -y -s -n thincopy vg/thin
/usr/sbin/e2label /dev/vg/linear changed
sync
vgchange -q -an vg
"""


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("lvm")
    base = find(Store())
    assert base
    disks = [folder / "one.raw", folder / "two.raw"]
    for disk in disks:
        with disk.open("wb") as file:
            file.truncate(256 * MIB)
    run_in_guest(base, RECIPE, SCRIPT, disks, folder)
    return disks


@pytest.fixture(scope="module")
def run(disks: list[Path]) -> Run:
    return inspect(*disks)


def test_every_layout_is_opened(run: Run) -> None:
    layers = run.layers()
    labels = {
        address: layer["content"] and layer["content"]["label"]
        for address, layer in layers.items()
        if layer["kind"] == "logical-volume"
    }
    assert labels == {
        "vg/linear": "changed",
        "vg/old": "linear",
        "vg/stripes": "stripes",
        "vg/raidone": "raidone",
        "vg/raidfive": "raidfive",
        "vg/legs": "legs",
        "vg/thin": "thin",
        "vg/thincopy": "thin",
        "vg/pool": None,
    }, run.stderr + str(run.json["findings"])
    assert all(layer["status"] == "mapped" for layer in layers.values())
    assert layers["vg"]["parents"] == ["disk0", "disk1"]
    assert "origin" in layers["vg/linear"]["volume"]["role"]
    assert layers["vg/old"]["volume"]["origin"] == "linear"
    assert layers["vg/thin"]["volume"]["pool"] == "pool"


def test_evidence_is_as_before(disks: list[Path], run: Run) -> None:
    """The overlay takes the writes; were one to reach the export, QEMU would refuse it and LVM
    or the kernel would complain, and the file's times would tell."""
    assert run.status in {0, 1}
    before = [(disk.stat().st_mtime_ns, disk.stat().st_size) for disk in disks]
    assert inspect(*disks).status == run.status
    assert [(disk.stat().st_mtime_ns, disk.stat().st_size) for disk in disks] == before


def test_missing_disk_is_named_and_the_rest_is_read(disks: list[Path]) -> None:
    run = inspect(disks[0])
    assert run.status == 1
    layers = run.layers()
    codes = [finding["code"] for finding in run.json["findings"]]
    assert "missing-volume" in codes
    assert layers["vg"]["status"] == "damaged"
    assert layers["vg/linear"]["content"]["label"] == "changed"
