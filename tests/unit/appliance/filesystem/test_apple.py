"""HFS against hvol; HFS+ headers made by hand from TN1150, as Debian 12 has no mkfs.hfsplus."""

import re
import struct

import pytest

UNMOUNTED, INCONSISTENT, JOURNALED = 1 << 8, 1 << 11, 1 << 13


def test_hfs(blank, tree, tool, usage_of, patch, codes, tmp_path):
    path = blank(20)
    tool("hformat", "-l", "test", path, home=str(tmp_path))
    tool("hmount", path, home=str(tmp_path))
    tool("hcopy", "-r", tree / "big", ":big", home=str(tmp_path))
    text = tool("hvol", home=str(tmp_path))
    tool("humount", home=str(tmp_path))
    usage = usage_of(path)
    assert usage.problems == ()
    assert usage.free == int(re.search(r"has (\d+) bytes free", text)[1])
    assert usage.used > 3_000_000
    assert 0 <= path.stat().st_size - usage.size < 64 * 1024
    patch(path, 1024 + 10, b"\x08\x00")
    assert codes(usage_of(path)) == {"not-clean", "errors-recorded"}


def header(attributes: int, magic: bytes = b"H+", version: int = 4) -> bytes:
    fields = magic + struct.pack(">HI", version, attributes)
    return (fields + bytes(32) + struct.pack(">III", 4096, 5120, 1234)).ljust(512, b"\0")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (UNMOUNTED, set()),
        (UNMOUNTED | JOURNALED, set()),
        (JOURNALED, {"needs-recovery"}),
        (0, {"not-clean"}),
        (UNMOUNTED | INCONSISTENT, {"errors-recorded"}),
    ],
)
@pytest.mark.parametrize(("magic", "version"), [(b"H+", 4), (b"HX", 5)])
def test_hfsplus(attributes, expected, magic, version, blank, patch, usage_of, codes, tool):
    path = blank(20)
    patch(path, 1024, header(attributes, magic, version))
    assert "hfsplus" in tool("blkid", "-p", path)
    usage = usage_of(path)
    assert codes(usage) == expected
    assert (usage.block_size, usage.size, usage.free) == (4096, 5120 * 4096, 1234 * 4096)


def test_hfsplus_in_a_wrapper(blank, patch, usage_of, tool):
    path = blank(24)
    tool("hformat", "-l", "wrapper", path, home=str(path.parent))
    with path.open("rb") as file:
        block = file.read(2048)
    block_size, first = struct.unpack_from(">I4xH", block, 1024 + 20)
    patch(path, 1024 + 124, b"H+" + struct.pack(">HH", 100, 41000))
    start = first * 512 + 100 * block_size
    patch(path, start + 1024, header(UNMOUNTED))
    assert 'TYPE="hfsplus"' in tool("blkid", "-p", path)
    assert usage_of(path).free == 1234 * 4096
