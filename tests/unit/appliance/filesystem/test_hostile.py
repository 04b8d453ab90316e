"""Whatever the bytes are: an answer, within the limits, and nothing but OSError from below."""

import random
import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.agent.filesystem import Usage, read_usage
from appliance.agent.filesystem.reading import MAX_READ, MAX_READS, MAX_TOTAL
from appliance.agent.filesystem.usage import READERS
from appliance.layer import MAX_BYTES, Content

MIB = 1024 * 1024
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MAKERS = {
    "apfs": (["mkapfs"], 520),
    "btrfs": (["mkfs.btrfs", "-q"], 120),
    "exfat": (["mkfs.exfat"], 20),
    "ext2": (["mke2fs", "-q", "-F", "-b", "1024"], 20),
    "ext4": (["mke2fs", "-q", "-F", "-t", "ext4", "-O", "meta_bg,bigalloc,^resize_inode"], 20),
    "f2fs": (["mkfs.f2fs", "-q"], 60),
    "hfs": (["hformat"], 20),
    "jfs": (["mkfs.jfs", "-q"], 20),
    "minix": (["mkfs.minix", "-3"], 20),
    "nilfs2": (["mkfs.nilfs2", "-q"], 150),
    "ntfs": (["mkntfs", "-F", "-q"], 20),
    "reiserfs": (["mkreiserfs", "-ffq"], 50),
    "swap": (["mkswap"], 10),
    "udf": (["mkudffs"], 20),
    "vfat": (["mkfs.vfat", "-F", "32", "-s", "1"], 40),
    "xfs": (["mkfs.xfs", "-q"], 320),
}
FROM_TREE = {
    "cramfs": ["mkfs.cramfs", "TREE", "PATH"],
    "erofs": ["mkfs.erofs", "PATH", "TREE"],
    "iso9660": ["genisoimage", "-quiet", "-o", "PATH", "TREE"],
    "ufs": ["makefs", "-s", "8m", "-t", "ffs", "PATH", "TREE"],
    "squashfs": ["mksquashfs", "TREE", "PATH", "-quiet", "-no-progress"],
}
MADE_BY_HAND = {"hfsplus"}
ALIASES = {"ext3", "ext4dev", "swsuspend"}
PAGE = 512


class Pages:
    """A sparse volume in memory, and a record of what was read of it."""

    def __init__(self, size: int, pages: dict[int, bytes]) -> None:
        self.size = size
        self.pages = pages
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        length = min(length, self.size - offset)
        result = bytearray(length)
        numbers = range(offset // PAGE, -(-(offset + length) // PAGE))
        for number in numbers if len(numbers) < len(self.pages) else sorted(self.pages):
            if number in self.pages and number in numbers:
                at = number * PAGE - offset
                page = self.pages[number][max(0, -at) : max(0, min(PAGE, length - at))]
                result[max(0, at) : max(0, at) + len(page)] = page
        return bytes(result)

    def check(self, kind: str) -> Usage:
        usage = read_usage(kind, self.read, self.size)
        assert usage is not None
        assert len(self.reads) <= MAX_READS
        assert sum(length for _, length in self.reads) <= MAX_TOTAL
        assert all(0 < length <= MAX_READ for _, length in self.reads)
        assert all(0 <= offset <= self.size - length for offset, length in self.reads)
        # The shared type checks its own bounds.
        numbers = (usage.block_size, usage.size, usage.used, usage.free)
        Content(kind, None, None, None, None, None, *numbers, usage.ext)
        assert usage.size is not None or usage.problems or kind in ("swap", "swsuspend")
        assert usage.free is not None or usage.problems or kind in ("apfs", "swap", "swsuspend")
        if usage.free is not None:
            assert usage.used + usage.free == usage.size <= MAX_BYTES
        return usage


def pages_of(path) -> Pages:
    pages = {}
    with path.open("rb") as file:
        number = 0
        while piece := file.read(MIB):
            if piece.count(0) != len(piece):
                for at in range(0, len(piece), PAGE):
                    page = piece[at : at + PAGE]
                    if page.count(0) != len(page):
                        pages[number + at // PAGE] = page.ljust(PAGE, b"\0")
            number += MIB // PAGE
    return Pages(path.stat().st_size, pages)


@pytest.fixture(scope="session")
def real(tmp_path_factory, tree, tool) -> dict[str, Pages]:
    """One small honest image of each type."""
    folder = tmp_path_factory.mktemp("real")
    images = {}
    for kind, (command, mib) in MAKERS.items():
        path = folder / kind
        with path.open("wb") as file:
            file.truncate(mib * MIB)
        tool(*command, path, home=str(folder))
        images[kind] = pages_of(path)
    for kind, command in FROM_TREE.items():
        path = folder / kind
        tool(*({"TREE": tree / "folder", "PATH": path}.get(word, word) for word in command))
        images[kind] = pages_of(path)
    header = b"H+\0\4\0\0\1\0" + bytes(32) + struct.pack(">III", 4096, 5120, 1234)
    images["hfsplus"] = Pages(20 * MIB, {2: header.ljust(PAGE, b"\0")})
    for alias in ALIASES:
        images[alias] = images["swap" if alias == "swsuspend" else "ext4"]
    return images


def test_every_type_has_an_image():
    assert set(MAKERS) | set(FROM_TREE) | MADE_BY_HAND | ALIASES == set(READERS)


@pytest.mark.parametrize("kind", READERS)
def test_honest(kind, real):
    usage = Pages(real[kind].size, real[kind].pages).check(kind)
    assert usage.size is not None
    assert usage.problems == ()


def headers_read(kind: str, image: Pages) -> list[int]:
    """The pages that the reader looks at: those are worth changing."""
    watched = Pages(image.size, image.pages)
    read_usage(kind, watched.read, watched.size)
    seen = {
        number
        for offset, length in watched.reads
        for number in range(offset // PAGE, min(offset + length, offset + 4096) // PAGE + 1)
    }
    return sorted(number for number in seen if number in image.pages)


@pytest.mark.parametrize("kind", READERS)
@SETTINGS
@given(data=st.data())
def test_changed_headers(kind, real, data):
    image = real[kind]
    candidates = headers_read(kind, image)
    pages = dict(image.pages)
    for _ in range(data.draw(st.integers(1, 8))):
        number = data.draw(st.sampled_from(candidates))
        value = data.draw(
            st.one_of(
                st.sampled_from([bytes(4), b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7]),
                st.binary(min_size=1, max_size=8),
            )
        )
        at = data.draw(st.integers(0, PAGE - len(value)))
        page = bytearray(pages[number])
        page[at : at + len(value)] = value
        pages[number] = bytes(page)
    Pages(data.draw(st.sampled_from([image.size, image.size // 2, 2**50])), pages).check(kind)


@pytest.mark.parametrize("kind", READERS)
def test_every_field_at_its_extremes(kind, real):
    """Each aligned 2, 4 and 8 bytes of each header page in turn, to 0, 1 and all ones."""
    image = real[kind]
    chance = random.Random(zlib.crc32(kind.encode()))
    cases = [
        (number, at, width, value)
        for number in headers_read(kind, image)
        for width in (2, 4, 8)
        for at in range(0, PAGE, width)
        for value in (0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1)
    ]
    for number, at, width, value in chance.sample(cases, min(len(cases), 1200)):
        page = bytearray(image.pages[number])
        page[at : at + width] = value.to_bytes(width, chance.choice(["little", "big"]))
        Pages(image.size, {**image.pages, number: bytes(page)}).check(kind)


@pytest.mark.parametrize("kind", READERS)
@SETTINGS
@given(noise=st.binary(max_size=4096), size=st.one_of(st.integers(0, 3 * MIB), st.just(2**62)))
def test_noise(kind, noise, size):
    pages = {
        number: noise[at : at + PAGE].ljust(PAGE, b"\0")
        for start in (0, 2, 64, 128)
        for at, number in zip(range(0, len(noise), PAGE), range(start, start + 8), strict=False)
    }
    Pages(size, pages).check(kind)


@pytest.mark.parametrize("kind", READERS)
def test_cut_anywhere(kind, real):
    image = real[kind]
    for size in (0, 1, 511, 512, 1023, 1024, 1536, 2048, 4096, 33000, 65536, 70000, MIB, 5 * MIB):
        Pages(min(size, image.size), image.pages).check(kind)


@pytest.mark.parametrize("kind", READERS)
def test_a_device_that_gives_less_than_asked(kind, real):
    image = Pages(real[kind].size, real[kind].pages)
    usage = read_usage(kind, lambda offset, length: image.read(offset, length)[:-1], image.size)
    assert usage.problems
    assert usage.free is None


@pytest.mark.parametrize("kind", READERS)
def test_errors_of_the_device_pass_through(kind, real):
    image = Pages(real[kind].size, real[kind].pages)
    calls = 0

    def fail(offset: int, length: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(5, "Input/output error")
        return image.read(offset, length)

    for after in range(3):
        calls = 0
        with suppress(OSError):
            read_usage(kind, fail, image.size)
            assert calls <= after


@pytest.mark.parametrize("kind", ["jbd", "LVM2_member", "crypto_LUKS", "", "EXT4", "zfs_member"])
def test_types_without_an_account(kind):
    assert read_usage(kind, lambda _offset, _length: b"", 0) is None
