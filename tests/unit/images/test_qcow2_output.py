"""Qcow2 files that are written, against qemu-img."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from images import qcow2_header
from images.evidence import opened
from images.qcow2_clusters import clusters
from images.qcow2_output import CLUSTER, Qcow2Output, overlay

MIB = 1 << 20


def qemu_img(*words: str | Path) -> bytes:
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True).stdout


@pytest.mark.parametrize("size", [512, MIB, 512 * MIB, 512 * MIB + 512, 3 << 40])
def test_empty_overlay(tmp_path: Path, size: int) -> None:
    base, path = tmp_path / "base.raw", tmp_path / "overlay.qcow2"
    base.touch()
    os.truncate(base, min(size, 1 << 40))
    path.write_bytes(overlay(size, base, "raw"))
    qemu_img("check", path)
    info = json.loads(qemu_img("info", "--output=json", path))
    assert info["virtual-size"] == size
    assert info["full-backing-filename"] == str(base)
    assert info["backing-filename-format"] == "raw"
    with opened(path) as file:
        header = qcow2_header.parse(file)
        assert header.untrusted_backing == bytes(base)
        assert list(clusters(file, header)) == []


def test_overlay_without_a_name() -> None:
    assert len(overlay(MIB, None, "")) == 4 * CLUSTER
    with pytest.raises(ValueError, match="too long"):
        overlay(MIB, Path("/" + "x" * 1023), "raw")


def test_what_qemu_writes_is_found(tmp_path: Path) -> None:
    base, path = tmp_path / "base.raw", tmp_path / "overlay.qcow2"
    base.write_bytes(os.urandom(600 * 1024))
    path.write_bytes(overlay(600 * 1024, base, "raw"))
    commands = ["write -P 1 4096 4096", "write -P 2 196608 131072", "write -z 393216 65536"]
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, path], check=True, capture_output=True)
    with opened(path) as file:
        found = list(clusters(file, qcow2_header.parse(file)))
        assert [each.start // CLUSTER for each in found] == [0, 3, 4, 6]
        assert [each.place is None for each in found] == [False, False, False, True]
        first, second = found[0], found[1]
        assert first.place is not None
        assert second.place is not None
        assert os.pread(file.fd, 4096, first.place + 4096) == b"\1" * 4096
        assert os.pread(file.fd, 4096, second.place) == b"\2" * 4096


@pytest.mark.parametrize("size", [512, CLUSTER, 5 * MIB + 1536, 700 * MIB])
def test_whole_disk(tmp_path: Path, size: int) -> None:
    chosen = random.Random(size)
    path, plain = tmp_path / "disk.qcow2", tmp_path / "disk.raw"
    with path.open("w+b") as target, plain.open("w+b") as expected:
        expected.truncate(size)
        output = Qcow2Output(target.fileno(), size)
        at = 0
        while at < size:
            length = min(size - at, chosen.choice([512, 4096, 65536, MIB, 90 * MIB + 512]))
            if length > MIB or chosen.random() < 0.5:
                output.skip(length)
            else:
                data = chosen.randbytes(length)
                output.write(data)
                os.pwrite(expected.fileno(), data, at)
            at += length
        output.finish()
    qemu_img("check", path)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", path, plain)
    with opened(path) as file:
        qcow2_header.parse(file)
