"""QED: what QEMU writes and sees, backing files, and headers and tables that lie."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import qed
from images.errors import ImageError, MalformedImage, Unsupported

MIB = 1 << 20
CLUSTER = 4096
# Tables of two clusters. Behind the header QEMU puts the L1 table, then data, then an L2 table.
L1, DATA, L2, END = CLUSTER, 3 * CLUSTER, 4 * CLUSTER, 6 * CLUSTER
OPTIONS = "cluster_size=4096,table_size=2"
BUDGET = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def info(path) -> dict:
    command = ["qemu-img", "info", "--output=json", "-f", "qed", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def made(path, *options: str, size: str = "100M") -> bytes:
    command = ["qemu-img", "create", "-q", "-u", "-f", "qed", *options, str(path), size]
    subprocess.run(command, check=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    """One second-level table and one cluster of data."""
    path = tmp_path_factory.mktemp("qed") / "image"
    made(path, "-o", OPTIONS)
    subprocess.run(["qemu-io", "-f", "qed", "-c", "write -q 0 4096", str(path)], check=True)
    data = path.read_bytes()
    assert struct.unpack_from("<Q", data, L1)[0] == L2
    assert struct.unpack_from("<Q", data, L2)[0] == DATA
    assert len(data) == END
    return data


@pytest.fixture(scope="module")
def child(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("qed") / "image"
    return made(path, "-o", OPTIONS, "-b", "base.img", "-F", "raw")


def patched(data: bytes, *patches: tuple[int, str, int | bytes]) -> bytes:
    image = bytearray(data)
    for offset, form, value in patches:
        struct.pack_into(form, image, offset, value)
    return bytes(image)


@pytest.mark.parametrize(
    "options", ["cluster_size=64k", OPTIONS, "cluster_size=512k,table_size=16"]
)
def test_values_agree_with_qemu(options, tmp_path, bytes_source):
    path = tmp_path / "image"
    header = qed.parse(bytes_source(made(path, "-o", options)))
    says = info(path)
    assert header.virtual_size == says["virtual-size"]
    assert header.cluster_size == says["cluster-size"]
    assert header.untrusted_backing is None
    assert not header.needs_check
    assert header.allocated_bytes == 0
    assert header.compatible_features == header.autoclear_features == 0


def test_clusters_are_counted(disk, tmp_path, bytes_source):
    path = tmp_path / "image"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qed", str(disk), str(path)]
    subprocess.run(command, check=True)
    header = qed.parse(bytes_source(path.read_bytes()))
    content = disk.read_bytes()
    size = header.cluster_size
    clusters = [content[start : start + size] for start in range(0, len(content), size)]
    assert header.allocated_bytes == sum(any(cluster) for cluster in clusters) * size


@pytest.mark.parametrize(("form", "is_raw"), [("raw", True), ("qcow2", False)])
def test_backing_file(form, is_raw, tmp_path, bytes_source):
    path = tmp_path / "image"
    header = qed.parse(bytes_source(made(path, "-b", "../base.img", "-F", form)))
    assert header.untrusted_backing == b"../base.img"
    assert info(path)["backing-filename"] == "../base.img"
    assert header.backing_is_raw == is_raw
    assert header.allocated_bytes == 0


def test_longest_backing_file_name(child, bytes_source):
    name = b"x" * 1023
    data = patched(child, (56, "<I", 64), (60, "<I", 1023), (64, "1023s", name))
    assert qed.parse(bytes_source(data)).untrusted_backing == name


def test_image_that_needs_a_check_is_opened_as_by_qemu(good, tmp_path, bytes_source):
    path = tmp_path / "image"
    path.write_bytes(patched(good, (16, "<Q", 2)))
    assert qed.parse(bytes_source(path.read_bytes())).needs_check
    command = ["qemu-io", "-r", "-f", "qed", "-c", "read -q 0 4096", str(path)]
    subprocess.run(command, check=True)
    assert struct.unpack_from("<Q", path.read_bytes(), 16)[0] == 2


def test_other_features_are_shown(good, bytes_source):
    header = qed.parse(bytes_source(patched(good, (24, "<Q", 4), (32, "<Q", 8))))
    assert header.compatible_features == 4
    assert header.autoclear_features == 8


def test_zeroes_take_no_room(good, bytes_source):
    assert qed.parse(bytes_source(patched(good, (L2, "<Q", 1)))).allocated_bytes == 0


def test_qemu_refuses_tables_of_one_cluster(tmp_path, bytes_source):
    path = tmp_path / "image"
    data = made(path, "-o", "cluster_size=4096,table_size=1", size="1M")
    with pytest.raises(subprocess.CalledProcessError):
        info(path)
    with pytest.raises(Unsupported, match="tables of 1 clusters"):
        qed.parse(bytes_source(data))


LIES = [
    ([(0, "4s", b"QEDx")], MalformedImage, "magic"),
    ([(16, "<Q", 8)], Unsupported, "bits 0x8"),
    ([(16, "<Q", 1 << 63)], Unsupported, "bits 0x8"),
    ([(4, "<I", 0)], MalformedImage, "cluster of 0"),
    ([(4, "<I", 2048)], MalformedImage, "cluster of 2048"),
    ([(4, "<I", 128 << 20)], MalformedImage, "cluster of"),
    ([(4, "<I", 12288)], MalformedImage, "cluster of 12288"),
    ([(8, "<I", 0)], MalformedImage, "tables of 0 clusters"),
    ([(8, "<I", 3)], MalformedImage, "tables of 3 clusters"),
    ([(8, "<I", 32)], MalformedImage, "tables of 32 clusters"),
    ([(8, "<I", 1)], Unsupported, "tables of 1 clusters"),
    ([(4, "<I", 64 << 20), (8, "<I", 16)], Unsupported, "at most 8 MiB"),
    ([(4, "<I", 1 << 20), (8, "<I", 16)], Unsupported, "at most 8 MiB"),
    ([(48, "<Q", 0)], MalformedImage, "virtual size of 0"),
    ([(48, "<Q", 513)], MalformedImage, "virtual size of 513"),
    ([(48, "<Q", (1 << 32) + 512)], MalformedImage, "virtual size of"),
    ([(48, "<Q", (1 << 64) - 512)], MalformedImage, "virtual size of"),
    ([(12, "<I", 0)], MalformedImage, "header of 0 clusters"),
    ([(12, "<I", 0xFFFFFFFF)], MalformedImage, "header of"),
    ([(12, "<I", 2)], MalformedImage, "L1 table lies inside the header"),
    ([(40, "<Q", 0)], MalformedImage, "L1 table lies inside the header"),
    ([(40, "<Q", 4097)], MalformedImage, "L1 table does not start at a cluster"),
    ([(40, "<Q", 1 << 40)], MalformedImage, "truncated: the L1 table"),
    ([(40, "<Q", (1 << 64) - CLUSTER)], MalformedImage, "truncated: the L1 table"),
    ([(40, "<Q", END - CLUSTER)], MalformedImage, "truncated: the L1 table"),
    ([(L1, "<Q", 0x1001)], MalformedImage, "L2 table does not start at a cluster"),
    ([(L1 + 8, "<Q", 1 << 40)], MalformedImage, "truncated: an L2 table"),
    ([(L1 + 8, "<Q", L1)], MalformedImage, "two of its tables"),
    ([(L1 + 8, "<Q", L2)], MalformedImage, "two of its tables"),
    ([(L1 + 8, "<Q", L2 - CLUSTER)], MalformedImage, "two of its tables"),
    ([(L2 + 8, "<Q", 2)], MalformedImage, "cluster at offset 2"),
    ([(L2 + 8, "<Q", DATA + 512)], MalformedImage, "cluster at offset"),
    ([(12, "<I", 1), (L2, "<Q", L1)], MalformedImage, "lies over a table"),
    ([(L2, "<Q", L2 + CLUSTER)], MalformedImage, "lies over a table"),
    ([(L2, "<Q", END)], MalformedImage, "truncated: the data"),
    ([(L2, "<Q", (1 << 64) - CLUSTER)], MalformedImage, "truncated: the data"),
]


@pytest.mark.parametrize(("patches", "error", "reason"), LIES)
def test_lies(patches, error, reason, good, bytes_source):
    with pytest.raises(error, match=reason) as failure:
        qed.parse(bytes_source(patched(good, *patches)))
    assert failure.value.hint


def test_cluster_in_the_header(good, bytes_source):
    """A header of two clusters, everything else moved by one."""
    data = good[:CLUSTER] + bytes(CLUSTER) + good[CLUSTER:]
    moved = [(12, "<I", 2), (40, "<Q", L1 + CLUSTER), (L1 + CLUSTER, "<Q", L2 + CLUSTER)]
    right = patched(data, *moved, (L2 + CLUSTER, "<Q", DATA + CLUSTER))
    assert qed.parse(bytes_source(right)).allocated_bytes == CLUSTER
    wrong = patched(data, *moved, (L2 + CLUSTER, "<Q", CLUSTER))
    with pytest.raises(MalformedImage, match="cluster at offset 4096"):
        qed.parse(bytes_source(wrong))
    wrong = patched(right, (L1 + CLUSTER, "<Q", CLUSTER))
    with pytest.raises(MalformedImage, match="L2 table lies inside the header"):
        qed.parse(bytes_source(wrong))


def test_data_may_come_before_all_tables(good, bytes_source):
    data = good[:CLUSTER] + good[DATA:L2] + good[L1:DATA] + good[L2:]
    moved = [(40, "<Q", 2 * CLUSTER), (L2, "<Q", CLUSTER)]
    assert qed.parse(bytes_source(patched(data, *moved))).allocated_bytes == CLUSTER


BACKING_LIES = [
    ([(60, "<I", 0)], "name of 0 bytes"),
    ([(60, "<I", 1024)], "name of 1024 bytes"),
    ([(60, "<I", 0xFFFFFFFF)], "name of"),
    ([(56, "<I", 63)], "does not lie in the header"),
    ([(56, "<I", CLUSTER - 4)], "does not lie in the header"),
    ([(56, "<I", 0xFFFFFFFF)], "does not lie in the header"),
]


@pytest.mark.parametrize(("patches", "reason"), BACKING_LIES)
def test_lies_about_the_backing_file(patches, reason, child, bytes_source):
    with pytest.raises(MalformedImage, match=reason):
        qed.parse(bytes_source(patched(child, *patches)))


@pytest.mark.parametrize("length", [0, 60, 64, CLUSTER, DATA, L2, END - 1])
def test_cut_copies(length, good, bytes_source):
    with pytest.raises(MalformedImage, match=r"truncated|header of"):
        qed.parse(bytes_source(good[:length]))


def many_tables(count: int) -> bytes:
    """Tables of 16 KiB, each with one cluster of zeroes behind all of them."""
    size = 4 * CLUSTER
    l2 = [CLUSTER + size + index * size for index in range(count)]
    data = CLUSTER + size + count * size
    fields = (CLUSTER, 4, 1, 0, 0, 0, CLUSTER, 1 << 30, 0, 0)
    head = struct.pack("<4sIIIQQQQQII", b"QED\0", *fields).ljust(CLUSTER, b"\0")
    l1 = struct.pack(f"<{count}Q", *l2).ljust(size, b"\0")
    return head + l1 + struct.pack("<Q", data).ljust(size, b"\0") * count + bytes(CLUSTER)


def test_many_tables_are_not_all_read(bytes_source):
    assert qed.parse(bytes_source(many_tables(1024))).allocated_bytes == 1024 * CLUSTER
    data = many_tables(1025)
    assert qed.parse(bytes_source(data)).allocated_bytes is None
    last = CLUSTER + 4 * CLUSTER * 1025
    with pytest.raises(MalformedImage, match="truncated: the data"):
        qed.parse(bytes_source(patched(data, (last, "<Q", 1 << 40))))


CHANGES = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, 70),
            st.builds(int.__add__, st.sampled_from([L1, L2]), st.integers(0, 40)),
        ),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([b"\xff" * 8, b"\0" * 8, struct.pack("<Q", L2), b"\0\x10"]),
        ),
    ),
    max_size=4,
)


def survives(source) -> None:
    try:
        header = qed.parse(source)
    except ImageError as error:
        text = str(error) + error.hint
        assert text.isprintable()
    else:
        assert header.virtual_size > 0
        assert dataclasses.asdict(header)


@BUDGET
@given(changes=CHANGES, cut=st.one_of(st.none(), st.integers(0, END)), with_=st.booleans())
def test_changed_images(changes, cut, with_, good, child, bytes_source):
    image = bytearray(child if with_ else good)
    for offset, patch in changes:
        image[offset : offset + len(patch)] = patch
    survives(bytes_source(bytes(image[:cut])))


@BUDGET
@given(noise=st.binary(max_size=2048))
def test_noise(noise, bytes_source):
    survives(bytes_source(noise))
    survives(bytes_source(b"QED\0" + noise))
    survives(bytes_source(struct.pack("<4sIII", b"QED\0", CLUSTER, 2, 1) + noise))
