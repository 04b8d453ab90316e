"""ext2, ext3 and ext4 against dumpe2fs."""

import os
import struct
from datetime import UTC, datetime

import pytest

KINDS = {
    "ext2": ["-t", "ext2"],
    "ext3": ["-t", "ext3"],
    "ext4": ["-t", "ext4"],
    "ext4-64bit": ["-t", "ext4", "-O", "64bit"],
    "ext4-32bit": ["-t", "ext4", "-O", "^64bit,^metadata_csum"],
    "ext4-1k": ["-t", "ext4", "-b", "1024"],
    "ext4-2k-small-groups": ["-t", "ext4", "-b", "2048", "-g", "1024"],
    "ext4-bigalloc": ["-t", "ext4", "-O", "bigalloc", "-C", "16384"],
    "ext4-bigalloc-1k": ["-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "8192"],
    "ext4-meta_bg": ["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode", "-g", "512"],
    "ext4-sparse_super2": ["-t", "ext4", "-b", "1024", "-O", "sparse_super2", "-g", "1024"],
    "ext4-meta_bg-sparse_super2": [
        *("-t", "ext4", "-b", "1024", "-g", "512"),
        *("-O", "meta_bg,sparse_super2,^resize_inode"),
    ],
    "ext4-no-sparse_super": ["-t", "ext4", "-O", "^sparse_super,^resize_inode,meta_bg"],
    "ext4-orphan_file": ["-t", "ext4", "-O", "orphan_file,fast_commit,casefold"],
    "ext2-revision-0": ["-t", "ext2", "-r", "0", "-O", "none"],
    "ext4-inode-128": ["-t", "ext4", "-I", "128"],
}


@pytest.fixture(params=KINDS)
def image(request, blank, tree, tool):
    path = blank(48)
    options = KINDS[request.param]
    content = [] if "revision-0" in request.param else ["-d", tree]
    tool("mke2fs", "-q", "-F", *options, *content, path)
    return path


def header(tool, path) -> dict[str, str]:
    lines = tool("dumpe2fs", "-f", "-h", path).splitlines()
    return {
        name: value.strip()
        for name, colon, value in (line.partition(":") for line in lines)
        if colon
    }


def seconds(text: str | None) -> int | None:
    if text is None or text == "n/a":
        return None
    moment = datetime.strptime(text, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    return int(moment.timestamp()) or None


def same_as_dumpe2fs(tool, usage, path) -> None:
    says, ext = header(tool, path), usage.ext
    assert ext.state == says["Filesystem state"]
    assert ext.errors_behavior == says["Errors behavior"]
    assert ext.features == says["Filesystem features"].replace("(none)", "").split()
    assert ext.mount_count == int(says["Mount count"])
    assert ext.maximum_mount_count == int(says["Maximum mount count"])
    assert ext.check_interval == int(says["Check interval"].split()[0])
    assert ext.created == seconds(says.get("Filesystem created"))
    assert ext.last_mounted == seconds(says["Last mount time"])
    assert ext.last_written == seconds(says["Last write time"])
    assert ext.last_checked == seconds(says["Last checked"])
    assert (ext.last_mounted_on or "<not available>") == says["Last mounted on"]
    assert ext.block_count == int(says["Block count"])
    assert ext.free_blocks == int(says["Free blocks"])
    assert ext.inode_count == int(says["Inode count"])
    assert ext.free_inodes == int(says["Free inodes"])
    assert ext.inode_size == int(says.get("Inode size", 128))
    assert ext.error_count == int(says.get("FS Error count", 0))
    assert usage.block_size == int(says["Block size"])
    assert usage.size == ext.block_count * usage.block_size


def test_every_field(image, tool, usage_of):
    usage = usage_of(image)
    same_as_dumpe2fs(tool, usage, image)
    assert usage.problems == ()
    assert usage.free == usage.ext.free_blocks * usage.block_size
    assert usage.used == usage.size - usage.free


def test_a_file_system_in_use_is_summed_over_its_groups(image, tool, usage_of, codes):
    clean = usage_of(image)
    tool("debugfs", "-w", "-R", "ssv free_blocks_count 7", image)
    tool("debugfs", "-w", "-R", "ssv state 0", image)
    usage = usage_of(image)
    same_as_dumpe2fs(tool, usage, image)
    assert usage.ext.free_blocks == 7
    assert usage.free == clean.free
    assert codes(usage) == {"not-clean"}


def test_needs_recovery(blank, tree, tool, usage_of, codes):
    path = blank(32)
    tool("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path)
    clean = usage_of(path)
    tool("debugfs", "-w", "-R", "ssv free_blocks_count 7", path)
    tool("debugfs", "-w", "-R", "feature needs_recovery", path)
    usage = usage_of(path)
    same_as_dumpe2fs(tool, usage, path)
    assert "needs_recovery" in usage.ext.features
    assert usage.free == clean.free
    assert codes(usage) == {"needs-recovery"}


@pytest.mark.parametrize("state", range(8))
@pytest.mark.parametrize("errors", [0, 1, 2, 3, 9])
def test_states(state, errors, blank, tool, usage_of, codes):
    path = blank(2)
    tool("mke2fs", "-q", "-F", "-t", "ext2", path)
    tool("debugfs", "-w", "-f", "-", path, stdin=f"ssv state {state}\nssv errors {errors}\n")
    usage = usage_of(path)
    same_as_dumpe2fs(tool, usage, path)
    assert ("not-clean" in codes(usage)) == (not state & 1)
    assert ("errors-recorded" in codes(usage)) == bool(state & 2)


def test_counts_times_and_place(blank, tool, usage_of, codes):
    path = blank(8)
    tool("mke2fs", "-q", "-F", "-t", "ext4", path)
    commands = [
        "ssv mnt_count 65535",
        "ssv max_mnt_count 20",
        "ssv checkinterval 15552000",
        "ssv mtime 20260102030405",
        "ssv lastcheck 0",
        "ssv last_mounted /mnt/somewhere",
        "ssv error_count 3",
    ]
    tool("debugfs", "-w", "-f", "-", path, stdin="\n".join(commands) + "\n")
    usage = usage_of(path)
    assert usage.ext.mount_count == 65535
    assert usage.ext.maximum_mount_count == 20
    assert usage.ext.check_interval == 15552000
    assert usage.ext.last_mounted == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert usage.ext.last_checked is None
    assert usage.ext.last_mounted_on == "/mnt/somewhere"
    assert usage.ext.error_count == 3
    assert codes(usage) == {"errors-recorded"}


def test_times_after_2038(blank, tool, usage_of, patch):
    path = blank(8)
    tool("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^metadata_csum", path)
    for low, high in ((0x2C, 0x275), (0x30, 0x274), (0x40, 0x277), (0x108, 0x276)):
        patch(path, 1024 + low, struct.pack("<I", 5))
        patch(path, 1024 + high, b"\x01")
    ext = usage_of(path).ext
    expected = 2**32 + 5
    assert (ext.last_mounted, ext.last_written) == (expected, expected)
    assert (ext.last_checked, ext.created) == (expected, expected)


@pytest.mark.parametrize("bit", range(32))
def test_every_feature_has_the_name_that_e2fsprogs_gives_it(bit, blank, tool, usage_of, patch):
    path = blank(2)
    tool("mke2fs", "-q", "-F", "-t", "ext4", "-O", "none,64bit,extent,filetype,meta_bg", path)
    with path.open("rb") as file:
        words = struct.unpack_from("<III", file.read(1280), 1024 + 0x5C)
    for index, word in enumerate(words):
        changed = list(words)
        changed[index] = word | 1 << bit
        if (index, bit) in ((1, 3), (2, 10)):
            # With journal_dev and metadata_csum the rest would have to look different as well.
            continue
        patch(path, 1024 + 0x5C, struct.pack("<III", *changed))
        ours = usage_of(path, "ext4").ext.features
        assert ours == header(tool, path)["Filesystem features"].split()


def test_block_counts_above_32_bits(blank, tool, usage_of):
    path = blank(1)
    os.truncate(path, 6 * 2**40)
    tool(
        *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-N", "70000", "-C", "65536"),
        *("-O", "64bit,bigalloc,meta_bg,^resize_inode,^has_journal", path),
    )
    usage = usage_of(path)
    same_as_dumpe2fs(tool, usage, path)
    assert usage.ext.block_count == 6 * 2**30


def test_cut_off(blank, tool, usage_of, codes):
    path = blank(64)
    tool("mke2fs", "-q", "-F", "-t", "ext4", path)
    with path.open("r+b") as file:
        file.truncate(20 * 1024 * 1024)
    usage = usage_of(path)
    assert codes(usage) == {"size-exceeds-volume"}
    assert usage.size == 64 * 1024 * 1024
    assert usage.free is not None


def test_an_impossible_block_size_leaves_the_rest(blank, tool, usage_of, patch, codes):
    path = blank(8)
    tool("mke2fs", "-q", "-F", "-t", "ext4", path)
    patch(path, 1024 + 0x18, struct.pack("<I", 40))
    usage = usage_of(path, "ext4")
    assert usage.ext.state == "clean"
    assert (usage.size, usage.used, usage.free) == (None, None, None)
    assert codes(usage) == {"usage-unknown"}


def test_more_free_than_there_is(blank, tool, usage_of, codes):
    path = blank(8)
    tool("mke2fs", "-q", "-F", "-t", "ext4", path)
    tool("debugfs", "-w", "-R", "ssv free_blocks_count 4000000000", path)
    usage = usage_of(path)
    assert (usage.used, usage.free) == (None, None)
    assert codes(usage) == {"usage-unknown"}
