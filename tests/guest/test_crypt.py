"""Encrypted volumes with a real guest: opened by the right key, and told apart from locked ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.luks import HEADER, make_luks
from tests.guest.conftest import OFFICE, inspect
from tests.guest.test_containers import qemu_img

WORD = "pass w\u00f6rd 1".encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("luks")
    (path / "right").write_bytes(WORD + b"\n")
    (path / "wrong").write_bytes(b"wrong\n")
    qemu_img("convert", "-O", "raw", OFFICE, path / "office.raw")
    return path


@pytest.fixture(scope="module")
def office() -> dict[str, Any]:
    return inspect(OFFICE).layers()


@pytest.fixture(scope="module")
def deep(folder: Path) -> Path:
    """MBR, a partition, LUKS2, and in it the whole sample: MBR, LVM, ext4."""
    volume = folder / "luks2"
    make_luks(volume, folder / "office.raw", WORD, 2)
    size = volume.stat().st_size
    rows = [Partition(MIB // SECTOR, size // SECTOR, "83", volume)]
    return make_disk(folder / "deep.raw", MIB + size, "dos", rows, "0x1a2b3c4d")


def test_disk_inside_a_volume_inside_a_partition(
    deep: Path, folder: Path, office: dict[str, Any]
) -> None:
    run = inspect("--key", f"disk0/p1:file:{folder / 'right'}", deep)
    assert run.status == 0, run.stderr
    layers = run.layers()
    locked = layers["disk0/p1"]
    assert locked["content"]["type"] == "crypto_LUKS"
    assert locked["encryption"] == {
        "scheme": "luks2",
        "cipher": "aes-xts-plain64",
        "key_bits": 512,
        "keyslots": [{"number": 0, "kdf": "pbkdf2-sha256", "iterations": 1000, "memory": None}],
        "keys_tried": 1,
        "opened_by": 1,
    }
    inside = layers["disk0/p1/luks"]
    assert (inside["kind"], inside["parents"]) == ("crypt", ["disk0/p1"])
    assert inside["size"] == (folder / "office.raw").stat().st_size
    assert inside["table"]["uuid"] == office["disk0"]["table"]["uuid"]
    for name in ("p1", "p2"):
        assert layers[f"disk0/p1/luks/{name}"]["content"] == office[f"disk0/{name}"]["content"]
        assert layers[f"disk0/p1/luks/{name}"]["offset"] == office[f"disk0/{name}"]["offset"]
    assert layers["lvg1"]["parents"] == ["disk0/p1/luks/p2"]
    for name in ("lvg1/lvroot", "lvg1/lvbackup"):
        assert layers[name]["content"] == office[name]["content"]


def test_luks1_on_a_whole_disk(folder: Path, office: dict[str, Any]) -> None:
    path = folder / "whole.raw"
    make_luks(path, folder / "office.raw", WORD, 1)
    run = inspect("--key", f"all:file:{folder / 'right'}", path)
    assert run.status == 0, run.stderr
    layers = run.layers()
    assert layers["disk0"]["encryption"]["scheme"] == "luks1"
    assert layers["lvg1/lvroot"]["content"] == office["lvg1/lvroot"]["content"]
    assert layers["disk0"]["size"] - layers["disk0/luks"]["size"] == HEADER


def test_locked_and_wrong_key_are_told_apart(deep: Path, folder: Path) -> None:
    run = inspect(deep)
    assert run.status == 1
    assert run.layers()["disk0/p1"]["status"] == "locked"
    (finding,) = [each for each in run.json["findings"] if each["layer"] == "disk0/p1"]
    assert finding["code"] == "locked"
    assert "--key disk0/p1:file:PATH" in finding["message"]
    run = inspect("--key", f"disk0/p1:file:{folder / 'wrong'}", deep)
    assert run.status == 1
    assert run.layers()["disk0/p1"]["encryption"]["keys_tried"] == 1
    assert run.layers()["disk0/p1"]["encryption"]["opened_by"] is None
    (finding,) = [each for each in run.json["findings"] if each["layer"] == "disk0/p1"]
    assert finding["code"] == "wrong-key"


def test_key_for_nothing_is_told(deep: Path, folder: Path) -> None:
    right = folder / "right"
    run = inspect("--key", f"disk0/p1:file:{right}", "--key", f"lvg1/lvrot:file:{right}", deep)
    assert run.status == 1
    (finding,) = [each for each in run.json["findings"] if each["severity"] != "info"]
    assert finding["code"] == "no-such-layer"
    assert "lvg1/lvrot" in finding["message"]


def test_second_key_fits_and_no_key_is_told(deep: Path, folder: Path, tmp_path: Path) -> None:
    """A key is in no output, no log and no file that the run leaves."""
    log = tmp_path / "log"
    keys = ("--key", f"disk0/p1:file:{folder / 'wrong'}", "--key", f"all:file:{folder / 'right'}")
    run = inspect(*keys, "--keep-log", log, deep)
    assert run.status == 0, run.stderr
    assert run.layers()["disk0/p1"]["encryption"]["opened_by"] == 2
    for text in (run.stdout, run.stderr.encode(), log.read_bytes()):
        assert WORD not in text


def test_damaged_header_stays_locked(deep: Path, folder: Path, tmp_path: Path) -> None:
    """libblkid knows it by its magic; what cryptsetup says of it reaches the user."""
    path = Path(shutil.copy(deep, tmp_path / "damaged.raw"))
    with path.open("r+b") as file:
        for header in (MIB, MIB + 16384):
            file.seek(header + 4096)
            file.write(b"\xff" * 2000)
    run = inspect("--key", f"disk0/p1:file:{folder / 'right'}", path)
    assert run.status == 1
    layer = run.layers()["disk0/p1"]
    assert (layer["status"], layer["encryption"]["opened_by"]) == ("locked", None)
