"""btrfs against `btrfs inspect-internal dump-super`."""

import re


def superblock(tool, path) -> dict[str, int]:
    text = tool("btrfs", "inspect-internal", "dump-super", path)
    return {name: int(value) for name, value in re.findall(r"^(\w+)\t+(\d+)$", text, re.MULTILINE)}


def test_numbers(blank, tree, tool, usage_of):
    path = blank(120)
    tool("mkfs.btrfs", "-q", "--rootdir", tree, path)
    says, usage = superblock(tool, path), usage_of(path)
    assert usage.problems == ()
    assert usage.block_size == says["sectorsize"]
    assert usage.size == says["total_bytes"]
    assert usage.used == says["bytes_used"] > 3_000_000
    assert usage.free == usage.size - usage.used


def test_two_devices(blank, tool, usage_of, codes, tmp_path):
    path = blank(120)
    second = tmp_path / "second.img"
    with second.open("wb") as file:
        file.truncate(120 * 1024 * 1024)
    tool("mkfs.btrfs", "-q", "-d", "single", "-m", "raid1", path, second)
    says, usage = superblock(tool, path), usage_of(path)
    assert says["num_devices"] == 2
    assert usage.size == says["total_bytes"] == 2 * path.stat().st_size
    assert codes(usage) == {"multiple-devices"}
    assert "2 devices" in usage.problems[0].message


def test_marks(blank, tool, usage_of, patch, codes):
    path = blank(120)
    tool("mkfs.btrfs", "-q", path)
    patch(path, 65536 + 96, (12345).to_bytes(8, "little"))
    patch(path, 65536 + 56, (5).to_bytes(8, "little"))
    assert superblock(tool, path)["log_root"] == 12345
    assert codes(usage_of(path, "btrfs")) == {"needs-recovery", "errors-recorded"}


def test_cut_off(blank, tool, usage_of, codes):
    path = blank(120)
    tool("mkfs.btrfs", "-q", path)
    with path.open("r+b") as file:
        file.truncate(100 * 1024 * 1024)
    assert codes(usage_of(path)) == {"size-exceeds-volume"}
