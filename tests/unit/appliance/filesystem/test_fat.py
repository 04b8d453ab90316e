"""FAT12, FAT16 and FAT32 against fsck.fat, exFAT against dump.exfat."""

import os
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.agent.filesystem.fat_table import TableShape, count_free
from appliance.agent.filesystem.reading import Volume


def used_and_total(tool, path) -> tuple[int, int]:
    text = tool("fsck.fat", "-nv", path, ok=(0, 1))
    found = re.search(r"files, (\d+)/(\d+) clusters", text)
    return int(found[1]), int(found[2])


KINDS = {
    "fat12": (["-F", "12"], 12),
    "fat16": (["-F", "16"], 40),
    "fat32": (["-F", "32", "-s", "1"], 64),
    "fat32-large-sectors": (["-F", "32", "-s", "1", "-S", "4096"], 300),
}


@pytest.fixture(params=KINDS)
def image(request, blank, tree, tool):
    options, mib = KINDS[request.param]
    path = blank(mib)
    tool("mkfs.vfat", *options, path)
    if "large" not in request.param:
        tool("mcopy", "-s", "-i", path, tree / "big", tree / "folder", "::")
    return path


def hide_fsinfo(path, patch):
    """So that the table has to be counted: the value for "unknown"."""
    if has_fsinfo(path):
        with path.open("rb") as file:
            sector = struct.unpack_from("<H", file.read(512), 11)[0]
        patch(path, sector + 488, b"\xff\xff\xff\xff")


def has_fsinfo(path) -> bool:
    with path.open("rb") as file:
        boot = file.read(512)
    return struct.unpack_from("<H", boot, 22)[0] == 0


def test_numbers(image, tool, usage_of):
    used, total = used_and_total(tool, image)
    usage = usage_of(image)
    assert usage.problems == ()
    assert usage.size == image.stat().st_size
    assert usage.free == (total - used) * usage.block_size
    assert usage.used == usage.size - usage.free


def test_counted(image, tool, usage_of, patch):
    used, total = used_and_total(tool, image)
    hide_fsinfo(image, patch)
    usage = usage_of(image)
    assert usage.free == (total - used) * usage.block_size


def test_dirty_volume_does_not_believe_fsinfo(image, tool, usage_of, patch, codes):
    used, total = used_and_total(tool, image)
    fat32 = has_fsinfo(image)
    patch(image, 65 if fat32 else 37, b"\x01")
    if fat32:
        with image.open("rb") as file:
            sector = struct.unpack_from("<H", file.read(512), 11)[0]
        patch(image, sector + 488, struct.pack("<I", 3))
    assert "Dirty bit is set" in tool("fsck.fat", "-nv", image, ok=(0, 1))
    usage = usage_of(image)
    assert codes(usage) == {"not-clean"}
    assert usage.free == (total - used) * usage.block_size


@pytest.mark.parametrize(("bits", "sectors", "clean"), [(16, 4, 0x8000), (32, 1, 0x08000000)])
def test_marks_of_windows(bits, sectors, clean, blank, tool, usage_of, patch, codes):
    path = blank(40)
    tool("mkfs.vfat", "-F", bits, "-s", sectors, path)
    with path.open("rb") as file:
        reserved = struct.unpack_from("<H", file.read(512), 14)[0] * 512
    whole = 0xFFFF if bits == 16 else 0x0FFFFFFF
    for entry, expected in (
        (whole & ~clean, {"not-clean"}),
        (whole & ~(clean >> 1), {"errors-recorded"}),
    ):
        patch(path, reserved + bits // 8, entry.to_bytes(bits // 8, "little"))
        assert codes(usage_of(path)) == expected


def entry_list(bits: int):
    top = 28 if bits == 32 else bits
    kinds = st.one_of(st.just(0), st.integers(0, 2**top - 1), st.sampled_from([1, 1 << top - 1]))
    return st.lists(kinds, min_size=3, max_size=200)


@given(
    st.sampled_from([12, 16, 32]).flatmap(lambda bits: st.tuples(st.just(bits), entry_list(bits))),
    st.integers(0, 15),
    st.binary(max_size=8),
)
def test_table_is_counted_as_one_by_one(shape, top, rest):
    bits, entries = shape
    number = 0
    for index, entry in enumerate(entries):
        number |= (entry | (top << 28 if bits == 32 else 0)) << index * bits
    table = number.to_bytes(-(-len(entries) * bits // 8) + 1, "little") + rest
    volume = Volume(lambda offset, length: table[offset : offset + length], len(table))
    free = count_free(volume, TableShape(0, bits, len(entries) - 2))
    assert free == sum(entry == 0 for entry in entries[2:])


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_table_of_several_pieces(bits):
    entries = 300_000
    table = bytearray(entries * bits // 8)
    full = range(7, entries, 1237)
    number = sum(1 << index * bits for index in full)
    table[:] = number.to_bytes(len(table), "little")
    volume = Volume(lambda offset, length: bytes(table[offset : offset + length]), len(table))
    assert count_free(volume, TableShape(0, bits, entries - 2)) == entries - 2 - len(full)


def exfat_facts(tool, path) -> dict[str, int]:
    text = tool("dump.exfat", path)
    names = ("Cluster size", "Total Clusters", "Free Clusters", "Volume Length\\(sectors\\)")
    return {name: int(re.search(rf"{name}:\s+(\d+)", text)[1]) for name in names}


@pytest.mark.parametrize("cluster", ["4K", "32K", "1M"])
def test_exfat(cluster, blank, tool, usage_of, patch, codes):
    path = blank(100)
    tool("mkfs.exfat", "-c", cluster, path)
    says, usage = exfat_facts(tool, path), usage_of(path)
    assert usage.problems == ()
    assert usage.block_size == says["Cluster size"]
    assert usage.size == path.stat().st_size
    assert usage.free == says["Free Clusters"] * says["Cluster size"]
    with path.open("rb") as file:
        heap = struct.unpack_from("<I", file.read(512), 88)[0] * 512
    patch(path, heap + 1, os.urandom(says["Total Clusters"] // 8 - 2))
    patch(path, 106, b"\x02\x00")
    says, usage = exfat_facts(tool, path), usage_of(path)
    assert usage.free == says["Free Clusters"] * says["Cluster size"]
    assert codes(usage) == {"not-clean"}
    patch(path, 106, b"\x04\x00")
    assert codes(usage_of(path)) == {"errors-recorded"}


def test_exfat_root_in_a_loop(blank, tool, usage_of, patch, codes):
    path = blank(40)
    tool("mkfs.exfat", "-c", "4K", path)
    with path.open("rb") as file:
        boot = file.read(512)
    table, heap, _, root = struct.unpack_from("<I4xIII", boot, 80)
    patch(path, heap * 512 + (root - 2) * 4096, (b"\x05" + bytes(31)) * 128)
    patch(path, table * 512 + root * 4, struct.pack("<I", root))
    usage = usage_of(path)
    assert codes(usage) == {"usage-unknown"}
    assert usage.size == path.stat().st_size
