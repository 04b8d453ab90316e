"""VHD: what QEMU writes and sees, differencing disks, and footers, headers and tables that lie."""

from __future__ import annotations

import dataclasses
import json
import random
import struct
import subprocess
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import vhd
from images.errors import ImageError, MalformedImage, Unsupported
from images.parent_hint import ParentHint
from tests.builders import vhd as builder

MIB = 1 << 20
BUDGET = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PARENT = builder.Parent(UUID(int=5), 600_000_000, "base.vhd", ".\\base.vhd", "C:\\vm\\base.vhd")
SECTORS = {0: b"a" * 512, 7: b"b" * 512, 4096 + 3: b"c" * 512}
HEADER, TABLE = 512, 1536


def info(path, *options: str) -> dict:
    command = ["qemu-img", "info", "--output=json", *(options or ("-f", "vpc")), str(path)]
    done = subprocess.run(command, check=True, capture_output=True)
    return json.loads(done.stdout)


def created(path, options: str, size: str = "10M"):
    command = ["qemu-img", "create", "-q", "-f", "vpc", "-o", options, str(path), size]
    subprocess.run(command, check=True)
    return path


def changed(data: bytes, *patches: tuple[int, str, int | bytes]) -> bytes:
    """The same dynamic image with these fields changed, and with right checksums."""
    image = bytearray(data)
    for offset, form, value in patches:
        struct.pack_into(form, image, offset, value)
    header = struct.unpack_from(">Q", image, 16)[0]
    if 512 <= header <= len(image) - 1024:
        image[header : header + 1024] = builder.with_checksum(
            bytes(image[header : header + 1024]), 36
        )
    image[:512] = image[-512:] = builder.with_checksum(bytes(image[:512]), 64)
    return bytes(image)


@pytest.fixture(scope="module")
def good() -> bytes:
    return builder.sparse(10 * MIB, SECTORS)


@pytest.fixture(scope="module")
def child() -> bytes:
    return builder.sparse(10 * MIB, SECTORS, parent=PARENT)


# --- what QEMU writes and sees ------------------------------------------------------------------


@pytest.mark.parametrize("options", ["subformat=dynamic", "subformat=dynamic,force_size=on"])
def test_dynamic_agrees_with_qemu(options, tmp_path, bytes_source):
    path = created(tmp_path / "image", options)
    header = vhd.parse(bytes_source(path.read_bytes()))
    says = info(path)
    assert header.virtual_size == says["virtual-size"]
    assert header.block_size == says["cluster-size"]
    assert header.subformat == "dynamic"
    assert header.untrusted_creator in (b"qemu", b"qem2")
    assert header.untrusted_creator_system == b"Wi2k"
    assert abs((datetime.now(UTC) - header.created).total_seconds()) < 300
    assert header.uuid.int
    assert header.allocated_bytes == 0
    assert not header.is_differencing
    assert header.untrusted_parent == ()
    assert header.parent_uuid is header.parent_timestamp is None


@pytest.mark.parametrize("options", ["subformat=fixed", "subformat=fixed,force_size=on"])
def test_fixed_agrees_with_qemu(options, tmp_path, bytes_source):
    path = created(tmp_path / "image", options)
    header = vhd.parse(bytes_source(path.read_bytes()))
    assert header.virtual_size == info(path)["virtual-size"] == path.stat().st_size - 512
    assert header.subformat == "fixed"
    assert header.block_size is None
    assert header.allocated_bytes == header.virtual_size


def test_blocks_are_counted(disk, tmp_path, bytes_source):
    path = tmp_path / "image"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "vpc", str(disk), str(path)]
    subprocess.run(command, check=True)
    header = vhd.parse(bytes_source(path.read_bytes()))
    content = disk.read_bytes()
    blocks = [content[start : start + 2 * MIB] for start in range(0, len(content), 2 * MIB)]
    assert header.allocated_bytes == sum(any(block) for block in blocks) * 2 * MIB


CREATORS = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"vpc ", b"qemu", b"d2v\0", b"tapx"]


@pytest.mark.parametrize("creator", [*CREATORS, b"vbox", b"wa\0\0", b"\0\0\0\0"])
@pytest.mark.parametrize("geometry", [(4, 4, 17), (65535, 16, 255)])
def test_size_by_creator_is_that_of_qemu(creator, geometry, tmp_path, bytes_source):
    identity = builder.Identity(creator=creator, geometry=geometry)
    path = tmp_path / "image"
    path.write_bytes(builder.sparse(10 * MIB, SECTORS, identity=identity))
    header = vhd.parse(bytes_source(path.read_bytes()))
    assert header.virtual_size == info(path)["virtual-size"]
    assert header.size_in_footer == 10 * MIB
    cylinders, heads, sectors = geometry
    assert header.size_by_geometry == cylinders * heads * sectors * 512


def test_fixed_disk_has_the_size_in_the_footer(bytes_source):
    identity = builder.Identity(creator=b"vpc ")
    header = vhd.parse(bytes_source(builder.fixed(bytes(MIB), identity)))
    assert header.virtual_size == MIB
    assert header.size_by_geometry == 4 * 4 * 17 * 512


def test_builder_makes_what_qemu_reads(good, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(good)
    raw = tmp_path / "raw"
    command = ["qemu-img", "convert", "-f", "vpc", "-O", "raw", str(path), str(raw)]
    subprocess.run(command, check=True)
    expected = bytearray(10 * MIB)
    for sector, content in SECTORS.items():
        expected[sector * 512 : sector * 512 + 512] = content
    assert raw.read_bytes() == expected


def test_footer_of_511_bytes(tmp_path, bytes_source):
    path = tmp_path / "image"
    path.write_bytes(builder.fixed(b"x" * MIB)[:-1])
    header = vhd.parse(bytes_source(path.read_bytes()))
    assert header.old_footer
    assert header.virtual_size == info(path)["virtual-size"] == MIB
    shifted = bytes_source(b"x" + path.read_bytes())
    with pytest.raises(MalformedImage, match="footer is missing"):
        vhd.parse(shifted)


def test_fields(bytes_source):
    header = vhd.parse(bytes_source(builder.fixed(bytes(512))))
    assert header.creator_version == (6, 1)
    assert header.untrusted_creator == b"win "
    assert header.uuid == UUID("11111111-2222-4333-8444-555555555555")
    assert header.timestamp == 700_000_000
    assert header.created == datetime(2022, 3, 7, 20, 26, 40, tzinfo=UTC)
    assert header.original_size == 512
    assert not header.saved_state
    assert not header.old_footer
    saved = bytearray(builder.fixed(bytes(512)))
    saved[512 + 84] = 1
    saved[512:] = builder.with_checksum(bytes(saved[512:]), 64)
    assert vhd.parse(bytes_source(bytes(saved))).saved_state


# --- differencing disks -------------------------------------------------------------------------


def test_differencing(child, bytes_source):
    header = vhd.parse(bytes_source(child))
    assert header.is_differencing
    assert header.subformat == "differencing"
    assert header.parent_uuid == PARENT.uuid
    assert header.parent_timestamp == PARENT.timestamp
    assert header.untrusted_parent == (
        ParentHint("name", "base.vhd"),
        ParentHint("W2ru", ".\\base.vhd"),
        ParentHint("W2ku", "C:\\vm\\base.vhd"),
    )
    assert header.allocated_bytes == 2 * 2 * MIB


def test_differencing_disk_has_the_size_in_the_footer(bytes_source):
    identity = builder.Identity(creator=b"vpc ")
    data = builder.sparse(10 * MIB, {}, parent=PARENT, identity=identity)
    assert vhd.parse(bytes_source(data)).virtual_size == 10 * MIB


def test_parent_of_a_dynamic_disk_means_nothing(bytes_source):
    data = changed(builder.sparse(10 * MIB, {}, parent=PARENT), (60, ">I", 3))
    header = vhd.parse(bytes_source(data))
    assert header.parent_uuid is header.parent_timestamp is None
    assert header.untrusted_parent == ()


def test_hostile_parent_names_are_text(child, bytes_source):
    data = changed(child, (HEADER + 64, "8s", b"\xd8\x00\x00\x0a\x20\x2e\x00\x00"))
    hints = vhd.parse(bytes_source(data)).untrusted_parent
    assert hints[0] == ParentHint("name", "\ufffd\n\u202e")
    hints[0].untrusted_path.encode()


LOCATOR = HEADER + 576
PARENT_LIES = [
    ([(HEADER + 40, "16s", bytes(16))], "does not say which"),
    ([(LOCATOR + 8, ">I", 65537)], "parent locator of 65537 bytes"),
    ([(LOCATOR + 16, ">Q", 1 << 63)], "truncated: the parent locator W2ku"),
    ([(LOCATOR + 16, ">Q", 0)], "W2ku and the copy of the footer lie in the same place"),
    ([(LOCATOR + 16, ">Q", TABLE)], "W2ku and the block table lie in the same place"),
    ([(LOCATOR, "4s", b"W2ru")], "two parent locators of the kind W2ru"),
    ([(TABLE, ">I", 4)], "lies over the parent locator W2ku"),
]


@pytest.mark.parametrize(("patches", "reason"), PARENT_LIES)
def test_lies_about_the_parent(patches, reason, child, bytes_source):
    with pytest.raises(MalformedImage, match=reason):
        vhd.parse(bytes_source(changed(child, *patches)))


def test_other_locators(child, bytes_source):
    data = changed(child, (LOCATOR, "4s", b"MacX"), (LOCATOR + 24, "4s", b"what"))
    kinds = [hint.kind for hint in vhd.parse(bytes_source(data)).untrusted_parent]
    assert kinds == ["name", "MacX"]


# --- footers, headers and tables that lie -------------------------------------------------------

LIES = [
    ([(12, ">I", 0x20000)], Unsupported, "version 2"),
    ([(60, ">I", 0)], Unsupported, "type 0"),
    ([(60, ">I", 5)], Unsupported, "type 5"),
    ([(60, ">I", 2)], MalformedImage, "contradict"),
    ([(48, ">Q", 0)], MalformedImage, "a size of 0 bytes"),
    ([(48, ">Q", 10 * MIB + 1)], MalformedImage, "a size of"),
    ([(48, ">Q", 0xFF000001 * 512)], MalformedImage, "a disk of"),
    ([(48, ">Q", 0xFF000000 * 512)], MalformedImage, "too small for the disk"),
    ([(28, "4s", b"vpc "), (56, ">I", 0)], MalformedImage, "a disk of 0 bytes"),
    ([(16, ">Q", 1 << 63)], MalformedImage, "truncated: the dynamic disk header"),
    ([(16, ">Q", 0xFFFFFFFFFFFFFFFF)], MalformedImage, "truncated: the dynamic disk header"),
    ([(HEADER, "8s", b"cxsparsE")], MalformedImage, "header is missing"),
    ([(HEADER + 24, ">I", 0x20000)], Unsupported, "version 2"),
    ([(HEADER + 32, ">I", 0)], MalformedImage, "block of 0 bytes"),
    ([(HEADER + 32, ">I", 256)], MalformedImage, "block of 256 bytes"),
    ([(HEADER + 32, ">I", 3 * MIB)], MalformedImage, "block of 3145728 bytes is not"),
    ([(HEADER + 28, ">I", 4)], MalformedImage, "too small for the disk"),
    ([(HEADER + 28, ">I", 1 << 31)], Unsupported, "block table takes 8192 MiB"),
    ([(HEADER + 28, ">I", 1 << 24)], MalformedImage, "truncated: the block table"),
    ([(HEADER + 28, ">I", (1 << 24) + 1)], Unsupported, "block table takes"),
    ([(HEADER + 16, ">Q", 1 << 62)], MalformedImage, "truncated: the block table"),
    ([(HEADER + 16, ">Q", 0)], MalformedImage, "block table and the copy of the footer"),
    ([(HEADER + 16, ">Q", 1024)], MalformedImage, "block table and the dynamic disk header"),
    ([(TABLE, ">I", 0)], MalformedImage, "over the copy of the footer"),
    ([(TABLE, ">I", 1)], MalformedImage, "over the dynamic disk header"),
    ([(TABLE, ">I", 3)], MalformedImage, "over the block table"),
    ([(TABLE, ">I", 0xFFFFFFFE)], MalformedImage, "truncated: a block"),
    ([(TABLE + 16, ">I", 5000)], MalformedImage, "truncated: a block"),
]


@pytest.mark.parametrize(("patches", "error", "reason"), LIES)
def test_lies(patches, error, reason, good, bytes_source):
    with pytest.raises(error, match=reason) as failure:
        vhd.parse(bytes_source(changed(good, *patches)))
    assert failure.value.hint


def test_block_over_the_footer(good, bytes_source):
    data = changed(good, (TABLE, ">I", len(good) // 512 - (2 * MIB // 512 + 1)))
    with pytest.raises(MalformedImage, match="over the footer"):
        vhd.parse(bytes_source(data))


def test_header_over_a_footer(bytes_source):
    empty = builder.sparse(10 * MIB, {})
    header = empty[HEADER : HEADER + 1024]

    def footer(place: int) -> bytes:
        foot = empty[:16] + struct.pack(">Q", place) + empty[24:512]
        return builder.with_checksum(foot, 64)

    start = footer(256)[:256] + header
    start = builder.with_checksum(start[:512], 64) + start[512:]
    overlapping = {"the copy of the footer": start.ljust(4096, b"\0") + footer(256)}
    end = builder.with_checksum(header[:512] + footer(4096), 36)
    overlapping["the footer"] = footer(4096) + empty[512:2048].ljust(4096 - 512, b"\0") + end
    for name, data in overlapping.items():
        with pytest.raises(MalformedImage, match=f"header and {name} lie in the same place"):
            vhd.parse(bytes_source(data))


@pytest.mark.parametrize("offset", [20, -512 + 20, HEADER + 60])
def test_wrong_checksums(offset, good, bytes_source):
    data = bytearray(good)
    data[offset] ^= 1
    with pytest.raises(MalformedImage, match="checksum"):
        vhd.parse(bytes_source(bytes(data)))


COPIED = {
    "data offset": (16, ">Q", 1024),
    "creator": (28, "4s", b"vpc "),
    "size": (48, ">Q", 8 * MIB),
    "geometry": (56, ">H", 5),
    "type": (60, ">I", 4),
    "uuid": (68, ">Q", 5),
}


@pytest.mark.parametrize("field", COPIED)
def test_copy_and_footer_must_agree(field, good, bytes_source):
    other = changed(good, COPIED[field])
    with pytest.raises(MalformedImage, match="contradict"):
        vhd.parse(bytes_source(good[:-512] + other[:512]))


def test_footer_at_one_end_only(good, bytes_source):
    with pytest.raises(MalformedImage, match=r"truncated: .*its footer is missing"):
        vhd.parse(bytes_source(good[:-512]))
    with pytest.raises(MalformedImage, match="copy of the footer at the start is missing"):
        vhd.parse(bytes_source(bytes(512) + good[512:]))
    with pytest.raises(MalformedImage, match="the footer is missing"):
        vhd.parse(bytes_source(bytes(4096)))


@pytest.mark.parametrize("percent", [1, 30, 60, 99])
def test_cut_copies(percent, good, bytes_source):
    with pytest.raises(MalformedImage, match="truncated"):
        vhd.parse(bytes_source(good[: len(good) * percent // 100]))


def test_fixed_disk_that_is_cut(bytes_source):
    data = builder.fixed(bytes(MIB))
    with pytest.raises(MalformedImage, match="truncated: the data of the fixed VHD"):
        vhd.parse(bytes_source(data[512:]))
    assert vhd.parse(bytes_source(bytes(512) + data)).virtual_size == MIB


# --- whatever is in it --------------------------------------------------------------------------

CHANGES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 1700), st.sampled_from([16, 48, 528, 540, 544, 1536])),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8])),
    ),
    max_size=4,
)


def survives(source) -> None:
    try:
        header = vhd.parse(source)
    except ImageError as error:
        text = str(error) + error.hint
        assert text.isprintable()
    else:
        assert header.virtual_size > 0
        assert dataclasses.asdict(header)


@BUDGET
@given(changes=CHANGES, cut=st.one_of(st.none(), st.integers(0, 9000)), fix=st.booleans())
def test_changed_images(changes, cut, fix, bytes_source):
    image = bytearray(builder.sparse(64 << 10, {1: b"a" * 512}, parent=PARENT, block_size=4096))
    for offset, patch in changes:
        image[offset : offset + len(patch)] = patch
    data = changed(bytes(image)) if fix else bytes(image)
    survives(bytes_source(data[:cut]))


@BUDGET
@given(noise=st.binary(max_size=1600), ends=st.sampled_from([b"", b"conectix"]))
def test_noise(noise, ends, bytes_source):
    survives(bytes_source(ends + noise))
    survives(bytes_source(noise + ends.ljust(512, b"\0")))
    foot = bytearray(ends + random.Random(noise).randbytes(512 - len(ends)))
    struct.pack_into(">I", foot, 12, 0x10000)
    struct.pack_into(">I", foot, 60, 2 + len(noise) % 3)
    right = builder.with_checksum(bytes(foot), 64)
    survives(bytes_source(right + noise + right))
