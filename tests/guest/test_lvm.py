"""LVM beyond linear: made by LVM itself in a guest, since the host has no device-mapper."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders.lvm_layouts import DISKS, make_layouts
from tests.guest.conftest import Run, inspect

SAME = [
    *("plain", "gone", "partly", "stripes", "three", "raidzero", "raidone", "raidfive", "raidsix"),
    *("raidten", "legs", "checked", "volcached", "poolcached", "written"),
]
AREA_MAGIC = b" LVM2 x[5A%r0N*>"


@dataclass
class Made:
    """The disks of `vg`, that of `twin` and a clone of it, and what LVM said while making them."""

    disks: list[Path]
    twin: Path
    clone: Path
    console: str

    def said(self, word: str) -> list[str]:
        """The console's lines that begin with a word, without it."""
        lines = [line.strip() for line in self.console.splitlines()]
        return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("lvm")
    disks, console = make_layouts(folder)
    clone = folder / "clone.raw"
    # All that tells the clone's file systems from the first ones'; nothing has a checksum over it.
    clone.write_bytes(disks[DISKS].read_bytes().replace(b"first-", b"other-"))
    return Made(disks[:DISKS], disks[DISKS], clone, console)


@pytest.fixture(scope="module")
def run(made: Made) -> Run:
    files = [*made.disks, made.twin, made.clone]
    before = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    run = inspect(*files, timeout=300)
    # The overlay takes the writes; were one to reach the export, QEMU would refuse it.
    assert [(file.stat().st_mtime_ns, file.stat().st_size) for file in files] == before
    return run


def labels(run: Run, group: str) -> dict[str, str | None]:
    return {
        address.removeprefix(f"{group}/"): layer["content"] and layer["content"]["label"]
        for address, layer in run.layers().items()
        if layer["kind"] == "logical-volume" and layer["parents"] == [group]
    }


def codes(run: Run, layer: str) -> list[str]:
    return [each["code"] for each in run.json["findings"] if each["layer"] == layer]


def test_every_layout_is_opened(run: Run, made: Made) -> None:
    """Of caches the label of what was written to them, not that of the slow volume ("stale")."""
    assert labels(run, "vg") == {name: name for name in SAME} | {
        "linear": "changed",
        "old": "linear",
        "thin": "changedthin",
        "thincopy": "thin",
        "pool": None,
    }, run.stderr + str(run.json["findings"])
    layers = run.layers()
    assert {layer["status"] for layer in layers.values()} == {"mapped"}
    assert layers["vg"]["parents"] == [f"disk{number}" for number in range(DISKS)]
    assert layers["vg/old"]["volume"]["origin"] == "linear"
    assert layers["vg/thin"]["volume"]["pool"] == "pool"
    # What makes the labels above a proof: blocks are in the cache that the slow volume lacks.
    dirty = [int(line.split()[14]) for line in made.said("STATUS") if " cache " in line]
    assert len(dirty) == 2
    assert min(dirty) > 0, made.said("STATUS")


def test_facts_are_those_of_lvm(run: Run, made: Made) -> None:
    found = {
        f"{name}|{','.join(layer['volume']['layout'])}|{','.join(layer['volume']['role'])}"
        for name, layer in ((a.removeprefix("vg/"), each) for a, each in run.layers().items())
        if layer["parents"] == ["vg"] and layer["volume"]
    }
    assert found == {line.rpartition("|")[0] for line in made.said("LVS")}
    group = run.layers()["vg"]
    assert made.said("VGS") == [
        f"vg|{group['group']['uuid']}|{group['size']}|{group['group']['free']}|1048576|5"
    ]


def test_tables_are_those_of_lvm(made: Made) -> None:
    """What we ask of device-mapper for linear and striped volumes is what LVM asks."""
    ours = made.said("OURS")
    names = {line.partition(":")[0] for line in ours}
    direct = ("linear", "plain", "gone", "partly", "stripes", "three")
    assert names == {f"vg-{name}" for name in direct}
    # Over an origin LVM puts a target that only serves its snapshots.
    said = [line for line in made.said("TABLE") if not line.startswith("vg-linear:")]
    lines = [line.replace("vg-linear-real:", "vg-linear:") for line in said]
    tables = [line for line in lines if line.partition(":")[0] in names]
    assert sorted(ours) == sorted(tables)


def test_clones_are_open_together(run: Run) -> None:
    """Same names, same UUIDs, linear, snapshot and thin: each shows its own content."""
    for group, word in (("twin@disk5", "first"), ("twin@disk6", "other")):
        assert labels(run, group) == {
            "plain": f"{word}-plain",
            "based": f"{word}-new",
            "copy": f"{word}-based",
            "thin": f"{word}-thin",
            "pool": None,
        }
    layers = run.layers()
    assert layers["twin@disk5"]["group"] == layers["twin@disk6"]["group"]
    assert run.json["findings"] == []


@pytest.fixture(scope="module")
def partial(made: Made, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Disks 1 and 4 are missing, and one of the two metadata copies of disk 0 is damaged."""
    assert run.status == 0
    first = shutil.copy(made.disks[0], tmp_path_factory.mktemp("partial") / "damaged.raw")
    data = first.read_bytes()
    second = data.rindex(AREA_MAGIC) - 4
    offset = int.from_bytes(data[second + 40 : second + 48], "little")
    with first.open("r+b") as file:
        file.seek(second + offset + 100)
        file.write(b"damage")
    return inspect(first, made.disks[2], made.disks[3], timeout=300)


def test_missing_disks_are_named_and_the_rest_is_read(partial: Run) -> None:
    assert partial.status == 1
    layers = partial.layers()
    assert layers["vg"]["status"] == "damaged"
    assert layers["vg"]["group"]["missing_physical_volumes"] == 2
    (missing,) = (each for each in partial.json["findings"] if each["code"] == "missing-volume")
    assert re.match(r"2 of 5 physical volumes are missing: pv1 \(.*\), pv4 \(", missing["message"])
    read = labels(partial, "vg")
    whole = ["plain", "three", "raidzero", "checked"]
    degraded = ["raidone", "raidfive", "raidsix", "raidten", "legs"]
    for name in [*whole, *degraded]:
        assert (read[name], layers[f"vg/{name}"]["status"]) == (name, "mapped")
    assert (read["linear"], read["thin"]) == ("changed", "changedthin")
    assert all(codes(partial, f"vg/{name}") == [] for name in whole)
    assert all(codes(partial, f"vg/{name}") == ["degraded"] for name in degraded)


def test_readable_parts_are_read(partial: Run) -> None:
    layers = partial.layers()
    assert labels(partial, "vg")["partly"] == "partly"
    assert labels(partial, "vg")["stripes"] == "stripes"
    for name in ("partly", "stripes", "gone", "volcached", "poolcached", "written", "old"):
        assert layers[f"vg/{name}"]["status"] == "damaged"
        assert "incomplete" in codes(partial, f"vg/{name}"), name
    (said,) = (each for each in partial.json["findings"] if each["layer"] == "vg/partly")
    assert said["message"].startswith("bytes 8388608 to 16777215 lie on the physical volume pv1 (")


def test_damaged_copy_is_told(partial: Run) -> None:
    (said,) = (each for each in partial.json["findings"] if each["code"] == "metadata-damaged")
    assert said["layer"] == "disk0"
    assert said["message"].startswith("copy 2 of 2 of the LVM metadata: ")
