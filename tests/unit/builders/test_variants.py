"""Every container variant holds the same disk, in the format that it claims."""

import json
from pathlib import Path

import pytest

from tests.builders.command import run
from tests.builders.layouts import mbr_logical
from tests.builders.variants import Variant, make_variants

SPLIT_FILES = {
    "vmdk-monolithicFlat": ("monolithicFlat-flat.vmdk", "monolithicFlat.vmdk"),
    "vmdk-twoGbMaxExtentSparse": ("twoGbMaxExtentSparse-s001.vmdk", "twoGbMaxExtentSparse.vmdk"),
    "vmdk-twoGbMaxExtentFlat": ("twoGbMaxExtentFlat-f001.vmdk", "twoGbMaxExtentFlat.vmdk"),
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Path:
    return mbr_logical(tmp_path_factory.mktemp("disk")).disks[0]


@pytest.fixture(scope="module")
def variants(disk: Path, tmp_path_factory) -> tuple[Variant, ...]:
    return make_variants(disk, tmp_path_factory.mktemp("variants"))


def test_all_hold_the_same_disk(disk: Path, variants: tuple[Variant, ...]) -> None:
    assert len(variants) == 9
    for variant in variants:
        run("qemu-img", "compare", "-f", "raw", "-F", variant.format, disk, variant.path)


def test_formats(variants: tuple[Variant, ...]) -> None:
    for variant in variants:
        info = json.loads(run("qemu-img", "info", "--output=json", variant.path))
        assert info["format"] == variant.format
        data = info.get("format-specific", {}).get("data", {})
        if variant.format == "vmdk":
            assert data["create-type"] == variant.subformat
        if variant.name == "qcow2-v2":
            assert data["compat"] == "0.10"
        if variant.name == "qcow2-v3":
            assert data["compat"] == "1.1"


def test_files(variants: tuple[Variant, ...]) -> None:
    for variant in variants:
        names = tuple(file.name for file in variant.files)
        assert names == SPLIT_FILES.get(variant.name, (variant.path.name,))
