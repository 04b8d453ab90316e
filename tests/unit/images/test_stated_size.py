"""What headers say of a disk's size, compared with qemu-img; and what a first look sees."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.detect import Format, detect, may_begin_image
from images.errors import ImageError
from images.stated_size import stated_size
from tests.builders.ewf import acquire

SIZE = 3 << 20
MAGICS = [
    *(b"KDMV", b"COWD", b"QED\0", b"QFI\xfb\0\0\0\1", b"QFI\xfb\0\0\0\3", b"conectix", b"vhdxfile"),
    *(b"EVF\x09\x0d\x0a\xff\x00", b"LVF\x09\x0d\x0a\xff\x00", b"EVF2\x0d\x0a\x81\x00"),
    *(b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"AFF10\x0d\x0a\x00", b"WithoutFreeSpace"),
    *(b"Bochs Virtual HD Image", b"# Disk DescriptorFile", b" # disk descriptorfile"),
    *(b"version=1\n", b"# x\n\nversion = 3\r\n", b"  \nVERSION=1\n"),
    bytes(64) + b"\x7f\x10\xda\xbe",
]


@dataclass
class Bytes:
    data: bytes
    path: Path = Path("memory")

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("qcow2", ""),
        ("qcow", ""),
        ("qed", ""),
        ("vdi", ""),
        ("vhdx", ""),
        ("vpc", "force_size=on"),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vmdk", ""),
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "subformat=monolithicFlat"),
    ],
)
def test_formats_of_qemu_img(tmp_path: Path, form: str, options: str) -> None:
    path = tmp_path / "image"
    more = ["-o", options] if options else []
    subprocess.run(["qemu-img", "create", "-q", "-f", form, *more, path, str(SIZE)], check=True)
    told = subprocess.run(
        ["qemu-img", "info", "--output=json", "-f", form, path], capture_output=True, check=True
    )
    source = Bytes(path.read_bytes())
    assert stated_size(detect(source), source) == json.loads(told.stdout)["virtual-size"] == SIZE


def test_ewf(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(os.urandom(4096) + bytes(SIZE - 4096))
    (segment,) = acquire(raw, tmp_path / "image")
    assert stated_size(Format.EWF, Bytes(segment.read_bytes())) == SIZE


@given(st.sampled_from(Format), st.binary(max_size=600), st.sampled_from(MAGICS))
def test_any_bytes(form: Format, data: bytes, magic: bytes) -> None:
    for each in (data, magic + data, data + b"conectix" + data):
        size = stated_size(form, Bytes(each))
        assert size is None or 0 < size < 2**63


@given(st.sampled_from(MAGICS), st.binary(max_size=300))
def test_first_look_misses_nothing(magic: bytes, rest: bytes) -> None:
    assert may_begin_image(magic + rest)


@given(st.binary(max_size=300))
def test_first_look_agrees_with_detect(data: bytes) -> None:
    try:
        found = detect(Bytes(data[:500] + bytes(1024)))
    except ImageError:
        return
    assert may_begin_image(data[:500] + bytes(1024)) or found is Format.RAW


def test_plain_files_are_passed_over() -> None:
    for data in (b"", b"hello", bytes(512), b"\x7fELF" + bytes(100), b"PK\3\4"):
        assert not may_begin_image(data)
