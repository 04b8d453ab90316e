"""Headers that lie, other files that they name, and copies that were cut."""

from __future__ import annotations

import json
import os
import struct
import subprocess

import pytest

from images import qcow2_header
from images.errors import MalformedImage, PolicyViolation, Unreadable, Unsupported


@pytest.fixture(scope="module")
def good(variants) -> bytes:
    return variants["qcow2-v3"].read_bytes()


def info(path) -> dict:
    command = ["qemu-img", "info", "--output=json", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("name", ["qcow2-v2", "qcow2-zstd", "qcow2-extended-l2", "qcow2-ref1"])
def test_values_agree_with_qemu(name, variants, opened):
    header = opened(variants[name]).chain[0].details
    says = info(variants[name])
    data = says["format-specific"]["data"]
    assert header.virtual_size == says["virtual-size"]
    assert header.cluster_size == says["cluster-size"]
    assert header.extended_l2 == data.get("extended-l2", False)
    assert header.zstd == (data.get("compression-type") == "zstd")
    assert 1 << header.refcount_order == data.get("refcount-bits", 16)


def patched(good: bytes, offset: int, form: str, value: int) -> bytes:
    data = bytearray(good)
    struct.pack_into(form, data, offset, value)
    return bytes(data)


LIES = [
    (4, ">I", 1, Unsupported, "version 1"),
    (4, ">I", 4, Unsupported, "version 4"),
    (8, ">Q", 1, MalformedImage, "backing"),
    (16, ">I", 9, MalformedImage, "backing"),
    (20, ">I", 8, MalformedImage, "cluster"),
    (20, ">I", 22, MalformedImage, "cluster"),
    (20, ">I", 63, MalformedImage, "cluster"),
    (20, ">I", 0xFFFFFFFF, MalformedImage, "cluster"),
    (24, ">Q", 0, MalformedImage, "virtual size"),
    (24, ">Q", 513, MalformedImage, "virtual size"),
    (24, ">Q", 1 << 63, MalformedImage, "virtual size"),
    (24, ">Q", (1 << 64) - 512, MalformedImage, "virtual size"),
    (24, ">Q", 1 << 50, MalformedImage, "too small"),
    (32, ">I", 1, Unsupported, "encrypted"),
    (32, ">I", 2, MalformedImage, "encryption"),
    (32, ">I", 3, Unsupported, "encrypted"),
    (36, ">I", 0, MalformedImage, "too small"),
    (36, ">I", (4 << 20) + 1, MalformedImage, "too large"),
    (36, ">I", 0xFFFFFFFF, MalformedImage, "too large"),
    (36, ">I", 4 << 20, MalformedImage, "truncated"),
    (40, ">Q", 0, MalformedImage, "inside the header"),
    (40, ">Q", 65537, MalformedImage, "does not start"),
    (40, ">Q", 1 << 40, MalformedImage, "truncated"),
    (40, ">Q", (1 << 64) - 65536, MalformedImage, "truncated"),
    (48, ">Q", 0, MalformedImage, "inside the header"),
    (48, ">Q", 1 << 60, MalformedImage, "truncated"),
    (56, ">I", 0, MalformedImage, "refcount table"),
    (56, ">I", 1 << 31, MalformedImage, "refcount table"),
    (60, ">I", 65537, MalformedImage, "snapshots"),
    (60, ">I", 1, MalformedImage, "snapshot table"),
    (72, ">Q", 1 << 5, Unsupported, "features"),
    (72, ">Q", 1 << 40, Unsupported, "features"),
    (72, ">Q", 1 << 3, MalformedImage, "compression"),
    (96, ">I", 7, MalformedImage, "refcount order"),
    (100, ">I", 0, MalformedImage, "header length"),
    (100, ">I", 105, MalformedImage, "header length"),
    (100, ">I", 0xFFFFFFF8, MalformedImage, "header length"),
    (104, ">B", 1, MalformedImage, "compression"),
    (104, ">B", 2, Unsupported, "compression type 2"),
]


@pytest.mark.parametrize(("offset", "form", "value", "error", "reason"), LIES)
def test_lies(offset, form, value, error, reason, good, bytes_source):
    with pytest.raises(error, match=reason):
        qcow2_header.parse(bytes_source(patched(good, offset, form, value)))


def test_dirty_and_corrupt_are_opened_and_noted(good, tmp_path, opened, run_folder):
    path = tmp_path / "image"
    path.write_bytes(patched(good, 72, ">Q", 3))
    image = opened(path)
    assert image.chain[0].details.dirty
    assert image.chain[0].details.corrupt
    assert len(image.notes) == 2


def test_snapshots_are_noted(good, tmp_path, opened):
    path = tmp_path / "image"
    path.write_bytes(good)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", str(path)], check=True)
    assert "1 internal snapshot besides" in opened(path).notes[0]


@pytest.mark.parametrize(
    "backing",
    ["/etc/passwd", "../secret", "json:{}", "nbd://127.0.0.1", "fat:/etc", "base.qcow2"],
)
def test_backing_files(backing, tmp_path, opened):
    path = tmp_path / "image"
    command = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", backing]
    subprocess.run([*command, str(path), "1M"], check=True)
    with pytest.raises((PolicyViolation, Unreadable), match="backing file") as failure:
        opened(path)
    assert failure.value.hint


def test_data_file(tmp_path, opened):
    path = tmp_path / "image"
    option = f"data_file={tmp_path / 'data'}"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", option, str(path), "1M"]
    subprocess.run(command, check=True)
    assert opened(path).files[1].path == tmp_path / "data"
    data = bytearray(path.read_bytes())
    data[79] = 0
    path.write_bytes(data)
    with pytest.raises(MalformedImage, match="says that it has none"):
        opened(path)
    data[79] = 4
    data[data.index(b"DATA") : data.index(b"DATA") + 4] = b"XXXX"
    path.write_bytes(data)
    with pytest.raises(MalformedImage, match="does not name it"):
        opened(path)


def test_data_file_elsewhere(tmp_path, opened):
    """CVE-2024-32498: the data file of an uploaded image is a file of the host."""
    path = tmp_path / "image"
    (tmp_path / "data").write_bytes(bytes(1 << 20))
    option = f"data_file={tmp_path / 'data'},data_file_raw=on"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", option, str(path), "1M"]
    subprocess.run(command, check=True)
    name = os.fsencode(tmp_path / "data")
    evil = b"/etc/passwd".rjust(len(name), b"/")
    path.write_bytes(path.read_bytes().replace(name, evil))
    with pytest.raises(PolicyViolation, match="data file"):
        opened(path)


def test_header_extensions(good, bytes_source):
    def extended(kind: int, length: int) -> bytes:
        data = bytearray(good)
        struct.pack_into(">II", data, 112, kind, length)
        return bytes(data)

    with pytest.raises(MalformedImage, match="leaves the first cluster"):
        qcow2_header.parse(bytes_source(extended(0x1234, 0xFFFFFFFF)))
    with pytest.raises(MalformedImage, match="encryption"):
        qcow2_header.parse(bytes_source(extended(0x0537BE77, 16)))


@pytest.mark.parametrize(
    "name", ["qcow2-v2", "qcow2-v3", "qcow2-512", "qcow2-ref1", "qcow2-ref64", "qcow2-compressed"]
)
@pytest.mark.parametrize("percent", [0, 1, 30, 60, 90])
def test_cut_copies(name, percent, variants, bytes_source):
    data = variants[name].read_bytes()
    with pytest.raises(MalformedImage, match=r"truncated: .* needs at least \d+ bytes"):
        qcow2_header.parse(bytes_source(data[: len(data) * percent // 100]))


def test_cut_by_one_cluster(good, bytes_source):
    with pytest.raises(MalformedImage, match="truncated"):
        qcow2_header.parse(bytes_source(good[: (len(good) - 1) // 65536 * 65536]))


def test_file_may_end_within_its_last_cluster(good, bytes_source):
    last = (len(good) - 1) // 65536 * 65536
    assert qcow2_header.parse(bytes_source(good[: last + 512]))
