"""NTFS against ntfsinfo."""

import re
import struct

import pytest

from appliance.agent.filesystem.ntfs_record import Attribute, Run, data_runs
from appliance.agent.filesystem.reading import BadSuperblock, Block


def volume_facts(tool, path) -> dict[str, int]:
    text = tool("ntfsinfo", "-f", "-m", path)
    return {
        name: int(re.search(rf"{name}: *(0x[0-9a-f]+|\d+)", text)[1], 0)
        for name in ("Cluster Size", "Volume Size in Clusters", "Free Clusters", "Volume Flags")
    }


@pytest.mark.parametrize("cluster", [512, 4096, 65536])
def test_numbers(cluster, blank, tree, tool, usage_of):
    path = blank(40)
    tool("mkntfs", "-F", "-q", "-c", cluster, path)
    tool("ntfscp", path, tree / "big", "big")
    says, usage = volume_facts(tool, path), usage_of(path)
    assert usage.problems == ()
    assert usage.block_size == says["Cluster Size"] == cluster
    assert usage.size == says["Volume Size in Clusters"] * cluster
    assert usage.free == says["Free Clusters"] * cluster
    assert usage.used == usage.size - usage.free > 3_000_000


def test_large_records_and_large_sectors(blank, tool, usage_of):
    path = blank(40)
    tool("mkntfs", "-F", "-q", "-s", "4096", "-c", "4096", path)
    says, usage = volume_facts(tool, path), usage_of(path)
    assert usage.free == says["Free Clusters"] * 4096


def test_dirty(blank, tool, usage_of, patch, codes):
    path = blank(20)
    tool("mkntfs", "-F", "-q", path)
    clean = usage_of(path)
    with path.open("rb") as file:
        untrusted = file.read()
    table = struct.unpack_from("<Q", untrusted, 48)[0] * 4096
    record = table + 3 * 1024
    information = untrusted.index(struct.pack("<I", 0x70), record + 56)
    value = information + struct.unpack_from("<H", untrusted, information + 20)[0]
    mirror = struct.unpack_from("<Q", untrusted, 56)[0] * 4096
    patch(path, value + 10, b"\x01\x00")
    patch(path, value + 10 - table + mirror, b"\x01\x00")
    assert volume_facts(tool, path)["Volume Flags"] == 1
    usage = usage_of(path)
    assert codes(usage) == {"not-clean"}
    assert usage.free == clean.free


def test_torn_record(blank, tool, usage_of, patch, codes):
    path = blank(20)
    tool("mkntfs", "-F", "-q", path)
    with path.open("rb") as file:
        table = struct.unpack_from("<Q", file.read(512), 48)[0] * 4096
    patch(path, table + 6 * 1024 + 510, b"\xaa\xbb")
    usage = usage_of(path)
    assert codes(usage) == {"usage-unknown"}
    assert usage.size is not None
    assert usage.free is None


def attribute(untrusted_pairs: bytes) -> Attribute:
    header = bytearray(64)
    header[8] = 1
    header[32:34] = (64).to_bytes(2, "little")
    return Attribute(Block(bytes(header) + untrusted_pairs, "little"))


def test_fragments_and_holes():
    pairs = bytes([0x21, 0x10, 0x00, 0x01, 0x01, 0x05, 0x11, 0x08, 0xF0, 0x00])
    assert data_runs(attribute(pairs)) == [Run(0x100, 0x10), Run(None, 5), Run(0xF0, 8)]


@pytest.mark.parametrize(
    "pairs",
    [
        b"",
        b"\x11",
        b"\x11\x01\x01",
        b"\x10\x01\x00",
        b"\x11\x00\x01\x00",
        b"\x11\xff\x01\x00",
        b"\x11\x01\xff\x00",
        b"\xf1\x01" + b"\x01" * 15 + b"\x00",
        b"\x18" + b"\x7f" * 8 + b"\x01\x00",
    ],
)
def test_hostile_runs(pairs):
    with pytest.raises(BadSuperblock):
        data_runs(attribute(pairs))


def test_bitmap_in_fragments(blank, tool, usage_of, patch):
    """The bitmap moved to two places with a hole between them, by hand; every bit once."""
    path = blank(80)
    tool("mkntfs", "-F", "-q", "-c", "512", path)
    clusters = volume_facts(tool, path)["Volume Size in Clusters"]
    size = path.stat().st_size
    bitmap_clusters = -(-clusters // (512 * 8))
    with path.open("rb") as file:
        untrusted = file.read()
    table = struct.unpack_from("<Q", untrusted, 48)[0] * 512
    record = table + 6 * 1024
    data = record + struct.unpack_from("<H", untrusted, record + 20)[0]
    while struct.unpack_from("<I", untrusted, data)[0] != 0x80:
        data += struct.unpack_from("<I", untrusted, data + 4)[0]
    pairs = data + struct.unpack_from("<H", untrusted, data + 32)[0]
    first, second = (size // 512 - 1000), (size // 512 - 500)
    hole = bitmap_clusters - 4
    patch(path, first * 512, b"\xff" * 1024)
    patch(path, second * 512, b"\x0f" * 1024)
    steps = struct.pack("<BBi", 0x41, 2, first) + struct.pack("<BB", 0x01, hole)
    steps += struct.pack("<BBi", 0x41, 2, second - first) + b"\0"
    room = struct.unpack_from("<I", untrusted, data + 4)[0] - (pairs - data)
    if len(steps) > room:
        # Make room: the attribute is the last one, its end mark moves on.
        grown = pairs - data + -(-len(steps) // 8) * 8
        patch(path, data + 4, struct.pack("<I", grown))
        patch(path, data + grown, b"\xff\xff\xff\xff" + bytes(4))
    patch(path, pairs, steps)
    in_last = clusters - (bitmap_clusters - 2) * 512 * 8
    expected = 2 * 512 * 8 + in_last // 8 * 4 + min(in_last % 8, 4)
    usage = usage_of(path)
    assert usage.used == expected * 512
