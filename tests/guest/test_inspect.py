"""`forensic inspect` on disks whose content was written down by hand."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from controller import Case, Settings
from tests.builders.expected import Expected, Layout
from tests.builders.layouts import LAYOUTS
from tests.builders.variants import make_variants
from tests.guest.conftest import OFFICE, ROOT, forensic, inspect


def test_office_sample() -> None:
    run = inspect(OFFICE)
    assert run.status == 0, run.stderr
    result = run.json
    assert result["schema"] == "forensic.inspect/1"
    assert result["complete"] is True
    assert result["findings"] == []
    assert result["evidence"] == [
        {
            "path": str(OFFICE),
            "format": "vmdk",
            "virtual_size": 128 << 20,
            "files": [
                {
                    "path": str(OFFICE),
                    "size": OFFICE.stat().st_size,
                    "sha256": hashlib.sha256(OFFICE.read_bytes()).hexdigest(),
                }
            ],
            "chain": [],
            "sha256": None,
            "stored_hashes": [],
            "writers": [],
        }
    ]
    layers = run.layers()
    assert list(layers) == [
        "disk0", "disk0/gap0", "disk0/p1", "disk0/p2", "lvg1", "lvg1/~free", "lvg1/lvbackup",
        "lvg1/lvroot",
    ] or set(layers) >= {"disk0", "disk0/p1", "disk0/p2", "lvg1", "lvg1/lvroot"}  # fmt: skip
    assert layers["disk0/p1"]["content"]["type"] == "swap"
    assert layers["disk0/p2"]["content"]["type"] == "LVM2_member"
    root = layers["lvg1/lvroot"]
    assert (root["kind"], root["parents"], root["size"]) == ("logical-volume", ["lvg1"], 48 << 20)
    assert root["content"]["type"] == "ext4"
    assert root["content"]["label"] == "office-root"
    assert root["content"]["used"] + root["content"]["free"] == root["content"]["size"]
    assert root["content"]["ext"]["state"] == "clean"
    assert {"forensic", "qemu", "libvirt", "kernel", "libblkid", "lvm"} <= set(result["tools"])
    assert {"verify", "restore", "session", "attach", "map"} <= set(result["timings"])


def test_json_follows_the_documented_schema() -> None:
    schema = ROOT / "docs/reference/inspect.schema.json"
    run = inspect(OFFICE)
    jsonschema.validate(run.json, __import__("json").loads(schema.read_text()))


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_layout(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name](tmp_path)
    run = inspect(*layout.disks)
    assert run.status in {0, 1}, run.stderr
    layers = run.layers()
    for expected in layout.expected:
        _compare(expected, layers[expected.address])
    for disk, gaps in layout.gaps.items():
        found = [x for x in layers.values() if x["kind"] == "gap" and x["parents"] == [disk]]
        assert sum(layer["size"] for layer in found) == gaps
    _check_addresses(layout, layers)


def _check_addresses(layout: Layout, layers: dict[str, Any]) -> None:
    surplus = set(layers) - {expected.address for expected in layout.expected}
    assert {layers[address]["kind"] for address in surplus} <= {"gap"}


def _compare(expected: Expected, layer: dict[str, Any]) -> None:
    assert layer["kind"] == expected.kind
    assert layer["size"] == (expected.size if expected.present is None else expected.present)
    if expected.offset is not None:
        assert layer["offset"] == expected.offset
    content = layer["content"]
    assert (content and content["type"]) == expected.content
    if content:
        assert _label(content) == (expected.label or "")
        if expected.uuid:
            assert content["uuid"].lower() == expected.uuid.lower()
    assert (layer["table"] and layer["table"]["type"]) == expected.table
    if expected.parents:
        assert sorted(layer["parents"]) == sorted(expected.parents)
    if layer["partition"]:
        assert layer["partition"]["extended"] == expected.extended
        assert layer["partition"]["bootable"] == expected.bootable


def _label(content: dict[str, Any]) -> str:
    if content["label_base64"]:
        return os.fsdecode(base64.b64decode(content["label_base64"]))
    return content["label"] or ""


def test_blank_disk_is_not_called_complete(tmp_path: Path) -> None:
    layout = LAYOUTS["blank"](tmp_path)
    run = inspect(*layout.disks)
    assert run.status == 1
    assert [finding["code"] for finding in run.json["findings"]] == ["unrecognised"]


def test_partition_beyond_the_end_is_found(tmp_path: Path) -> None:
    layout = LAYOUTS["beyond_end"](tmp_path)
    run = inspect(*layout.disks)
    assert run.status == 1
    assert "beyond-end" in [finding["code"] for finding in run.json["findings"]]


def test_every_container_shows_the_same_layers(tmp_path: Path) -> None:
    disk = LAYOUTS["mbr_logical"](tmp_path).disks[0]
    variants = make_variants(disk, tmp_path)
    run = inspect(*(variant.path for variant in variants))
    assert run.status == 0, run.stderr
    result = run.json
    assert [each["format"] for each in result["evidence"]] == [v.format for v in variants]
    assert [len(each["files"]) for each in result["evidence"]] == [len(v.files) for v in variants]
    by_disk: dict[str, list[Any]] = {}
    for layer in result["layers"]:
        disk_name, _, rest = layer["address"].partition("/")
        by_disk.setdefault(disk_name, []).append(
            (rest, layer["kind"], layer["offset"], layer["size"], layer["content"])
        )
    assert len(by_disk) == len(variants)
    assert all(layers == by_disk["disk0"] for layers in by_disk.values())


def test_clones_of_one_disk_are_told_apart(tmp_path: Path) -> None:
    clone = tmp_path / "clone.vmdk"
    clone.write_bytes(OFFICE.read_bytes())
    run = inspect(OFFICE, clone)
    assert run.status == 0, run.stderr
    layers = run.layers()
    groups = [a for a, layer in layers.items() if layer["kind"] == "volume-group"]
    assert groups == ["lvg1@disk0.p2", "lvg1@disk1.p2"]
    for group, disk in zip(groups, ("disk0", "disk1"), strict=True):
        assert layers[group]["parents"] == [f"{disk}/p2"]
        assert layers[f"{group}/lvroot"]["content"]["label"] == "office-root"


def test_text_output_escapes_and_names_the_boundary(tmp_path: Path) -> None:
    layout = LAYOUTS["hostile_names"](tmp_path)
    run = forensic("inspect", "--accel", "tcg", *layout.disks)
    text = run.stdout.decode()
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "the cell, not the hypervisor" in text
    assert "evidence unchanged" in text


def test_python_api_and_fresh_randomness() -> None:
    """Nothing random was drawn before the save, by the kernel, the agent or the SSH server."""
    draws, server_draws, keys = set(), set(), set()
    for _ in range(3):
        with Case([OFFICE], Settings(accelerator="tcg")) as case:
            result = case.inspect()
            draws.add(case.session["draw"])
            server_draws.add(case.session["server_draw"])
            keys.add(case.session["host_key"])
        assert result.complete
        assert result.exit_code == 0
    assert len(draws) == len(keys) == len(server_draws) == 3
    assert {len(draw) for draw in server_draws} == {32}


def test_keep_log(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    run = forensic("inspect", "--accel", "tcg", "-q", "--keep-log", log, OFFICE)
    assert run.status == 0
    assert run.stderr == ""
    assert log.stat().st_mode & 0o777 == 0o600


def test_other_memory_size() -> None:
    run = inspect("--memory", "384", OFFICE)
    assert run.status == 0, run.stderr
