"""What the reader makes of E01, gzip and xz, without its sandbox: exact bytes, or an error."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import random
import struct
import subprocess
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import xz
from images.errors import ImageError, MalformedImage, Unsupported
from images.reader import content
from images.reader import gzip as reader_gzip
from images.reader import xz as reader_xz
from tests.builders import ewf as builder

MIB = 1 << 20
LIMIT = 1 << 40
BUDGET = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def some_bytes(length: int, seed: int = 3) -> bytes:
    """Half of it random, half of it easily packed."""
    chance = random.Random(seed)
    out = b""
    while len(out) < length:
        out += chance.randbytes(50_000) + b"more of the same " * 3000
    return out[:length]


@pytest.fixture
def read(tmp_path):
    """The content of files that hold these bytes."""
    descriptors = []

    def open_all(kind, *files, limit=LIMIT):
        mine = []
        for number, data in enumerate(files):
            path = tmp_path / f"{len(descriptors)}-{number}"
            path.write_bytes(data)
            mine.append(os.open(path, os.O_RDONLY))
            descriptors.append(mine[-1])
        return content.opened(kind, mine, limit)

    yield open_all
    for descriptor in descriptors:
        os.close(descriptor)


def whole(opened) -> bytes:
    step = 777_777
    return b"".join(
        opened.read(offset, min(step, opened.size - offset))
        for offset in range(0, opened.size, step)
    )


def check_random_reads(opened, expected: bytes) -> None:
    assert opened.size == len(expected)
    chance = random.Random(5)
    for _ in range(60):
        offset = chance.randrange(len(expected))
        length = min(chance.choice([1, 512, 4096, 100_000]), len(expected) - offset)
        assert opened.read(offset, length) == expected[offset : offset + length]
    assert whole(opened) == expected
    with pytest.raises(ValueError, match="beyond"):
        opened.read(len(expected) - 1, 2)


# --- E01 ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    path.write_bytes(some_bytes(3 * MIB) + bytes(MIB) + some_bytes(5 * 512))
    return path


@pytest.mark.parametrize("level", ["none", "empty-block", "fast", "best"])
@pytest.mark.parametrize("form", ["ewf", "smart", "ftk", "encase2", "encase6", "encase7"])
def test_ewf(form, level, disk, tmp_path, read):
    options = ["-f", form, "-c", level, "-S", "1MiB"]
    paths = builder.acquire(disk, tmp_path / "x", *options)
    opened = read("ewf", *(path.read_bytes() for path in paths))
    check_random_reads(opened, disk.read_bytes())


@pytest.mark.parametrize("sectors", ["16", "1024", "32768"])
def test_ewf_with_other_chunks(sectors, disk, tmp_path, read):
    (path,) = builder.acquire(disk, tmp_path / "x", "-b", sectors, "-c", "fast", "-f", "encase6")
    check_random_reads(read("ewf", path.read_bytes()), disk.read_bytes())


def test_ewf_is_what_ewfexport_makes_of_it(disk, tmp_path, read):
    paths = builder.acquire(disk, tmp_path / "x", "-c", "fast", "-S", "1MiB")
    command = ["ewfexport", "-u", "-q", "-f", "raw", "-t", str(tmp_path / "out"), str(paths[0])]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    exported = (tmp_path / "out.raw").read_bytes()
    assert whole(read("ewf", *(path.read_bytes() for path in paths))) == exported


def test_ewf_of_several_tables_and_a_base(read):
    """As EnCase 6 writes it: entries count from the table's own base."""
    data = some_bytes(4 * builder.CHUNK)
    chunks = [data[place : place + builder.CHUNK] for place in range(0, len(data), builder.CHUNK)]
    sections = [("volume", builder.volume(4 * 64))]
    for pair in (chunks[:2], chunks[2:]):
        start = len(builder.segment(1, sections, "")) + 76
        packed = [zlib.compress(chunk) for chunk in pair]
        table = builder.table([1 << 31, len(packed[0]) | 1 << 31], base=start)
        sections += [("sectors", b"".join(packed)), ("table", table)]
    assert whole(read("ewf", builder.segment(1, sections))) == data


def test_small_ewf(read):
    assert whole(read("ewf", builder.small())) == builder.SMALL_CONTENT


def test_last_chunk_may_be_filled_up(read):
    chunk = builder.checksummed(b"c" * builder.CHUNK)
    before = [("volume", builder.volume(1))]
    start = len(builder.segment(1, before, "")) + 76
    data = builder.segment(1, [*before, ("sectors", chunk), ("table", builder.table([start]))])
    assert whole(read("ewf", data)) == b"c" * 512


@pytest.mark.parametrize("level", ["none", "fast"])
def test_damaged_chunk_is_an_error_for_its_range_alone(level, disk, tmp_path, read):
    (path,) = builder.acquire(disk, tmp_path / "x", "-c", level, "-f", "encase6")
    expected = disk.read_bytes()
    data = bytearray(path.read_bytes())
    data[400_000] ^= 1
    opened = read("ewf", bytes(data))
    bad = []
    for offset in range(0, len(expected), builder.CHUNK):
        length = min(builder.CHUNK, len(expected) - offset)
        try:
            assert opened.read(offset, length) == expected[offset : offset + length]
        except MalformedImage as error:
            bad.append(offset)
            text = str(error)
            assert "chunk" in text
    assert len(bad) == 1
    with pytest.raises(MalformedImage):
        opened.read(bad[0] + 17, 1)
    with pytest.raises(MalformedImage):
        opened.read(0, len(expected))


@pytest.mark.parametrize("copies", [1, 2])
def test_damaged_table(copies, disk, tmp_path, read):
    (path,) = builder.acquire(disk, tmp_path / "x", "-c", "fast", "-f", "encase6")
    data = bytearray(path.read_bytes())
    place = data.index(b"table\0")
    for name in (b"table\0", b"table2\0")[:copies]:
        place = data.index(name)
        data[place + 76 + 24 + 40] ^= 1
    opened = read("ewf", bytes(data))
    if copies == 1:
        assert whole(opened) == disk.read_bytes()
    else:
        with pytest.raises(MalformedImage, match="table"):
            whole(opened)


def lying(offset: int, chunk: bytes = b"") -> bytes:
    """A disk of one chunk whose place is `offset`."""
    sections = [("volume", builder.volume(64)), ("table", builder.table([offset]))]
    return builder.segment(1, [*sections, ("sectors", chunk)])


@pytest.mark.parametrize(
    "data",
    [
        lying(0),
        lying(1 << 31),
        lying(0x7FFFFFFF),
        lying(0xFFFFFFFF),
        lying(len(lying(0)) - 76 | 1 << 31, zlib.compress(bytes(builder.CHUNK - 1))),
        lying(len(lying(0)) - 76 | 1 << 31, zlib.compress(bytes(builder.CHUNK + 1))),
        lying(len(lying(0)) - 76 | 1 << 31, zlib.compress(bytes(100 * MIB))),
        lying(len(lying(0)) - 76 | 1 << 31, zlib.compress(b"a" * builder.CHUNK)[:-1] + b"?"),
    ],
)
def test_ewf_chunks_that_lie(data, read):
    with pytest.raises(ImageError):
        whole(read("ewf", data))


@BUDGET
@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_one_changed_bit_never_changes_the_content(place, bit, tmp_path, read):
    """Every byte that decides about the content is under a checksum that we look at."""
    data = bytearray(builder.small())
    data[place % len(data)] ^= 1 << bit
    with contextlib.suppress(ImageError):
        assert whole(read("ewf", bytes(data))) == builder.SMALL_CONTENT


def test_ewf_larger_than_the_limit(read):
    with pytest.raises(Unsupported, match="more than 100 bytes"):
        read("ewf", builder.small(), limit=100)


# --- gzip ---------------------------------------------------------------------------------------


def test_gzip(read):
    data = some_bytes(7 * MIB + 12_345)
    check_random_reads(read("gzip", gzip.compress(data, 1)), data)


def test_gzip_with_a_name_and_of_several_members(read):
    parts = [some_bytes(length, length) for length in (1, 3_000_000, 0, 70_000)]
    packed = io.BytesIO()
    for part in parts:
        with gzip.GzipFile("a name", "wb", 6, packed, mtime=1) as file:
            file.write(part)
    packed.write(bytes(1000))  # as a tape has it
    check_random_reads(read("gzip", packed.getvalue()), b"".join(parts))


def test_gzip_points_are_bounded(read, monkeypatch):
    monkeypatch.setattr(reader_gzip, "MAX_POINTS", 4)
    monkeypatch.setattr(reader_gzip, "_FIRST_INTERVAL", 1000)
    monkeypatch.setattr(reader_gzip, "_STEP", 5000)
    data = some_bytes(2 * MIB)
    opened = read("gzip", gzip.compress(data, 1))
    assert len(opened._points) <= 4
    assert opened._points[0].position == 0
    check_random_reads(opened, data)


def test_gzip_with_many_readers(read):
    data = some_bytes(6 * MIB)
    opened = read("gzip", gzip.compress(data, 1))
    wrong = []

    def run(seed):
        chance = random.Random(seed)
        for _ in range(30):
            offset = chance.randrange(len(data) - 5000)
            if opened.read(offset, 5000) != data[offset : offset + 5000]:
                wrong.append(offset)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


PACKED = gzip.compress(some_bytes(300_000), 6, mtime=0)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "signature"),
        (b"\x1f", "signature"),
        (b"\x1f\x8b", "truncated"),
        (b"not gzip", "signature"),
        (PACKED[:-1], "truncated"),
        (PACKED[:-9], "truncated"),
        (PACKED[:1000], "truncated"),
        (PACKED + PACKED[:-4], "truncated"),
        (PACKED[:-8] + b"1234" + PACKED[-4:], "incorrect data check"),
        (PACKED[:-4] + b"1234", "incorrect length check"),
        (PACKED[:5000] + bytes(50) + PACKED[5050:], "damaged gzip"),
        (PACKED + b"garbage", "something else follows"),
        (PACKED + bytes(200_000) + b"garbage", "something else follows"),
        (gzip.compress(b""), "holds no data"),
    ],
)
def test_gzip_that_is_damaged(data, text, read):
    with pytest.raises(MalformedImage, match=text) as failure:
        read("gzip", data)
    assert failure.value.hint


def test_gzip_larger_than_the_limit(read):
    bomb = gzip.compress(bytes(50 * MIB))
    with pytest.raises(Unsupported, match="more than 1048576 bytes") as failure:
        read("gzip", bomb, limit=MIB)
    assert failure.value.hint
    assert read("gzip", bomb).size == 50 * MIB


@BUDGET
@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_one_changed_bit_of_gzip(place, bit, tmp_path, read):
    expected = some_bytes(60_000)
    data = bytearray(gzip.compress(expected, 6, mtime=0))
    data[place % len(data)] ^= 1 << bit
    with contextlib.suppress(ImageError):
        assert whole(read("gzip", bytes(data))) == expected


# --- xz -----------------------------------------------------------------------------------------


def blocks(data: bytes, size: int, *options: str) -> bytes:
    command = ["xz", "-0", "--block-size", str(size), "-T2", "-c", *options]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


@pytest.mark.parametrize("check", ["none", "crc32", "crc64", "sha256"])
def test_xz(check, read):
    data = some_bytes(3 * MIB + 4321)
    packed = blocks(data, 700_000, f"--check={check}")
    opened = read("xz", packed)
    check_random_reads(opened, data)
    assert len(xz.parse(FakeFile(packed)).blocks) == 5


def test_xz_of_several_streams(read):
    parts = [some_bytes(length, length) for length in (100_000, 5, 300_000)]
    packed = blocks(parts[0], 30_000) + bytes(8) + lzma.compress(parts[1]) + lzma.compress(b"")
    packed += blocks(parts[2], 123_456) + bytes(1024)
    check_random_reads(read("xz", packed), b"".join(parts))


def test_xz_keeps_few_blocks(read, monkeypatch):
    monkeypatch.setattr(reader_xz, "_CACHED", 250_000)
    data = some_bytes(MIB)
    opened = read("xz", blocks(data, 100_000))
    check_random_reads(opened, data)
    assert sum(map(len, opened._cache.values())) <= 250_000


def test_xz_of_one_large_block_is_unsupported(read, monkeypatch):
    monkeypatch.setattr(xz, "MAX_BLOCK", 100_000)
    with pytest.raises(Unsupported, match="blocks of up to 200000 bytes") as failure:
        read("xz", lzma.compress(bytes(200_000)))
    assert "--block-size" in failure.value.hint


def test_xz_larger_than_the_limit(read):
    with pytest.raises(Unsupported, match="more than 1000 bytes"):
        read("xz", lzma.compress(bytes(2000)), limit=1000)


XZ = blocks(some_bytes(300_000), 100_000)


def test_xz_block_that_is_damaged(read):
    data = bytearray(XZ)
    data[5000] ^= 1
    opened = read("xz", bytes(data))
    with pytest.raises(MalformedImage, match="block at 12"):
        opened.read(0, 10)
    assert opened.read(100_000, 200_000) == some_bytes(300_000)[100_000:]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(64),
        XZ[:-1],
        XZ[:-4],
        XZ[:-12],
        XZ[1:],
        XZ[12:],
        b"xxxx" + XZ,
        XZ + b"xxxx",
        XZ[:-12] + bytes(12),
        lzma.compress(b""),
    ],
)
def test_xz_that_is_damaged(data, read):
    with pytest.raises(MalformedImage):
        read("xz", data)


def index_of(*numbers: int) -> bytes:
    """A file without blocks, but an index with these numbers."""
    header = b"\xfd7zXZ\0\0\1" + struct.pack("<I", zlib.crc32(b"\0\1"))
    index = b"\0" + b"".join(xz._packed_number(number) for number in numbers)
    index += bytes(-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    footer = struct.pack("<I2s", len(index) // 4 - 1, b"\0\1")
    return header + index + struct.pack("<I", zlib.crc32(footer)) + footer + b"YZ"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((1, 100, 5), "do not fit"),
        ((1, 1 << 62, 1 << 62), "do not fit"),
        ((1 << 40,), "more than"),
        ((3, 1, 1), "without an end"),
        ((1, 0, 5), "empty block"),
        ((0, 1, 1, 1, 1), "more than it says"),
    ],
)
def test_xz_index_that_lies(numbers, text, read):
    with pytest.raises(MalformedImage, match=text):
        read("xz", index_of(*numbers))


def test_xz_sizes_that_lie(read):
    """The index promises another size than the first block has."""
    found = xz.parse(FakeFile(XZ)).blocks
    end = found[-1].offset + -(-found[-1].packed // 4) * 4
    for change in (-4, 4):
        sizes = [found[0].size + change, *(block.size for block in found[1:])]
        pairs = zip((block.packed for block in found), sizes, strict=True)
        fake = index_of(len(found), *(number for pair in pairs for number in pair))
        opened = read("xz", XZ[:end] + xz_tail(fake[12:-12], XZ[6:8]))
        with pytest.raises(MalformedImage, match="the block at 12"):
            opened.read(0, 10)


def xz_tail(index: bytes, flags: bytes) -> bytes:
    footer = struct.pack("<I2s", len(index) // 4 - 1, flags)
    return index + struct.pack("<I", zlib.crc32(footer)) + footer + b"YZ"


class FakeFile:
    """Enough of a file for `xz.parse`."""

    path = Path("/e/x.xz")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@BUDGET
@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_one_changed_bit_of_xz(place, bit, read):
    data = bytearray(XZ)
    data[place % len(data)] ^= 1 << bit
    with contextlib.suppress(ImageError):
        assert whole(read("xz", bytes(data))) == some_bytes(300_000)


@BUDGET
@given(
    kind=st.sampled_from(["ewf", "gzip", "xz"]),
    head=st.sampled_from([b"", b"\x1f\x8b\x08\0", xz.MAGIC, b"EVF\x09\x0d\x0a\xff\x00\1\1\0\0\0"]),
    data=st.binary(max_size=300),
    tail=st.sampled_from([b"", b"YZ"]),
)
def test_noise(kind, head, data, tail, read):
    try:
        whole(read(kind, head + data + tail))
    except ImageError as error:
        text = str(error) + error.hint
        assert text.isprintable()
