"""Checks of file systems with a real guest: e2fsprogs' own damaged images, and ours."""

from __future__ import annotations

import gzip
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from controller import base
from controller.store import Store
from tests.builders.damage import SIZES, make_damaged
from tests.builders.debian_source import debian_source
from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.in_guest import run_in_guest
from tests.guest.conftest import OFFICE, Run, forensic

E2FSPROGS = "main/e/e2fsprogs/e2fsprogs_1.47.2.orig.tar.gz"
SHA256 = "6dcd67ff9d8b13274ba3f088e4318be4f5b71412cd863524423fc49d39a6371f"
BATCH = 52
NO_VERDICT = {"f_illitable_flexbg", "f_many_subdirs", "f_misstable", "f_zero_super"}
"""`e2fsck -nf` does not end on three of them; the fourth has no superblock to know it by."""

Checks = dict[str, dict[str, Any]]


def fsck(*words: str | Path, **options: Any) -> Run:
    return forensic("fsck", "--json", "--quiet", "--accel", "tcg", *words, **options)


def checks_of(run: Run) -> Checks:
    return {each["layer"]: each for each in run.json["checks"]}


def test_clean_one() -> None:
    run = fsck(OFFICE)
    assert run.status == 0, run.stderr
    checks = checks_of(run)
    assert set(checks) == {"lvg1/lvroot", "lvg1/lvbackup"}
    for check in checks.values():
        assert check["verdict"] == "clean"
        assert [each["purpose"] for each in check["runs"]] == ["check", "trial"]
        for each in check["runs"]:
            assert (each["tool"], each["status"], each["ending"]) == ("e2fsck", 0, "exited")
            assert "1.47.2" in each["output"]
            assert 0 < each["memory"] < 256 * MIB


def test_layers_and_no_trial() -> None:
    run = fsck("--no-trial", "--layer", "lvg1/lvroot", OFFICE)
    assert run.status == 0
    checks = checks_of(run)
    assert set(checks) == {"lvg1/lvroot"}
    assert "--no-trial" in checks["lvg1/lvroot"]["reason"]
    run = fsck("--layer", "lvg1/nothing", OFFICE)
    assert run.status == 8
    assert [each["code"] for each in run.json["findings"]] == ["no-file-system"]


def test_usage_is_16() -> None:
    assert forensic("fsck", "--nonsense", OFFICE).status == 16
    assert forensic("fsck", "--timeout", "0", OFFICE).status == 16
    assert forensic("fsck", "/nonexistent").status == 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int]]:
    """Name -> image, and the status that e2fsck -yf ends with by e2fsprogs' own account."""
    folder = tmp_path_factory.mktemp("corpus")
    found: dict[str, tuple[Path, int]] = {}
    with tarfile.open(debian_source(E2FSPROGS, SHA256)) as archive:
        files = {
            tuple(member.name.split("/")[-2:]): archive.extractfile(member)
            for member in archive.getmembers()
            if "/tests/f_" in member.name and member.isfile()
        }
        for (name, kind), source in files.items():
            expected = files.get((name, "expect.1"))
            if kind != "image.gz" or (name, "script") in files or not expected or not source:
                continue
            status = re.findall(rb"Exit status is (\d+)", expected.read())
            data = gzip.decompress(source.read())
            image = folder / name
            image.write_bytes(data + bytes(-len(data) % SECTOR))
            found[name] = (image, int(status[-1]))
    assert len(found) > 150
    return found


@pytest.mark.timeout(900)
def test_damaged_images_of_e2fsprogs(corpus: dict[str, tuple[Path, int]]) -> None:
    """Nothing is called clean that e2fsck would have repaired; the trial ends as theirs does."""
    names = list(corpus)
    verdicts: dict[str, str] = {}
    trials: dict[str, int] = {}
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        images = [corpus[name][0] for name in batch]
        run = fsck("--timeout", "6", *images, timeout=600)
        assert run.status & 4, run.stderr
        for layer, check in checks_of(run).items():
            name = batch[int(layer.removeprefix("disk"))]
            verdicts[name] = check["verdict"]
            for each in check["runs"]:
                if each["purpose"] == "trial" and each["ending"] == "exited":
                    trials[name] = each["status"]
    assert set(names) - set(verdicts) <= NO_VERDICT
    wrongly_clean = [n for n, v in verdicts.items() if v == "clean" and corpus[n][1] != 0]
    assert wrongly_clean == []
    undecided = {name for name, verdict in verdicts.items() if verdict == "undecided"}
    assert undecided <= NO_VERDICT
    assert {name: (status, corpus[name][1]) for name, status in trials.items()} == {
        name: (corpus[name][1],) * 2 for name in trials
    }
    assert len(trials) >= 15


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[str, str]]]:
    """A disk with every damaged file system on a partition; layer -> type and damage."""
    folder = tmp_path_factory.mktemp("damaged")
    rows, names, start = [], {}, MIB
    for kind, size in SIZES.items():
        for name, image in make_damaged(kind, folder):
            rows.append(Partition(start // SECTOR, size * MIB // SECTOR, "L", image))
            names[f"disk0/p{len(rows)}"] = (kind, name)
            start += size * MIB
    disk = make_disk(folder / "disk.raw", start + MIB, "gpt", rows)
    for path in folder.iterdir():
        if path != disk:
            path.unlink()
    return disk, names


@pytest.mark.timeout(900)
def test_every_damage_is_found(
    damaged: tuple[Path, dict[str, tuple[str, str]]], tmp_path: Path
) -> None:
    """The same exit statuses as the same tools run directly, and never "clean" if one is not 0."""
    disk, names = damaged
    run = fsck("--timeout", "60", disk, timeout=600)
    assert run.status == 12, run.stderr
    checks = checks_of(run)
    told = {each["layer"] for each in run.json["findings"] if each["severity"] != "info"}
    assert [names[layer] for layer in names if layer not in checks and layer not in told] == []
    direct = run_directly(disk, checks, tmp_path)
    for layer, check in checks.items():
        (first, *_) = check["runs"]
        assert first["status"] == direct[layer], (names[layer], first)
        if names[layer][1] == "whole":
            assert check["verdict"] == ("undecided" if check["type"] == "ntfs" else "clean")
        elif direct[layer] != 0:
            assert check["verdict"] != "clean", names[layer]
    found: dict[str, int] = dict.fromkeys(SIZES, 0)
    for layer, (kind, name) in names.items():
        verdict = checks[layer]["verdict"] if layer in checks else "unrecognised"
        found[kind] += name != "whole" and verdict != "clean"
    assert all(number >= 12 for number in found.values()), sorted(found.items())


def run_directly(disk: Path, checks: Checks, folder: Path) -> dict[str, int]:
    """The exit status of the same command lines in a plain guest that has the disk read-only."""
    lines = []
    for layer, check in checks.items():
        node = f"/dev/sda{layer.removeprefix('disk0/p')}"
        words = [check["runs"][0]["tool"], *check["runs"][0]["arguments"]]
        words = [node if word.startswith("/dev/") else word for word in words]
        command = re.sub(r" -C \d+", "", " ".join(words))
        lines.append(f"{command} > /tmp/said 2>&1 && s=0 || s=$?; echo CODE {layer} $s")
    base_folder = base.find(Store())
    assert base_folder
    drive = f"file={disk},format=raw"
    text = run_in_guest(base_folder, base.RECIPE, "\n".join(lines), [], folder, [drive])
    return {layer: int(code) for layer, code in re.findall(r"CODE (\S+) (\d+)", text)}
