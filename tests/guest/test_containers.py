"""Containers of every kind, chains and locks, with a real guest behind them."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.builders.locked import make_locked
from tests.guest.conftest import OFFICE, forensic, inspect


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def office() -> dict[str, Any]:
    """What is in the sample, found on the sample itself."""
    run = inspect(OFFICE)
    assert run.status == 0, run.stderr
    return run.layers()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "office.raw"
    qemu_img("convert", "-O", "raw", OFFICE, path)
    return path


def test_every_format_shows_the_same(raw: Path, office: dict[str, Any], tmp_path: Path) -> None:
    """Six formats in one guest; each disk has the same layers as the sample."""
    images = []
    for form in ("vpc", "vhdx", "vdi", "qed", "qcow", "qcow2"):
        path = tmp_path / f"office.{form}"
        qemu_img("convert", "-f", "raw", "-O", form, raw, path)
        images.append(path)
    run = inspect(*images)
    layers = run.layers()
    for index, path in enumerate(images):
        part = layers[f"disk{index}/p1"]["content"]
        assert part["uuid"] == office["disk0/p1"]["content"]["uuid"], path
        root = layers[f"lvg1@disk{index}.p2/lvroot"]
        assert root["content"]["used"] == office["lvg1/lvroot"]["content"]["used"], path


def test_chain_through_folders(raw: Path, office: dict[str, Any], tmp_path: Path) -> None:
    """qcow2 on qcow2 on raw, the base in a folder of its own that was allowed."""
    middle, top = tmp_path / "middle.qcow2", tmp_path / "top.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", middle)
    qemu_img("create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top)
    refused = inspect(top)
    assert refused.status == 3
    assert str(raw) in refused.stderr
    assert "--allow-dir" in refused.stderr
    run = inspect("--allow-dir", raw.parent, "--hash", "all", "--verify", top)
    assert run.status == 0, run.stderr
    (evidence,) = run.json["evidence"]
    assert [link["path"] for link in evidence["chain"]] == [str(middle), str(raw)]
    assert [file["path"] for file in evidence["files"]] == [str(top), str(middle), str(raw)]
    expected = subprocess.run(["sha256sum", raw], capture_output=True, check=True).stdout.split()[0]
    assert evidence["sha256"] == evidence["files"][2]["sha256"] == expected.decode()
    assert {address: layer["content"] for address, layer in run.layers().items()} == {
        address: layer["content"] for address, layer in office.items()
    }


def test_internal_snapshot(raw: Path, office: dict[str, Any], tmp_path: Path) -> None:
    """The current state is wiped; the snapshot still has the volumes."""
    path = tmp_path / "disk.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    qemu_img("snapshot", "-c", "before", path)
    subprocess.run(["qemu-io", "-c", "write -z 0 128M", path], check=True, capture_output=True)
    now = inspect(path)
    assert list(now.layers()) == ["disk0"]
    assert any("before" in finding["message"] for finding in now.json["findings"])
    before = inspect("--snapshot", "before", path)
    assert before.status == 0, before.stderr
    assert set(before.layers()) == set(office)
    assert inspect("--snapshot", "none such", path).status == 3
    assert inspect("--snapshot", "before", raw).status == 3


def test_encrypted_container(raw: Path, tmp_path: Path) -> None:
    path, word = tmp_path / "locked.qcow2", "a secret w\u00f6rd"
    make_locked(path, word, raw)
    (tmp_path / "right").write_text(word + "\n")
    (tmp_path / "wrong").write_text("wrong\n")
    assert inspect("--key", f"disk1:file:{tmp_path / 'right'}", path).status == 2
    locked = inspect(path)
    assert locked.status == 3
    assert "no key was given" in locked.stderr
    wrong = inspect("--key", f"disk0:file:{tmp_path / 'wrong'}", path)
    assert wrong.status == 3
    assert "does not open it" in wrong.stderr
    log = tmp_path / "log"
    run = inspect("--key", f"disk0:file:{tmp_path / 'right'}", "--keep-log", log, path)
    assert run.status == 0, run.stderr
    assert "lvg1/lvroot" in run.layers()
    for text in (run.stdout, run.stderr.encode(), log.read_bytes(), locked.stderr.encode()):
        assert word.encode() not in text
    run = forensic(
        "inspect", "--accel", "tcg", "--keys-from-stdin", path, input=b"no\n" + word.encode()
    )
    assert run.status == 0, run.stderr


@pytest.fixture
def own_copy(raw: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(raw, tmp_path / "copy.raw"))


def test_evidence_in_use(own_copy: Path) -> None:
    with own_copy.open("r+b"):
        refused = inspect(own_copy)
        assert refused.status == 3
        assert f"process {os.getpid()}" in refused.stderr
        assert "--live" in refused.stderr
        run = inspect("--live", own_copy)
    assert run.status == 1
    assert "evidence-live" in {finding["code"] for finding in run.json["findings"]}
    assert run.json["evidence"][0]["writers"]
    assert inspect(own_copy).status == 0


def test_hash_is_of_the_file_as_it_is(own_copy: Path) -> None:
    run = inspect("--hash", "none", own_copy)
    assert run.json["evidence"][0]["files"][0]["sha256"] is None
    text = forensic("inspect", "-q", "--accel", "tcg", "--verify", own_copy)
    assert "and SHA-256" in text.stdout.decode()


def damage_compressed_cluster(path: Path, offset: int) -> None:
    """Break the compressed data of the 64 KiB cluster at `offset` of the disk (qcow2.txt, L2)."""
    data = bytearray(path.read_bytes())
    (table,) = struct.unpack_from(">Q", data, 40)
    (second,) = struct.unpack_from(">Q", data, table)
    entry = (second & 0x00FF_FFFF_FFFF_FE00) + 8 * (offset // 65536)
    (word,) = struct.unpack_from(">Q", data, entry)
    assert word >> 62 == 1, "not a compressed cluster"
    place = word & ((1 << 54) - 1)
    data[place : place + 4] = b"\xff" * 4  # no block type of RFC 1951; the next cluster may be near
    path.write_bytes(data)


def test_damaged_cluster_costs_its_layer_alone(
    raw: Path, office: dict[str, Any], tmp_path: Path
) -> None:
    """A read error reaches the guest as one, and what is read after it arrives."""
    path = tmp_path / "damaged.qcow2"
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, path)
    damage_compressed_cluster(path, office["disk0/p1"]["offset"] + 1024)
    run = inspect(path)
    assert run.status == 1, run.stderr
    layers = run.layers()
    assert set(layers) == set(office)
    for address in set(office) - {"disk0", "disk0/p1"}:
        assert layers[address]["content"] == office[address]["content"], address
    # The disk too: libblkid looks for signatures where the partition begins.
    unread = {each["layer"] for each in run.json["findings"] if each["code"] == "unreadable"}
    assert unread == {"disk0", "disk0/p1"}
