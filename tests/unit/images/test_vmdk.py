"""Descriptors that reach for other files, and sparse headers that lie."""

from __future__ import annotations

import os
import struct

import pytest

from images import vmdk, vmdk_descriptor, vmdk_sparse
from images.errors import (
    Ambiguous,
    ImageError,
    MalformedImage,
    PolicyViolation,
    Unreadable,
    Unsupported,
)

from .conftest import streamed

HEAD = '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="{}"\n'


@pytest.fixture
def descriptor(tmp_path):
    """Writes a descriptor of one type with the given extent lines beside two good extents."""
    (tmp_path / "flat").write_bytes(b"f" * 1024)
    (tmp_path / "other").write_bytes(b"o" * 1024)

    def write(lines: str, create_type: str = "twoGbMaxExtentFlat", head: str = HEAD):
        path = tmp_path / "disk.vmdk"
        path.write_bytes((head.format(create_type) + lines + "\n").encode("latin-1"))
        return path

    return write


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../gone",
        "/dev/zero",
        "a/b",
        "json:{}",
        "nbd://x",
        "http://x/y",
        "fat:x",
        ".",
    ],
)
def test_extents_elsewhere(name, descriptor, opened):
    with pytest.raises((PolicyViolation, Unreadable), match="extent") as failure:
        opened(descriptor(f'RW 2 FLAT "{name}" 0'))
    assert failure.value.hint


def test_extents_that_are_no_files(descriptor, opened, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name, reason in (("fifo", "regular"), ("folder", "is a folder"), ("link", "outside")):
        with pytest.raises(PolicyViolation, match=reason) as failure:
            opened(descriptor(f'RW 2 FLAT "{name}" 0'))
        assert name in str(failure.value)


def test_missing_extent_names_both_files(descriptor, opened, tmp_path):
    path = descriptor('RW 2 FLAT "flat" 0\nRW 2 FLAT "gone.vmdk" 0')
    with pytest.raises(Unreadable, match="does not exist") as failure:
        opened(path)
    assert str(tmp_path / "gone.vmdk") in str(failure.value)
    assert str(path) in str(failure.value)


def test_descriptor_behind_a_link_finds_its_extents(descriptor, opened, tmp_path):
    path = descriptor('RW 2 FLAT "flat" 0')
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "link").symlink_to(path)
    assert opened(folder / "link").virtual_size == 1024


REFUSED = [
    ('RW 2 FLAT "flat" 0\nRW 2 FLAT "flat" 0', PolicyViolation, "twice"),
    ('RW 2 FLAT "disk.vmdk" 0', ImageError, "twice|truncated"),
    ('RW 3 FLAT "flat" 0', MalformedImage, "truncated: the flat extent needs at least 1536"),
    ('RW 2 FLAT "flat" 1', MalformedImage, "truncated"),
    ('RW 2 FLAT "flat"', MalformedImage, "extent line"),
    ('RW 0 FLAT "flat" 0', MalformedImage, "extent line"),
    ('RW 9223372036854775807 FLAT "flat" 0', MalformedImage, "extent line"),
    ('RW 2 FLAT "flat" 9223372036854775807', MalformedImage, "extent line"),
    ('RW 99999999999999999999 FLAT "flat" 0', MalformedImage, "damaged extent line"),
    ("RW 18014398509481982 ZERO\nRW 18014398509481982 ZERO", MalformedImage, "add up"),
    ('RW -2 FLAT "flat" 0', MalformedImage, "damaged extent line"),
    ("RW 2 FLAT flat 0", MalformedImage, "damaged extent line"),
    ('RW 2 FLAT "flat" 0 "device"', MalformedImage, "damaged extent line"),
    ('RW 2 FLAT "fl\x1bat', MalformedImage, r"\\x1b"),
    ('RW 2 VMFS "flat"', MalformedImage, "another type"),
    ('RW 2 VMFSRDM "flat" 0', Unsupported, "VMFSRDM"),
    ('NOACCESS 2 FLAT "flat" 0', Unsupported, "NOACCESS"),
    ('RW 2 SPARSE "flat"', MalformedImage, "another type"),
    ("", MalformedImage, "0 extents"),
    ("RW 1 ZERO\n" * 4097, MalformedImage, "4097 extents"),
]


@pytest.mark.parametrize(("lines", "error", "reason"), REFUSED)
def test_refused_extents(lines, error, reason, descriptor, opened):
    with pytest.raises(error, match=reason):
        opened(descriptor(lines))


@pytest.mark.parametrize(
    "create_type",
    ["vmfsSparse", "seSparse", "custom", "fullDevice", "partitionedDevice", "vmfsRaw", "x"],
)
def test_other_types_are_named(create_type, descriptor, opened):
    with pytest.raises(Unsupported, match=create_type):
        opened(descriptor('RW 2 FLAT "flat" 0', create_type))


def test_types_that_need_a_sparse_header(descriptor, opened):
    with pytest.raises(MalformedImage, match="only a descriptor"):
        opened(descriptor('RW 2 FLAT "flat" 0', "monolithicSparse"))


PARENTS = [
    'parentFileNameHint="/etc/passwd"',
    '# parentFileNameHint="base.vmdk"',
    'ddb.comment = "parentFileNameHint=x"',
    "xparentFileNameHinty",
    "parentCID=12345678",
    "# parentCID=00000000",
    "parentCID=ffffffff0",
    "parentCID",
]


@pytest.mark.parametrize("line", PARENTS)
def test_parents_in_a_text_descriptor(line, descriptor, opened):
    with pytest.raises((PolicyViolation, MalformedImage), match="parent"):
        opened(descriptor(f'RW 2 FLAT "flat" 0\n{line}'))


@pytest.mark.parametrize("line", PARENTS)
def test_parents_in_an_embedded_descriptor(line, variants, bytes_source):
    data = bytearray(variants["vmdk-sparse"].read_bytes())
    end = data.index(b"\0", 512)
    data[end : end + len(line) + 2] = f"\n{line}\n".encode()
    with pytest.raises((PolicyViolation, MalformedImage), match="parent"):
        vmdk.parse_single(bytes_source(bytes(data)))


@pytest.mark.parametrize("offset", [0x200 + 9000, 0x200 + 20 * 512 - 18])
def test_parent_after_the_end_of_the_text(offset, variants, bytes_source):
    data = bytearray(variants["vmdk-sparse"].read_bytes())
    data[offset : offset + 18] = b"parentFileNameHint"
    with pytest.raises(PolicyViolation, match="parent"):
        vmdk.parse_single(bytes_source(bytes(data)))


def test_parent_where_qemu_looks_though_the_descriptor_lies_elsewhere(variants, bytes_source):
    data = bytearray(variants["vmdk-sparse"].read_bytes())
    text = bytes(data[512 : 512 + 20 * 512])
    struct.pack_into("<Q", data, 28, len(data) // 512)
    data[600:618] = b"parentFileNameHint"
    with pytest.raises(PolicyViolation, match="parent"):
        vmdk.parse_single(bytes_source(bytes(data) + text))


def test_two_types(descriptor, opened):
    with pytest.raises(MalformedImage, match="several createTypes"):
        opened(descriptor('RW 2 FLAT "flat" 0\ncreateType="monolithicFlat"'))


def test_huge_descriptor(descriptor, opened):
    with pytest.raises(MalformedImage, match="1 MiB"):
        opened(descriptor("#" * (1 << 20)))


def test_boot_sector_and_descriptor(descriptor, opened):
    path = descriptor('RW 2 FLAT "flat" 0')
    path.write_bytes(path.read_bytes().ljust(510, b"\n") + b"\x55\xaa")
    with pytest.raises(Ambiguous):
        opened(path)


SPARSE_LIES = [
    (4, "<I", 0, Unsupported, "version 0"),
    (4, "<I", 4, Unsupported, "version 4"),
    (8, "<I", 1 << 20, Unsupported, "features"),
    (8, "<I", 1 << 16 | 3, MalformedImage, "compression"),
    (12, "<Q", 0, MalformedImage, "capacity"),
    (12, "<Q", 1 << 63, MalformedImage, "capacity"),
    (12, "<Q", 1 << 40, MalformedImage, "truncated|sectors"),
    (12, "<Q", 1 << 53, MalformedImage, "directory"),
    (20, "<Q", 0, MalformedImage, "grain"),
    (20, "<Q", 100, MalformedImage, "grain"),
    (20, "<Q", 1 << 62, MalformedImage, "grain"),
    (28, "<Q", 0, Unsupported, "one part"),
    (28, "<Q", 1 << 60, MalformedImage, "truncated: the embedded descriptor"),
    (36, "<Q", 1 << 60, MalformedImage, "1 MiB"),
    (44, "<I", 0, MalformedImage, "grain tables"),
    (44, "<I", 1024, MalformedImage, "grain tables"),
    (48, "<Q", 1 << 50, MalformedImage, "truncated: the grain directory"),
    (56, "<Q", 0, MalformedImage, "inside the header"),
    (56, "<Q", (1 << 64) - 2, MalformedImage, "truncated: the grain directory"),
    (56, "<Q", (1 << 64) - 1, MalformedImage, "footer"),
    (64, "<Q", 1 << 50, MalformedImage, "truncated"),
    (74, "<B", 0, MalformedImage, "text mode"),
    (77, "<H", 1, MalformedImage, "compression"),
    (77, "<H", 7, Unsupported, "compression 7"),
]


@pytest.mark.parametrize(("offset", "form", "value", "error", "reason"), SPARSE_LIES)
def test_sparse_lies(offset, form, value, error, reason, variants, bytes_source):
    data = bytearray(variants["vmdk-sparse"].read_bytes())
    struct.pack_into(form, data, offset, value)
    with pytest.raises(error, match=reason):
        vmdk.parse_single(bytes_source(bytes(data)))


@pytest.mark.parametrize("name", ["vmdk-sparse", "vmdk-stream", "vmdk-zeroed"])
@pytest.mark.parametrize("percent", [0, 1, 3, 50, 90])
def test_cut_copies(name, percent, variants, bytes_source):
    data = variants[name].read_bytes()
    with pytest.raises(MalformedImage, match="truncated"):
        vmdk.parse_single(bytes_source(data[: len(data) * percent // 100]))


def test_footer(variants, bytes_source):
    data = streamed(variants["vmdk-stream"].read_bytes())
    parsed = vmdk.parse_single(bytes_source(data))
    assert not parsed[0].directory_at_end
    for end in (-1, -512, -1024, -1536):
        with pytest.raises(MalformedImage, match="truncated"):
            vmdk.parse_single(bytes_source(data[:end]))


@pytest.mark.parametrize(
    "changes", [{"capacity": 80}, {"descriptor": 2}, {"gd": vmdk_sparse.GD_AT_END}]
)
def test_footer_that_contradicts(changes, variants, bytes_source):
    data = streamed(variants["vmdk-stream"].read_bytes(), **changes)
    with pytest.raises(MalformedImage, match="contradict"):
        vmdk.parse_single(bytes_source(data))


def test_part_of_a_split_disk_is_no_disk(variants, opened):
    (part,) = variants["vmdk-split-sparse"].parent.glob("*-s001*")
    with pytest.raises(Unsupported, match="one part") as failure:
        opened(part)
    assert "descriptor" in failure.value.hint


@pytest.mark.parametrize("sectors", [81919, 81921])
def test_sparse_part_of_another_size(sectors, variants, tmp_path, opened):
    (part,) = variants["vmdk-split-sparse"].parent.glob("*-s001*")
    (tmp_path / "part").write_bytes(part.read_bytes())
    path = tmp_path / "disk.vmdk"
    path.write_text(HEAD.format("twoGbMaxExtentSparse") + f'RW {sectors} SPARSE "part"\n')
    with pytest.raises(MalformedImage, match="81920 sectors"):
        opened(path)


def test_sparse_part_without_its_magic(descriptor, opened):
    with pytest.raises(MalformedImage, match="is none"):
        opened(descriptor('RW 2 SPARSE "flat"', "twoGbMaxExtentSparse"))


@pytest.mark.parametrize("magic", [b"COWD", struct.pack("<QQ", 0xCAFEBABE, 0x200000001)])
def test_esx_formats(magic, tmp_path, opened):
    path = tmp_path / "disk"
    path.write_bytes(magic.ljust(4096, b"\0"))
    with pytest.raises(Unsupported, match="ESX"):
        opened(path)


def test_search_for_parents_accepts_what_tools_write(bytes_source):
    for line in (b"parentCID=ffffffff\r\n", b"parentCID = FFFFFFFF\n", b"parentCID=ffffffff"):
        vmdk_descriptor.refuse_hidden_parent(bytes_source(b""), line, line)
