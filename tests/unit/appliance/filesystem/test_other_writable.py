"""F2FS, NILFS2, ReiserFS, JFS, Minix and swap against their own tools."""

import re
import struct
import zlib

import pytest


def f2fs_facts(tool, path) -> dict[str, int]:
    text = tool("dump.f2fs", "-d", "1", path)
    return {
        name: int(value) for name, value in re.findall(r"^(\w+) .*: (\d+)\]", text, re.MULTILINE)
    }


def test_f2fs(blank, tree, tool, usage_of):
    path = blank(100)
    tool("mkfs.f2fs", "-q", path)
    empty = usage_of(path)
    tool("sload.f2fs", "-f", tree, path)
    says, usage = f2fs_facts(tool, path), usage_of(path)
    assert usage.problems == ()
    assert usage.size == says["block_count"] * 4096 == path.stat().st_size
    assert usage.free == (says["user_block_count"] - says["valid_block_count"]) * 4096
    assert usage.used == usage.size - usage.free
    assert usage.used - empty.used > 3_000_000


def checkpoints(path) -> list[int]:
    with path.open("rb") as file:
        block = file.read(4096)
    first = struct.unpack_from("<I", block, 1024 + 76)[0] * 4096
    return [first, first + 512 * 4096]


def rewrite(path, offset, **fields) -> None:
    """Other numbers in the first and last block of a checkpoint, with the checksum made right."""
    places = {"version": (0, "<Q"), "used": (16, "<Q"), "flags": (132, "<I")}
    with path.open("r+b") as file:
        file.seek(offset)
        length = struct.unpack_from("<I", file.read(4096), 136)[0]
        for at in (offset, offset + (length - 1) * 4096):
            file.seek(at)
            block = bytearray(file.read(4096))
            for name, value in fields.items():
                struct.pack_into(places[name][1], block, places[name][0], value)
            where = struct.unpack_from("<I", block, 164)[0]
            value = zlib.crc32(block[:where], 0xF2F52010 ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
            struct.pack_into("<I", block, where, value)
            file.seek(at)
            file.write(block)


def test_f2fs_flags(blank, tool, usage_of, codes):
    path = blank(100)
    tool("mkfs.f2fs", "-q", path)
    for flags, expected in ((1, set()), (0, {"needs-recovery"}), (0x11, {"errors-recorded"})):
        rewrite(path, checkpoints(path)[0], flags=flags)
        assert f2fs_facts(tool, path)["ckpt_flags"] == flags
        assert codes(usage_of(path)) == expected


def test_f2fs_takes_the_newer_valid_checkpoint(blank, tree, tool, usage_of, patch, codes):
    path = blank(100)
    tool("mkfs.f2fs", "-q", path)
    tool("sload.f2fs", "-f", tree, path)
    before = usage_of(path)
    first, second = checkpoints(path)
    rewrite(path, second, version=1, used=10)
    assert usage_of(path) == before
    rewrite(path, second, version=2**40, used=10)
    says, usage = f2fs_facts(tool, path), usage_of(path)
    assert says["valid_block_count"] == 10
    assert usage.free == (says["user_block_count"] - 10) * 4096
    patch(path, second + 300, b"\xff")
    assert usage_of(path) == before
    patch(path, first + 300, b"\xff")
    assert codes(usage_of(path)) == {"usage-unknown"}


def test_f2fs_second_superblock(blank, tool, usage_of, patch):
    path = blank(100)
    tool("mkfs.f2fs", "-q", path)
    before = usage_of(path)
    patch(path, 1024, b"\0\0\0\0")
    assert usage_of(path, "f2fs") == before


def test_nilfs2(blank, tool, usage_of, patch, codes):
    path = blank(150)
    tool("mkfs.nilfs2", "-q", path)
    usage = usage_of(path)
    assert usage.problems == ()
    assert usage.block_size == 4096
    assert usage.size == path.stat().st_size
    # nilfs-tune opens devices only, so this is counted from the format: a new file system has
    # written to one of its segments, which have 2048 blocks of 4 KiB.
    assert usage.free == (150 * 1024 * 1024 // (8 * 1024 * 1024) - 1) * 8 * 1024 * 1024
    patch(path, 1024 + 116, b"\x02\x00")
    assert codes(usage_of(path, "nilfs2")) == {"needs-recovery", "errors-recorded"}
    patch(path, 1024, bytes(512))
    assert usage_of(path, "nilfs2") == usage


def test_reiserfs(blank, tool, usage_of, patch, codes):
    path = blank(50)
    tool("mkreiserfs", "-ffq", path)
    text = tool("debugreiserfs", path)
    usage = usage_of(path)
    assert usage.problems == ()
    assert usage.size == int(re.search(r"Count of blocks on the device: (\d+)", text)[1]) * 4096
    assert usage.free == int(re.search(r"Free blocks .*: (\d+)", text)[1]) * 4096
    patch(path, 65536 + 50, b"\x02\x00")
    assert "not checked after last mounting" in tool("debugreiserfs", path)
    assert codes(usage_of(path)) == {"needs-recovery"}
    patch(path, 65536 + 62, b"\x01\x00")
    assert codes(usage_of(path)) == {"needs-recovery", "errors-recorded"}


def test_jfs(blank, tool, usage_of, patch, codes):
    path = blank(32)
    tool("mkfs.jfs", "-q", path)
    text = tool("jfs_debugfs", path, stdin="superblock\nx\ndmap\nx\nquit\n")
    usage = usage_of(path)
    assert usage.problems == ()
    assert usage.size == int(re.search(r"s_size:\s+(0x\w+)", text)[1], 16) * 512
    assert usage.free == int(re.search(r"dn_nfree:\s+(0x\w+)", text)[1], 16) * 4096
    patch(path, 32768 + 40, b"\x03")
    assert codes(usage_of(path)) == {"needs-recovery", "errors-recorded"}


@pytest.mark.parametrize("version", ["-1", "-2", "-3"])
def test_minix(version, blank, tool, usage_of, patch, codes):
    path = blank(20)
    tool("mkfs.minix", version, path)
    text = tool("fsck.minix", "-fsv", path)
    usage = usage_of(path)
    zones = int(re.search(r"(\d+) blocks", text)[1])
    assert usage.problems == ()
    assert usage.size == zones * 1024
    assert usage.used == int(re.search(r"(\d+) zones used", text)[1]) * 1024
    if version != "-3":
        patch(path, 1024 + 18, b"\x02\x00")
        assert codes(usage_of(path)) == {"not-clean", "errors-recorded"}


@pytest.mark.parametrize("page", [4096, 8192, 65536])
def test_swap(page, blank, tool, usage_of, codes):
    path = blank(10)
    text = tool("mkswap", "-p", page, path)
    usage = usage_of(path)
    # mkswap tells the bytes without the header's page.
    assert usage.size == int(re.search(r"\((\d+) bytes\)", text)[1]) + page
    assert (usage.block_size, usage.used, usage.free) == (page, None, None)
    assert usage.problems == ()


@pytest.mark.parametrize("signature", [b"S1SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001"])
def test_hibernation_image(signature, blank, tool, usage_of, patch, codes):
    path = blank(10)
    tool("mkswap", path)
    patch(path, 4096 - 10, signature)
    assert "swsuspend" in tool("blkid", "-p", path)
    usage = usage_of(path)
    assert codes(usage) == {"hibernation-image"}
    assert usage.size == 10 * 1024 * 1024


def test_swap_of_the_other_byte_order(blank, patch, usage_of):
    path = blank(10)
    patch(path, 1024, struct.pack(">II", 1, 2559))
    patch(path, 4086, b"SWAPSPACE2")
    assert usage_of(path, "swap").size == 10 * 1024 * 1024


def test_swap_of_the_first_version(blank, patch, usage_of):
    path = blank(10)
    patch(path, 4086, b"SWAP-SPACE")
    usage = usage_of(path, "swap")
    assert (usage.block_size, usage.size, usage.problems) == (4096, None, ())
