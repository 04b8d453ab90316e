"""qcow version 1: what QEMU writes and sees, backing files, and headers and tables that lie."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import qcow1
from images.errors import ImageError, MalformedImage, Unsupported

MIB = 1 << 20
# As QEMU writes it: the L1 table behind the header, then the first L2 table and data.
L1, L2, DATA = 48, 4096, 8192
BUDGET = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def info(path) -> dict:
    command = ["qemu-img", "info", "--output=json", "-f", "qcow", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def made(path, *options: str, size: str = "10M") -> bytes:
    command = ["qemu-img", "create", "-q", "-u", "-f", "qcow", *options, str(path), size]
    subprocess.run(command, check=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    """One second-level table and one cluster of data."""
    path = tmp_path_factory.mktemp("qcow") / "image"
    made(path)
    subprocess.run(["qemu-io", "-f", "qcow", "-c", "write -q 0 4096", str(path)], check=True)
    data = path.read_bytes()
    assert struct.unpack_from(">Q", data, L1)[0] == L2
    assert struct.unpack_from(">Q", data, L2)[0] == DATA
    assert len(data) == DATA + 4096
    return data


@pytest.fixture(scope="module")
def child(tmp_path_factory) -> bytes:
    return made(tmp_path_factory.mktemp("qcow") / "image", "-b", "base.img", "-F", "raw")


def patched(data: bytes, *patches: tuple[int, str, int | bytes]) -> bytes:
    image = bytearray(data)
    for offset, form, value in patches:
        struct.pack_into(form, image, offset, value)
    return bytes(image)


def test_values_agree_with_qemu(good, tmp_path, bytes_source):
    path = tmp_path / "image"
    path.write_bytes(good)
    header = qcow1.parse(bytes_source(good))
    says = info(path)
    assert header.virtual_size == header.size_in_header == says["virtual-size"]
    assert header.cluster_size == says["cluster-size"]
    assert header.untrusted_backing is None
    assert not header.encrypted
    assert header.allocated_bytes == 4096
    assert (header.l1_entries, header.l1_offset, header.l2_entries) == (5, L1, 512)
    assert header.mtime == 0


def test_size_is_rounded_down_as_by_qemu(good, tmp_path, bytes_source):
    path = tmp_path / "image"
    path.write_bytes(patched(good, (24, ">Q", 1_000_001)))
    header = qcow1.parse(bytes_source(path.read_bytes()))
    assert header.virtual_size == info(path)["virtual-size"] == 999_936
    assert header.size_in_header == 1_000_001


@pytest.mark.parametrize("options", [[], ["-c"]])
def test_clusters_are_counted(options, disk, tmp_path, bytes_source):
    path = tmp_path / "image"
    command = ["qemu-img", "convert", *options, "-f", "raw", "-O", "qcow", str(disk), str(path)]
    # With -c QEMU 7.2 ends with code 1 and says nothing, yet the image is complete.
    subprocess.run(command, check=not options)
    header = qcow1.parse(bytes_source(path.read_bytes()))
    content = disk.read_bytes()
    size = header.cluster_size
    clusters = [content[start : start + size] for start in range(0, len(content), size)]
    expected = sum(any(cluster) for cluster in clusters) * size
    # The data is random, but the clusters at its edges can be compressed.
    assert expected * 0.99 < header.allocated_bytes <= expected
    assert (header.allocated_bytes == expected) == (not options)


def test_backing_file(tmp_path, bytes_source):
    path = tmp_path / "image"
    header = qcow1.parse(bytes_source(made(path, "-b", "../base.img", "-F", "raw")))
    assert header.untrusted_backing == b"../base.img"
    assert info(path)["backing-filename"] == "../base.img"
    assert header.cluster_size == 512


def test_encryption(tmp_path, bytes_source):
    path = tmp_path / "image"
    secret = ["--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s"]
    assert qcow1.parse(bytes_source(made(path, *secret))).encrypted
    assert info(path)["encrypted"]


LIES = [
    ([(0, "4s", b"QFI\xfa")], MalformedImage, "magic"),
    ([(4, ">I", 2)], MalformedImage, "version is not 1"),
    ([(24, ">Q", 0)], MalformedImage, "virtual size of 0"),
    ([(24, ">Q", 511)], MalformedImage, "virtual size of 511"),
    ([(24, ">Q", 1 << 63)], MalformedImage, "virtual size of"),
    ([(24, ">Q", (1 << 64) - 1)], MalformedImage, "virtual size of"),
    ([(24, ">Q", (1 << 63) - 512)], Unsupported, "L1 table takes"),
    ([(24, ">Q", (2 << 40) + 512)], Unsupported, "L1 table takes"),
    ([(24, ">Q", 2 << 40)], MalformedImage, "truncated: the L1 table"),
    ([(32, "B", 8)], MalformedImage, "cluster of 2\\^8"),
    ([(32, "B", 17)], MalformedImage, "cluster of 2\\^17"),
    ([(32, "B", 255)], MalformedImage, "cluster of 2\\^255"),
    ([(33, "B", 5)], MalformedImage, "table of 2\\^5"),
    ([(33, "B", 14)], MalformedImage, "table of 2\\^14"),
    ([(36, ">I", 2)], MalformedImage, "encryption method 2"),
    ([(40, ">Q", 0)], MalformedImage, "L1 table lies inside the header"),
    ([(40, ">Q", 47)], MalformedImage, "L1 table lies inside the header"),
    ([(40, ">Q", 1 << 63)], MalformedImage, "truncated: the L1 table"),
    ([(L1, ">Q", 8)], MalformedImage, "L2 table at offset 8 lies over"),
    ([(L1, ">Q", 80)], MalformedImage, "L2 table at offset 80 lies over"),
    ([(L1 + 8, ">Q", 1 << 63)], MalformedImage, "truncated: an L2 table"),
    ([(L1 + 8, ">Q", DATA + 1)], MalformedImage, "truncated: an L2 table"),
    ([(L1 + 8, ">Q", L2)], MalformedImage, "two of its L2 tables"),
    ([(L1 + 8, ">Q", L2 + 8)], MalformedImage, "two of its L2 tables"),
    ([(L2, ">Q", DATA + 8)], MalformedImage, "does not start at a sector"),
    ([(L2, ">Q", DATA + 512)], MalformedImage, "truncated: the data"),
    ([(L2, ">Q", (1 << 63) - 512)], MalformedImage, "truncated: the data"),
    ([(L2, ">Q", 0x200)], MalformedImage, "lies over the metadata"),
    ([(L2, ">Q", L2)], MalformedImage, "lies over the metadata"),
    ([(L2, ">Q", L2 + 512)], MalformedImage, "lies over the metadata"),
    ([(L2, ">Q", L2 - 512)], MalformedImage, "lies over the metadata"),
    ([(L2, ">Q", 1 << 63 | 100 << 51 | 8)], MalformedImage, "lies over the metadata"),
    ([(L2, ">Q", 1 << 63 | 100 << 51 | 60)], MalformedImage, "lies over the metadata"),
    ([(L2, ">Q", 1 << 63 | 100 << 51 | DATA + 4000)], MalformedImage, "truncated: the data"),
]


@pytest.mark.parametrize(("patches", "error", "reason"), LIES)
def test_lies(patches, error, reason, good, bytes_source):
    with pytest.raises(error, match=reason) as failure:
        qcow1.parse(bytes_source(patched(good, *patches)))
    assert failure.value.hint


def test_compressed_clusters_count_as_stored(good, bytes_source):
    entry = 1 << 63 | 100 << 51 | DATA + 3
    assert qcow1.parse(bytes_source(patched(good, (L2, ">Q", entry)))).allocated_bytes == 100


BACKING_LIES = [
    ([(16, ">I", 0)], "name of 0 bytes"),
    ([(16, ">I", 1024)], "name of 1024 bytes"),
    ([(16, ">I", 0xFFFFFFFF)], "name of"),
    ([(8, ">Q", 47)], "inside the header"),
    ([(8, ">Q", 1 << 63)], "truncated: the name"),
]


@pytest.mark.parametrize(("patches", "reason"), BACKING_LIES)
def test_lies_about_the_backing_file(patches, reason, child, bytes_source):
    with pytest.raises(MalformedImage, match=reason):
        qcow1.parse(bytes_source(patched(child, *patches)))


def test_longest_backing_file_name(child, bytes_source):
    data = child + b"x" * 1023
    data = patched(data, (8, ">Q", len(child)), (16, ">I", 1023))
    assert qcow1.parse(bytes_source(data)).untrusted_backing == b"x" * 1023


@pytest.mark.parametrize("length", [0, 47, 48, 80, L2, DATA - 1, DATA, DATA + 4095])
def test_cut_copies(length, good, bytes_source):
    with pytest.raises(MalformedImage, match="truncated"):
        qcow1.parse(bytes_source(good[:length]))


def many_tables(count: int) -> bytes:
    """Tables of 64 KiB, each with one cluster of 512 bytes behind all of them."""
    size = 64 << 10
    start = 48 + 8 * count
    l1_and_head = -(-start // 512) * 512
    data = l1_and_head + count * size
    head = struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, count << 22, 9, 13, 0, 0, 48)
    l1 = struct.pack(f">{count}Q", *(l1_and_head + index * size for index in range(count)))
    table = struct.pack(">Q", data).ljust(size, b"\0")
    return (head + l1).ljust(l1_and_head, b"\0") + table * count + bytes(512)


def test_many_tables_are_not_all_read(bytes_source):
    assert qcow1.parse(bytes_source(many_tables(256))).allocated_bytes == 256 * 512
    data = many_tables(257)
    assert qcow1.parse(bytes_source(data)).allocated_bytes is None
    last = len(data) - 512 - (64 << 10)
    with pytest.raises(MalformedImage, match="truncated: the data"):
        qcow1.parse(bytes_source(patched(data, (last, ">Q", 1 << 40))))


CHANGES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 90), st.builds(int.__add__, st.just(L2), st.integers(0, 40))),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([b"\xff" * 8, b"\0" * 8, struct.pack(">Q", L2), b"\x80"]),
        ),
    ),
    max_size=4,
)


def survives(source) -> None:
    try:
        header = qcow1.parse(source)
    except ImageError as error:
        text = str(error) + error.hint
        assert text.isprintable()
    else:
        assert header.virtual_size > 0
        assert dataclasses.asdict(header)


@BUDGET
@given(changes=CHANGES, cut=st.one_of(st.none(), st.integers(0, 13_000)), with_=st.booleans())
def test_changed_images(changes, cut, with_, good, child, bytes_source):
    image = bytearray(child if with_ else good)
    for offset, patch in changes:
        image[offset : offset + len(patch)] = patch
    survives(bytes_source(bytes(image[:cut])))


@BUDGET
@given(noise=st.binary(max_size=2048))
def test_noise(noise, bytes_source):
    survives(bytes_source(noise))
    survives(bytes_source(b"QFI\xfb\0\0\0\1" + noise))
