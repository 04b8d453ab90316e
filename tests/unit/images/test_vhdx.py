"""VHDX: what QEMU writes and sees, differencing disks, and headers, regions and tables that lie."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import vhdx
from images.crc32c import crc32c
from images.errors import ImageError, MalformedImage, Unsupported
from images.parent_hint import ParentHint
from tests.builders import vhdx as builder
from tests.builders.vhdx import LOG, METADATA, TABLE, Vhdx

MIB = 1 << 20
BUDGET = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LINKAGE = UUID("aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee")
PARENT = {
    "parent_linkage": f"{{{LINKAGE}}}",
    "parent_linkage2": "{00000000-0000-0000-0000-000000000000}",
    "absolute_win32_path": "C:\\vm\\base.vhdx",
    "relative_path": ".\\base.vhdx",
    "volume_path": "\\\\?\\Volume{1}\\vm\\base.vhdx",
}
SECTORS = {0: b"a" * 512, 5: b"b" * 512, 4099: b"c" * 512}


def info(path) -> dict:
    command = ["qemu-img", "info", "--output=json", "-f", "vhdx", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.fixture(scope="module")
def good() -> bytes:
    return Vhdx(sectors=SECTORS).build()


@pytest.fixture(scope="module")
def child() -> bytes:
    return Vhdx(sectors=SECTORS, parent=PARENT).build()


def patched(data: bytes, *patches: tuple[int, str, int | bytes]) -> bytes:
    """The same image with these fields changed, and with right checksums."""
    image = bytearray(data)
    for offset, form, value in patches:
        struct.pack_into(form, image, offset, value)
    for places, length in ((builder.HEADERS, 4096), (builder.REGIONS, 64 << 10)):
        for place in places:
            image[place : place + length] = builder.with_checksum(
                bytes(image[place : place + length])
            )
    return bytes(image)


def everywhere(offset: int, form: str, value: int | bytes) -> list[tuple[int, str, int | bytes]]:
    """The same change in both headers."""
    return [(place + offset, form, value) for place in builder.HEADERS]


# --- what QEMU writes and sees ------------------------------------------------------------------


def test_crc32c():
    # RFC 3720, appendix B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("subformat=dynamic", "100M"),
        ("subformat=dynamic,block_size=1M", "9G"),
        ("subformat=dynamic,block_size=256M,log_size=3M", "5T"),
        ("subformat=fixed", "20M"),
        ("subformat=fixed,block_state_zero=off", "20M"),
    ],
)
def test_values_agree_with_qemu(options, size, tmp_path, bytes_source):
    path = tmp_path / "image"
    command = ["qemu-img", "create", "-q", "-f", "vhdx", "-o", options, str(path), size]
    subprocess.run(command, check=True)
    header = vhdx.parse(bytes_source(path.read_bytes()))
    says = info(path)
    assert header.virtual_size == says["virtual-size"]
    assert header.block_size == says["cluster-size"]
    assert header.subformat == options.split(",")[0].partition("=")[2]
    assert header.logical_sector == 512
    assert header.untrusted_creator.startswith("QEMU v7.2")
    assert header.disk_uuid.int
    assert header.data_write_uuid.int
    assert not header.is_differencing
    assert header.untrusted_parent == ()
    assert header.parent_linkage is header.parent_linkage2 is None


def test_blocks_are_counted(disk, tmp_path, bytes_source):
    path = tmp_path / "image"
    options = ["-O", "vhdx", "-o", "block_size=1M"]
    subprocess.run(["qemu-img", "convert", "-f", "raw", *options, str(disk), str(path)], check=True)
    header = vhdx.parse(bytes_source(path.read_bytes()))
    content = disk.read_bytes()
    blocks = [content[start : start + MIB] for start in range(0, len(content), MIB)]
    assert header.allocated_bytes == sum(any(block) for block in blocks) * MIB


def test_last_block_may_end_with_the_disk(tmp_path, bytes_source):
    path = tmp_path / "image"
    options = ["-o", "subformat=fixed,block_state_zero=off,block_size=8M"]
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "vhdx", *options, str(path), "20M"], check=True
    )
    data = path.read_bytes()
    assert vhdx.parse(bytes_source(data)).allocated_bytes == 24 * MIB
    assert info(path)["virtual-size"] == 20 * MIB
    with pytest.raises(MalformedImage, match="truncated: a block"):
        vhdx.parse(bytes_source(data[:-1]))


def test_builder_makes_what_qemu_reads(good, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(good)
    raw = tmp_path / "raw"
    command = ["qemu-img", "convert", "-f", "vhdx", "-O", "raw", str(path), str(raw)]
    subprocess.run(command, check=True)
    expected = bytearray(10 * MIB)
    for sector, content in SECTORS.items():
        expected[sector * 512 : sector * 512 + 512] = content
    assert raw.read_bytes() == expected


def test_the_newer_header_counts(good, bytes_source):
    first, second = builder.HEADERS
    data = patched(good, (first + 8, "<Q", 7), (first + 32, "16s", b"\x07" * 16))
    header = vhdx.parse(bytes_source(data))
    assert header.sequence == 7
    assert header.data_write_uuid == UUID(bytes=b"\x07" * 16)
    assert vhdx.parse(bytes_source(good)).sequence == 1
    for place, expected in ((first, 1), (second, 7)):
        broken = bytearray(data)
        broken[place + 8] ^= 0x80
        assert vhdx.parse(bytes_source(bytes(broken))).sequence == expected


def test_the_same_header_twice(good, bytes_source):
    first, second = builder.HEADERS
    data = bytearray(good)
    data[second : second + 4096] = data[first : first + 4096]
    assert vhdx.parse(bytes_source(bytes(data))).sequence == 0
    with pytest.raises(MalformedImage, match="neither is the newer one"):
        vhdx.parse(bytes_source(patched(bytes(data), (first + 16, "<Q", 9))))


# --- differencing disks -------------------------------------------------------------------------


def test_differencing(child, bytes_source):
    header = vhdx.parse(bytes_source(child))
    assert header.is_differencing
    assert header.parent_linkage == LINKAGE
    assert header.parent_linkage2 is None
    assert header.untrusted_parent == (
        ParentHint("relative_path", PARENT["relative_path"]),
        ParentHint("volume_path", PARENT["volume_path"]),
        ParentHint("absolute_win32_path", PARENT["absolute_win32_path"]),
    )
    assert header.allocated_bytes == 2 * MIB
    assert header.table_entries == 4096 + 1


def test_second_linkage(bytes_source):
    data = Vhdx(parent={**PARENT, "parent_linkage2": f"{{{UUID(int=3)}}}"}).build()
    assert vhdx.parse(bytes_source(data)).parent_linkage2 == UUID(int=3)


def replaced(values: dict[str, str], **more: str) -> bytes:
    return builder.locator({**values, **more})


LOCATORS = [
    (builder.locator(PARENT, UUID(int=1)), Unsupported, "parent of a kind"),
    (replaced(PARENT, parent_linkage="{x}"), MalformedImage, "is not a GUID"),
    (replaced(PARENT, parent_linkage2="{x}"), MalformedImage, "is not a GUID"),
    (
        replaced(PARENT, parent_linkage=PARENT["parent_linkage2"]),
        MalformedImage,
        "which image the parent is",
    ),
    (builder.locator({}), MalformedImage, "which image the parent is"),
    (builder.locator(PARENT)[:19], MalformedImage, "19 bytes are not possible"),
    (builder.locator(PARENT)[:30], MalformedImage, "5 entries are not possible"),
    (builder.locator(PARENT)[:90], MalformedImage, "does not lie in it"),
    (builder.locator({str(n): "" for n in range(33)}), MalformedImage, "33 entries"),
    (builder.locator({"a": "", "a\0": ""}), MalformedImage, "there twice"),
]


@pytest.mark.parametrize(("locator", "error", "reason"), LOCATORS)
def test_lies_about_the_parent(locator, error, reason, bytes_source):
    data = Vhdx(parent=PARENT, items={builder.LOCATOR: locator}).build()
    with pytest.raises(error, match=reason) as failure:
        vhdx.parse(bytes_source(data))
    assert failure.value.hint


def test_hostile_parent_names_are_text(bytes_source):
    data = Vhdx(parent={**PARENT, "relative_path": "\u202e\n?"}).build()
    data = data.replace("\u202e\n?".encode("utf-16-le"), b"\x2e\x20\x0a\x00\x00\xd8")
    (hint, *_) = vhdx.parse(bytes_source(data)).untrusted_parent
    assert hint.untrusted_path == "\u202e\n\ufffd"


@pytest.mark.parametrize("options", [{"flags": 2}, {"items": {builder.LOCATOR: b""}}])
def test_parent_flag_and_locator_must_agree(options, bytes_source):
    with pytest.raises(MalformedImage, match="unclear whether it has a parent"):
        vhdx.parse(bytes_source(Vhdx(**options).build()))


BITMAP = TABLE + 4096 * 8
CHILD_LIES = [
    (BITMAP, 5, "sector bitmap of state 5"),
    (BITMAP, 7, "sector bitmap of state 7"),
    (BITMAP, 1 << 40 | 6, "truncated: a sector bitmap"),
    (BITMAP, LOG | 6, "sector bitmap .* lies over the log"),
    (TABLE, 4, "block of state 4"),
    (TABLE, METADATA | 7, "block .* lies over the metadata"),
    (TABLE, 1 << 40 | 7, "truncated: a block"),
]


@pytest.mark.parametrize(("offset", "entry", "reason"), CHILD_LIES)
def test_lies_in_the_table_of_a_child(offset, entry, reason, child, bytes_source):
    with pytest.raises(MalformedImage, match=reason):
        vhdx.parse(bytes_source(patched(child, (offset, "<Q", entry))))


# --- headers, regions and tables that lie -------------------------------------------------------

LIES = [
    ([(0, "8s", b"vhdxfilE")], MalformedImage, "magic"),
    (everywhere(0, "4s", b"heaD"), MalformedImage, "neither of its two headers"),
    (everywhere(66, "<H", 2), MalformedImage, "neither of its two headers"),
    (everywhere(64, "<H", 1), Unsupported, "log of version 1"),
    (everywhere(63, "B", 1), Unsupported, "was not closed cleanly"),
    (everywhere(72, "<Q", 0), MalformedImage, "the log cannot be"),
    (everywhere(72, "<Q", LOG + 4096), MalformedImage, "the log cannot be"),
    (everywhere(68, "<I", 4096), MalformedImage, "the log cannot be"),
    (everywhere(72, "<Q", 1 << 40), MalformedImage, "truncated: the log"),
    (everywhere(72, "<Q", (1 << 64) - MIB), MalformedImage, "truncated: the log"),
    (everywhere(72, "<Q", METADATA), MalformedImage, "metadata region and the log lie"),
    ([(METADATA, "8s", b"metadatA")], MalformedImage, "metadata table is missing"),
    ([(METADATA + 10, "<H", 2048)], MalformedImage, "too long"),
    ([(METADATA + 10, "<H", 0)], MalformedImage, "file parameters is missing"),
    ([(METADATA + 10, "<H", 4)], MalformedImage, "physical sector size is missing"),
    ([(METADATA + 48, "<I", 0)], MalformedImage, "cannot be 8 bytes at 0"),
    ([(METADATA + 48, "<I", MIB - 4)], MalformedImage, "cannot be 8 bytes at"),
    ([(METADATA + 52, "<I", 4)], MalformedImage, "cannot take 4 bytes"),
    ([(METADATA + 64, "16s", bytes(16))], Unsupported, "not known"),
    ([(METADATA + 64, "16s", builder.PARAMETERS.bytes_le)], MalformedImage, "there twice"),
    ([(TABLE, "<Q", 4)], MalformedImage, "block of state 4"),
    ([(TABLE, "<Q", 7)], MalformedImage, "block of state 7"),
    ([(TABLE, "<Q", 6)], MalformedImage, "lies over the headers"),
    ([(TABLE, "<Q", LOG | 6)], MalformedImage, "lies over the log"),
    ([(TABLE, "<Q", METADATA | 6)], MalformedImage, "lies over the metadata region"),
    ([(TABLE, "<Q", TABLE | 6)], MalformedImage, "lies over the block table"),
    ([(TABLE, "<Q", 7 * MIB | 6)], MalformedImage, "truncated: a block"),
    ([(TABLE, "<Q", (1 << 64) - MIB | 6)], MalformedImage, "truncated: a block"),
]


@pytest.mark.parametrize(("patches", "error", "reason"), LIES)
def test_lies(patches, error, reason, good, bytes_source):
    with pytest.raises(error, match=reason) as failure:
        vhdx.parse(bytes_source(patched(good, *patches)))
    assert failure.value.hint


def number(length: int, value: int) -> bytes:
    return value.to_bytes(length, "little")


ITEMS = [
    ({"block_size": MIB // 2}, MalformedImage, "block of"),
    ({"block_size": 512 * MIB}, MalformedImage, "block of"),
    ({"block_size": 3 * MIB}, MalformedImage, "block of"),
    ({"size": 0}, MalformedImage, "disk of 0 bytes"),
    ({"size": 10 * MIB + 256}, MalformedImage, "disk of"),
    ({"items": {builder.SIZE: number(8, (64 << 40) + 512)}}, MalformedImage, "disk of"),
    ({"items": {builder.SIZE: number(8, 64 << 40)}}, MalformedImage, "no room"),
    ({"items": {builder.LOGICAL: number(4, 0)}}, MalformedImage, "sector of 0"),
    ({"items": {builder.LOGICAL: number(4, 1024)}}, MalformedImage, "sector of 1024"),
    ({"items": {builder.LOGICAL: number(4, 4096)}}, Unsupported, "sectors of 4096"),
    ({"items": {builder.PHYSICAL: number(4, 8192)}}, MalformedImage, "sector of 8192"),
]


@pytest.mark.parametrize(("options", "error", "reason"), ITEMS)
def test_lies_about_the_disk(options, error, reason, bytes_source):
    items = dict(options.get("items", {}))
    block_size = options.get("block_size", MIB)
    size = options.get("size", 10 * MIB)
    items.setdefault(builder.SIZE, number(8, size))
    items[builder.PARAMETERS] = struct.pack("<II", block_size, 0)
    with pytest.raises(error, match=reason) as failure:
        vhdx.parse(bytes_source(Vhdx(items=items).build()))
    assert failure.value.hint


def test_qemu_does_not_read_sectors_of_4096_bytes(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(Vhdx(items={builder.LOGICAL: number(4, 4096)}).build())
    with pytest.raises(subprocess.CalledProcessError):
        info(path)


OTHER = UUID(int=99)
REGIONS = [
    (((builder.TABLE_REGION, TABLE, MIB, 1),), MalformedImage, "metadata region is missing"),
    (((builder.METADATA_REGION, METADATA, MIB, 1),), MalformedImage, "block table is missing"),
    (((OTHER, 4 * MIB, MIB, 1),), Unsupported, "part of VHDX that is not known"),
    (((OTHER, 0, MIB, 0),), MalformedImage, "cannot be 1048576 bytes at 0"),
    (((OTHER, 4 * MIB + 512, MIB, 0),), MalformedImage, "cannot be"),
    (((OTHER, 4 * MIB, 512, 0),), MalformedImage, "cannot be 512 bytes"),
    (((OTHER, 4 * MIB, 0, 0),), MalformedImage, "is empty"),
    (((OTHER, 1 << 60, MIB, 0),), MalformedImage, "truncated: region"),
    (((OTHER, LOG, MIB, 0),), MalformedImage, "and the log lie in the same place"),
    (
        ((OTHER, 4 * MIB, MIB, 0), (OTHER, 5 * MIB, MIB, 0)),
        MalformedImage,
        "region .* is there twice",
    ),
    (
        ((builder.TABLE_REGION, TABLE, MIB, 1), (builder.METADATA_REGION, TABLE, MIB, 1)),
        MalformedImage,
        "lie in the same place",
    ),
]


@pytest.mark.parametrize(("regions", "error", "reason"), REGIONS)
def test_lies_about_the_regions(regions, error, reason, bytes_source):
    data = Vhdx(sectors=SECTORS, regions=regions).build()
    with pytest.raises(error, match=reason) as failure:
        vhdx.parse(bytes_source(data))
    assert failure.value.hint


def test_region_that_need_not_be_understood(bytes_source):
    regions = (*Vhdx().regions, (OTHER, 4 * MIB, MIB, 0))
    data = Vhdx(regions=regions).build() + bytes(MIB)
    assert vhdx.parse(bytes_source(data)).virtual_size == 10 * MIB
    covered = patched(data, (TABLE, "<Q", 4 * MIB | 6))
    with pytest.raises(MalformedImage, match="lies over region"):
        vhdx.parse(bytes_source(covered))


def test_metadata_that_need_not_be_understood(good, bytes_source):
    data = bytearray(good)
    entry = METADATA + 32 + 5 * 32
    struct.pack_into("<16sIIII", data, entry, OTHER.bytes_le, 0, 0, 0, 0)
    data[METADATA + 10] = 6
    assert vhdx.parse(bytes_source(bytes(data))).virtual_size == 10 * MIB


def test_too_many_regions(good, bytes_source):
    data = patched(good, (builder.REGIONS[0] + 8, "<I", 2048), (builder.REGIONS[1] + 8, "<I", 2048))
    with pytest.raises(MalformedImage, match="2048 regions"):
        vhdx.parse(bytes_source(data))


def test_copies_of_the_region_table(good, bytes_source):
    first, second = builder.REGIONS
    other = builder.region_table((*Vhdx().regions, (OTHER, 4 * MIB, MIB, 0)))
    with pytest.raises(MalformedImage, match="contradict"):
        vhdx.parse(bytes_source(good[:second] + other + good[second + len(other) :]))
    broken = bytearray(good)
    broken[second + 8] ^= 1
    assert vhdx.parse(bytes_source(bytes(broken)))
    for offset in (0, 8):
        broken = bytearray(good)
        broken[first + offset] ^= 1
        with pytest.raises(MalformedImage, match="signature or its checksum"):
            vhdx.parse(bytes_source(bytes(broken)))


def test_table_that_is_too_large(bytes_source):
    regions = (
        (builder.TABLE_REGION, 4 * MIB, 65 * MIB, 1),
        (builder.METADATA_REGION, METADATA, MIB, 1),
    )
    data = Vhdx(regions=regions).build() + bytes(65 * MIB)
    with pytest.raises(Unsupported, match="block table takes 65 MiB"):
        vhdx.parse(bytes_source(data))


@pytest.mark.parametrize("length", [0, 100, 65 << 10, 129 << 10, 200 << 10, MIB, 3 * MIB, 5 * MIB])
def test_cut_copies(length, good, bytes_source):
    with pytest.raises(MalformedImage, match=r"truncated|magic"):
        vhdx.parse(bytes_source(good[:length]))


def test_cut_within_a_block(good, bytes_source):
    with pytest.raises(MalformedImage, match="truncated: a block"):
        vhdx.parse(bytes_source(good[:-1]))


# --- whatever is in it --------------------------------------------------------------------------

ITEM = METADATA + (64 << 10)
CHANGES = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, 80),
            st.builds(int.__add__, st.sampled_from(builder.HEADERS), st.integers(0, 80)),
            st.builds(int.__add__, st.just(builder.REGIONS[0]), st.integers(0, 80)),
            st.builds(int.__add__, st.just(METADATA), st.integers(0, 224)),
            st.builds(int.__add__, st.just(ITEM), st.integers(0, 500)),
            st.builds(int.__add__, st.just(TABLE), st.integers(0, 80)),
        ),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8])),
    ),
    max_size=4,
)


def survives(source) -> None:
    try:
        header = vhdx.parse(source)
    except ImageError as error:
        text = str(error) + error.hint
        assert text.isprintable()
    else:
        assert header.virtual_size > 0
        assert dataclasses.asdict(header)


@BUDGET
@given(changes=CHANGES, cut=st.one_of(st.none(), st.integers(0, 6 * MIB)), fix=st.booleans())
def test_changed_images(changes, cut, fix, child, bytes_source):
    image = bytearray(child)
    for offset, patch in changes:
        image[offset : offset + len(patch)] = patch
    data = bytes(image)
    if fix:
        first, second = builder.REGIONS
        image[second : second + (64 << 10)] = image[first : first + (64 << 10)]
        data = patched(bytes(image))
    survives(bytes_source(data[:cut]))


@BUDGET
@given(noise=st.binary(max_size=2048))
def test_noise(noise, bytes_source):
    survives(bytes_source(noise))
    survives(bytes_source(b"vhdxfile" + noise))
    survives(bytes_source((b"vhdxfile" + noise).ljust(MIB, b"\0")))
