"""The format follows from the content alone, and a container is never taken for raw."""

from __future__ import annotations

import struct

import pytest

from images.detect import Format, detect
from images.errors import Ambiguous, MalformedImage, Unsupported

HEADS = {
    b"QFI\xfb\0\0\0\1": Format.QCOW1,
    b"QFI\xfb\0\0\0\2": Format.QCOW2,
    b"QFI\xfb\0\0\0\3": Format.QCOW2,
    b"QFI\xfb\0\0\0\x63": Format.QCOW2,
    b"KDMV": Format.VMDK,
    b"COWD": Format.VMDK,
    struct.pack("<QQ", 0xCAFEBABE, 0x200000001): Format.VMDK,
    b"QED\0": Format.QED,
    b"conectix": Format.VHD,
    b"vhdxfile": Format.VHDX,
    b"\0" * 64 + b"\x7f\x10\xda\xbe": Format.VDI,
    b"EVF\x09\x0d\x0a\xff\x00": Format.EWF,
    b"EVF2\x0d\x0a\x81\x00": Format.EWF,
    b"WithouFreSpacExt": Format.PARALLELS,
    b"# Disk DescriptorFile\nversion=1\n": Format.VMDK,
    b"# disk descriptorfile\r\nwhatever": Format.VMDK,
    b"# a comment\n  \nversion=1\n": Format.VMDK,
    b"version=3\r\n": Format.VMDK,
    b"#" + b"x" * 2000 + b"\nversion=2\n": Format.VMDK,
    b"\nversion = 9\n": Format.VMDK,
    b"": Format.RAW,
    b"LUKS\xba\xbe\0\2": Format.RAW,
    b"\xeb\x3c\x90MSDOS5.0": Format.RAW,
    b"# Disk\nDescriptorFile\n": Format.RAW,
    b"version=1": Format.RAW,
}


@pytest.mark.parametrize("head", HEADS)
def test_head(head, bytes_source):
    assert detect(bytes_source(head.ljust(8192, b"\0"))) is HEADS[head]


def test_boot_sector_is_raw(bytes_source):
    assert detect(bytes_source(b"\0" * 510 + b"\x55\xaa")) is Format.RAW


@pytest.mark.parametrize("size", [512, 511])
def test_fixed_vhd_is_known_by_its_footer(size, bytes_source):
    footer = b"conectix".ljust(size, b"\0")
    assert detect(bytes_source(b"\0" * 4096 + footer)) is Format.VHD


def test_bootable_fixed_vhd_is_not_ambiguous(bytes_source):
    disk = (b"\0" * 510 + b"\x55\xaa").ljust(4096, b"\0")
    assert detect(bytes_source(disk + b"conectix".ljust(512, b"\0"))) is Format.VHD


def test_short_files(bytes_source):
    for size in range(80):
        assert detect(bytes_source(b"Q" * size)) is Format.RAW


@pytest.mark.parametrize(
    "data",
    [
        b"QFI\xfb\0\0\0\3".ljust(4096, b"\0") + b"conectix".ljust(512, b"\0"),
        b"KDMV".ljust(64, b"\0") + b"\x7f\x10\xda\xbe" + b"\0" * 4096,
        b"QFI\xfb\0\0\0\3".ljust(510, b"\0") + b"\x55\xaa" + b"\0" * 4096,
        b"# Disk DescriptorFile\nversion=1\n".ljust(510, b"\n") + b"\x55\xaa",
    ],
)
def test_several_formats_at_once(data, bytes_source):
    with pytest.raises(Ambiguous) as failure:
        detect(bytes_source(data))
    assert " and " in str(failure.value)
    assert failure.value.hint


def test_what_is_not_supported_is_named(tmp_path, opened):
    for head, form in HEADS.items():
        if form not in {Format.AFF, Format.DMG, Format.PARALLELS, Format.BOCHS}:
            continue
        path = tmp_path / "image.raw"
        path.write_bytes(head.ljust(8192, b"\0"))
        with pytest.raises(Unsupported, match=form) as failure:
            opened(path)
        assert failure.value.hint


def test_suffix_proves_nothing(tmp_path, variants, opened):
    for name in ("qcow2-v3", "vmdk-sparse"):
        path = tmp_path / f"{name}.raw"
        path.write_bytes(variants[name].read_bytes())
        assert opened(path).format == name.split("-")[0]


def test_declared_format_is_still_checked(disk, opened):
    for form in (Format.QCOW2, Format.VMDK):
        with pytest.raises(MalformedImage, match="magic"):
            opened(disk, declared=form)
