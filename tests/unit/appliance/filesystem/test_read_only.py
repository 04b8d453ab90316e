"""Formats that are written once: ISO 9660, UDF, SquashFS, EROFS and cramfs."""

import re

import pytest


def full(usage, block_size: int, size: int) -> None:
    assert usage.problems == ()
    assert (usage.block_size, usage.size) == (block_size, size)
    assert (usage.used, usage.free) == (size, 0)


def test_iso9660(tree, tool, usage_of, tmp_path):
    path = tmp_path / "image.iso"
    tool("genisoimage", "-quiet", "-J", "-R", "-o", path, tree)
    text = tool("isoinfo", "-d", "-i", path)
    full(usage_of(path), 2048, int(re.search(r"Volume size is: (\d+)", text)[1]) * 2048)


def test_iso9660_boot_record_first(tree, tool, usage_of, tmp_path):
    path = tmp_path / "image.iso"
    tool("genisoimage", "-quiet", "-b", "middle", "-no-emul-boot", "-o", path, tree)
    untrusted = path.read_bytes()
    sectors = [untrusted[at : at + 2048] for at in (16 * 2048, 17 * 2048)]
    assert [sector[0] for sector in sectors] == [1, 0]
    swapped = untrusted[: 16 * 2048] + sectors[1] + sectors[0] + untrusted[18 * 2048 :]
    before = usage_of(path)
    path.write_bytes(swapped)
    assert usage_of(path, "iso9660") == before


def udf_facts(tool, path) -> dict[str, str]:
    lines = tool("udfinfo", path).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.mark.parametrize("media", ["hd", "dvdram", "cdrw"])
@pytest.mark.parametrize("block_size", [512, 2048, 4096])
def test_udf(media, block_size, blank, tool, usage_of, patch, codes):
    path = blank(20)
    tool("mkudffs", "--media-type", media, "-b", block_size, path)
    says, usage = udf_facts(tool, path), usage_of(path)
    assert usage.problems == ()
    assert usage.block_size == int(says["blocksize"])
    assert usage.free == int(says["freeblocks"]) * block_size
    assert usage.used == int(says["usedblocks"]) * block_size


def test_udf_open(blank, tool, usage_of, patch, codes):
    path = blank(20)
    tool("mkudffs", path)
    where = int(re.search(r"start=(\d+), blocks=\d+, type=LVID", tool("udfinfo", path))[1])
    patch(path, where * 512 + 28, b"\0")
    assert codes(usage_of(path)) == {"not-clean"}


def test_udf_bridge(tree, tool, usage_of, tmp_path):
    path = tmp_path / "image.iso"
    tool("genisoimage", "-quiet", "-udf", "-o", path, tree)
    says, usage = udf_facts(tool, path), usage_of(path, "udf")
    assert usage.free == int(says["freeblocks"]) * 2048
    assert usage.used == int(says["usedblocks"]) * 2048


def test_squashfs(tree, tool, usage_of, tmp_path):
    path = tmp_path / "image.squashfs"
    tool("mksquashfs", tree, path, "-quiet", "-no-progress", "-b", "65536")
    text = tool("unsquashfs", "-s", path)
    full(usage_of(path), 65536, int(re.search(r"Filesystem size (\d+) bytes", text)[1]))


def test_erofs(tree, tool, usage_of, tmp_path):
    path = tmp_path / "image.erofs"
    tool("mkfs.erofs", path, tree)
    text = tool("dump.erofs", "-s", path)
    full(usage_of(path), 4096, int(re.search(r"Filesystem blocks: +(\d+)", text)[1]) * 4096)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("padding", [[], ["-p"]])
def test_cramfs(order, padding, tree, tool, usage_of, tmp_path):
    path = tmp_path / "image.cramfs"
    tool("mkfs.cramfs", "-N", order, *padding, tree, path)
    # The 512 bytes of padding before the superblock are part of the size that it records.
    full(usage_of(path, "cramfs"), 4096, path.stat().st_size)
