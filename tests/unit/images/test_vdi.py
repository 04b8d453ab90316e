"""VDI: what QEMU writes and sees, and headers and block maps that lie."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import vdi
from images.errors import ImageError, MalformedImage, Unsupported

MIB = 1 << 20
MAP = 512
BUDGET = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def info(path) -> dict:
    command = ["qemu-img", "info", "--output=json", "-f", "vdi", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def made(path, *options: str, size: str = "3M") -> bytes:
    subprocess.run(["qemu-img", "create", "-q", "-f", "vdi", *options, str(path), size], check=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    """Four blocks, of which two are in the file: the second block of the disk, then the first."""
    path = tmp_path_factory.mktemp("vdi") / "image"
    made(path, size="4M")
    for start in ("1M", "0"):
        command = ["qemu-io", "-f", "vdi", "-c", f"write -q {start} 512", str(path)]
        subprocess.run(command, check=True)
    return path.read_bytes()


def patched(data: bytes, *patches: tuple[int, str, int | bytes]) -> bytes:
    image = bytearray(data)
    for offset, form, value in patches:
        struct.pack_into(form, image, offset, value)
    return bytes(image)


def test_dynamic_agrees_with_qemu(good, tmp_path, bytes_source):
    path = tmp_path / "image"
    path.write_bytes(good)
    header = vdi.parse(bytes_source(good))
    says = info(path)
    assert header.virtual_size == says["virtual-size"] == 4 * MIB
    assert header.block_size == says["cluster-size"]
    assert header.subformat == "dynamic"
    assert header.blocks == 4
    assert header.allocated_bytes == header.allocated_in_header == 2 * MIB
    assert header.untrusted_creator == b"<<< QEMU VM Virtual Disk Image >>>"
    assert header.untrusted_description == b""
    assert header.uuid.version == header.modified_uuid.version == 4
    assert header.map_offset == MAP


def test_static_agrees_with_qemu(tmp_path, bytes_source):
    path = tmp_path / "image"
    header = vdi.parse(bytes_source(made(path, "-o", "static=on")))
    assert header.virtual_size == info(path)["virtual-size"]
    assert header.subformat == "static"
    assert header.allocated_bytes == 3 * MIB


def test_blocks_are_counted(disk, tmp_path, bytes_source):
    path = tmp_path / "image"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "vdi", str(disk), str(path)]
    subprocess.run(command, check=True)
    header = vdi.parse(bytes_source(path.read_bytes()))
    content = disk.read_bytes()
    blocks = [content[start : start + MIB] for start in range(0, len(content), MIB)]
    assert header.allocated_bytes == sum(any(block) for block in blocks) * MIB


def test_odd_size_is_rounded_as_by_qemu(good, tmp_path, bytes_source):
    path = tmp_path / "image"
    path.write_bytes(patched(good, (0x170, "<Q", 1_000_001)))
    header = vdi.parse(bytes_source(path.read_bytes()))
    assert header.virtual_size == info(path)["virtual-size"] == 1_000_448


def test_last_block_may_end_with_the_disk(good, bytes_source):
    data = patched(good, (0x170, "<Q", MIB + 512), (MAP, "<I", 0), (MAP + 4, "<I", 1))
    end = 1024 + MIB + 512
    assert vdi.parse(bytes_source(data[:end])).allocated_bytes == 2 * MIB
    with pytest.raises(MalformedImage, match="truncated: a block"):
        vdi.parse(bytes_source(data[: end - 1]))
    twice = patched(data, (MAP, "<I", 1))
    with pytest.raises(MalformedImage, match="truncated: a block"):
        vdi.parse(bytes_source(twice[:end]))


def test_marks_are_no_blocks(good, bytes_source):
    data = patched(good, (MAP, "<I", 0xFFFFFFFE), (MAP + 4, "<I", 0xFFFFFFFF))
    assert vdi.parse(bytes_source(data)).allocated_bytes == 0


def test_uuids_are_those_that_qemu_and_virtualbox_show(good, bytes_source):
    stored = bytes.fromhex("00112233445566778899aabbccddeeff")
    header = vdi.parse(bytes_source(patched(good, (0x188, "16s", stored))))
    assert header.uuid == UUID("33221100-5544-7766-8899-aabbccddeeff")


PARENT = UUID("12345678-1234-4234-8234-123456789abc")
LIES = [
    ([(0x40, "<I", 1)], MalformedImage, "magic"),
    ([(0x44, "<I", 0x10000)], Unsupported, "version 1.0"),
    ([(0x4C, "<I", 0)], MalformedImage, "type 0"),
    ([(0x4C, "<I", 5)], MalformedImage, "type 5"),
    ([(0x4C, "<I", 3)], Unsupported, "differencing or undo"),
    ([(0x4C, "<I", 4), (0x1B8, "16s", PARENT.bytes_le)], Unsupported, str(PARENT)),
    ([(0x1B8, "16s", PARENT.bytes_le)], Unsupported, str(PARENT)),
    ([(0x1A8, "16s", PARENT.bytes_le)], Unsupported, str(PARENT)),
    ([(0x154, "<I", 513)], MalformedImage, "does not start at a sector"),
    ([(0x158, "<I", 1025)], MalformedImage, "does not start at a sector"),
    ([(0x154, "<I", 0)], MalformedImage, "map lies over the header"),
    ([(0x154, "<I", 0xFFFFFE00)], MalformedImage, "truncated: the block map"),
    ([(0x158, "<I", 0)], MalformedImage, "over the header"),
    ([(0x158, "<I", 512)], MalformedImage, "over the block map"),
    ([(0x158, "<I", 0xFFFFFE00)], MalformedImage, "truncated: a block"),
    ([(0x168, "<I", 4096)], MalformedImage, "sector of 4096"),
    ([(0x170, "<Q", 0)], MalformedImage, "disk of 0 bytes"),
    ([(0x170, "<Q", 4 * MIB + 1)], MalformedImage, "disk of"),
    ([(0x170, "<Q", (1 << 64) - 1)], MalformedImage, "disk of"),
    ([(0x178, "<I", 2 * MIB)], Unsupported, "blocks of 2097152"),
    ([(0x178, "<I", 0)], Unsupported, "blocks of 0"),
    ([(0x17C, "<I", 512)], Unsupported, "512 bytes more"),
    ([(0x180, "<I", 3)], MalformedImage, "does not go with 3 blocks"),
    ([(0x180, "<I", 0xFFFFFFFF)], Unsupported, "block map takes"),
    ([(0x180, "<I", (16 << 20) + 1)], Unsupported, "block map takes"),
    ([(0x180, "<I", 16 << 20)], MalformedImage, "truncated: the block map"),
    ([(0x184, "<I", 5)], MalformedImage, "5 of its 4 blocks"),
    ([(MAP, "<I", 2)], MalformedImage, "truncated: a block"),
    ([(MAP + 8, "<I", 0xFFFFFFFD)], MalformedImage, "truncated: a block"),
]


@pytest.mark.parametrize(("patches", "error", "reason"), LIES)
def test_lies(patches, error, reason, good, bytes_source):
    with pytest.raises(error, match=reason) as failure:
        vdi.parse(bytes_source(patched(good, *patches)))
    assert failure.value.hint


@pytest.mark.parametrize("length", [0, 100, 511, 512, 1023, 1024, 2000, MIB, 2 * MIB + 1023])
def test_cut_copies(length, good, bytes_source):
    with pytest.raises(MalformedImage, match="truncated"):
        vdi.parse(bytes_source(good[:length]))


CHANGES = st.lists(
    st.tuples(
        st.one_of(st.integers(0x40, 0x54), st.integers(0x150, 0x1D0), st.integers(512, 540)),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8])),
    ),
    max_size=4,
)


def survives(source) -> None:
    try:
        header = vdi.parse(source)
    except ImageError as error:
        text = str(error) + error.hint
        assert text.isprintable()
    else:
        assert header.virtual_size > 0
        assert dataclasses.asdict(header)


@BUDGET
@given(changes=CHANGES, cut=st.one_of(st.none(), st.integers(0, 2 * MIB)))
def test_changed_images(changes, cut, good, bytes_source):
    image = bytearray(good)
    for offset, patch in changes:
        image[offset : offset + len(patch)] = patch
    survives(bytes_source(bytes(image[:cut])))


@BUDGET
@given(noise=st.binary(max_size=2048))
def test_noise(noise, bytes_source):
    survives(bytes_source(noise))
    survives(bytes_source(bytes(64) + struct.pack("<II", vdi.MAGIC, 0x10001) + noise))
