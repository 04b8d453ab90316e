"""EWF: the names of segments, what real images say, and images that lie."""

from __future__ import annotations

import hashlib
import random
import struct
import subprocess
import zlib
from itertools import islice
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import ewf, ewf_acquisition, ewf_volume
from images.errors import ImageError, MalformedImage, Unreadable, Unsupported
from tests.builders import ewf as builder

MIB = 1 << 20
BUDGET = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FORMATS = {
    "ewf": "e01",
    "smart": "s01",
    "ftk": "E01",
    **{f"encase{number}": "E01" for number in range(2, 8)},
    **{f"linen{number}": "E01" for number in (5, 6, 7)},
    "ewfx": "e01",
}
TEXTS = ["-C", "case 7", "-D", "a disk", "-e", "N. N.", "-E", "item 1", "-N", "some notes"]


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "disk.raw"
    chance = random.Random(7)
    path.write_bytes(chance.randbytes(3 * MIB) + b"text " * 200_000 + bytes(2 * MIB + 1536))
    with path.open("ab") as file:
        file.truncate(-(-file.tell() // 512) * 512)
    return path


@pytest.fixture
def sources(bytes_source):
    """Segments in memory, under the names that they ought to have."""

    def make(*contents, names=("x.E01", "x.E02", "x.E03", "x.E04")):
        return [
            bytes_source(data, Path("/e") / name)
            for data, name in zip(contents, names, strict=False)
        ]

    return make


def from_files(bytes_source, paths):
    return [bytes_source(path.read_bytes(), path) for path in paths]


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "number", "name"),
    [
        ("a.b.E01", 1, "a.b.E01"),
        ("x.E01", 99, "x.E99"),
        ("x.E01", 100, "x.EAA"),
        ("x.E01", 125, "x.EAZ"),
        ("x.E01", 126, "x.EBA"),
        ("x.E01", 99 + 676, "x.EZZ"),
        ("x.E01", 100 + 676, "x.FAA"),
        ("x.e01", 100 + 676, "x.faa"),
        ("x.s01", 100, "x.saa"),
        ("x\n.S01", 100 + 676, "x\n.TAA"),
    ],
)
def test_names(first, number, name):
    assert list(islice(ewf.segment_names(first), number))[-1] == name


def test_names_end():
    names = list(ewf.segment_names("x.E01"))
    assert len(names) == len(set(names)) == ewf.MAX_SEGMENTS
    assert names[-1] == "x.ZZZ"
    for other in ("x.E02", "x.dd", "E01", "x.E1", ""):
        assert list(ewf.segment_names(other)) == [other]


# --- real images --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_real_images(form, small_disk, tmp_path, bytes_source):
    options = ["-f", form, "-c", "fast", "-S", "1MiB", "-d", "sha1", *TEXTS]
    paths = builder.acquire(small_disk, tmp_path / "x", *options)
    names = list(islice(ewf.segment_names(f"x.{FORMATS[form]}"), len(paths)))
    assert [path.name for path in paths] == names
    assert len(paths) > 1
    files = from_files(bytes_source, paths)
    assert [ewf.continues(file) for file in files] == [True] * (len(files) - 1) + [False]
    image = ewf.parse(files)
    content = small_disk.read_bytes()
    assert image.virtual_size == len(content)
    assert (image.sector_size, image.chunk_size, image.segments) == (512, 32768, len(paths))
    assert image.stored_md5 == hashlib.md5(content).hexdigest()
    if form in ("encase6", "encase7", "linen6", "linen7"):
        assert image.stored_sha1 == hashlib.sha1(content).hexdigest()
    assert image.complete
    assert image.notes == ()
    acquired = image.acquisition
    assert acquired.untrusted_case_number == "case 7"
    assert acquired.untrusted_description == "a disk"
    assert acquired.untrusted_examiner == "N. N."
    assert acquired.untrusted_evidence_number == "item 1"
    assert acquired.untrusted_notes == "some notes"
    assert bool(acquired.untrusted_software) == (form != "ewf")
    assert acquired.untrusted_acquired.startswith("20")
    assert "T" in acquired.untrusted_acquired
    if form not in ("ewf", "smart"):
        assert image.media_type == "fixed"
        assert image.physical is True


def test_a_stream_of_unknown_length(small_disk, tmp_path, bytes_source):
    command = ["ewfacquirestream", "-q", "-t", str(tmp_path / "x"), "-S", "1048576"]
    with small_disk.open("rb") as file:
        subprocess.run(command, stdin=file, check=True, capture_output=True, timeout=60)
    paths = sorted(tmp_path.glob("x.E*"))
    assert len(paths) > 1
    image = ewf.parse(from_files(bytes_source, paths))
    assert image.virtual_size == small_disk.stat().st_size
    assert image.stored_md5 == hashlib.md5(small_disk.read_bytes()).hexdigest()


# --- what an image says -------------------------------------------------------------------------


def test_small_image(sources):
    image = ewf.parse(sources(builder.small()))
    assert image.virtual_size == 65 * 512
    assert image.set_identifier == UUID(bytes_le=builder.GUID)
    assert image.compression == "fast"
    assert image.acquisition.untrusted_case_number == "case"
    assert image.acquisition.untrusted_notes is None
    assert image.stored_md5 is image.stored_sha1 is None
    assert image.notes == ()


def test_hashes_and_errors(sources):
    md5, sha1 = b"m" * 16, b"s" * 20
    more = [
        ("hash", builder.stored_hash(md5)),
        ("digest", builder.digest(md5, sha1)),
        ("error2", builder.errors([(3, 2), (60, 5)])),
    ]
    image = ewf.parse(sources(builder.small(1, *more)))
    assert image.stored_md5 == md5.hex()
    assert image.stored_sha1 == sha1.hex()
    assert image.acquisition_errors == ((3, 2), (60, 5))
    assert image.notes == ("7 sectors could not be read when the disk was acquired",)


@pytest.mark.parametrize(
    ("more", "note"),
    [
        (("hash", b"x" * 36), "MD5"),
        (("hash", b""), "MD5"),
        (("digest", bytes(79)), "stored hashes"),
        (("error2", b"x" * 520), "acquisition errors"),
        (("error2", builder.errors([(1, 1)], count=2)), "acquisition errors"),
        (("error2", builder.errors([(1, 1)])[:-1] + b"\xee"), "acquisition errors"),
    ],
)
def test_damage_that_the_disk_can_be_read_without(more, note, sources):
    image = ewf.parse(sources(builder.small(1, more)))
    assert note in image.notes[0]
    assert image.stored_md5 is image.stored_sha1 is None
    assert image.acquisition_errors == ()


def test_two_hashes_that_differ(sources):
    more = [("hash", builder.stored_hash(b"1" * 16)), ("hash", builder.stored_hash(b"2" * 16))]
    image = ewf.parse(sources(builder.small(1, *more)))
    assert image.stored_md5 == (b"2" * 16).hex()
    assert "two different" in image.notes[0]


def test_empty_hashes_are_none(sources):
    more = [
        ("hash", builder.stored_hash(bytes(16))),
        ("digest", builder.digest(bytes(16), bytes(20))),
    ]
    image = ewf.parse(sources(builder.small(1, *more)))
    assert image.stored_md5 is image.stored_sha1 is None


def test_many_acquisition_errors_are_bounded(sources):
    ranges = [(number, 1) for number in range(ewf_acquisition.MAX_ERROR_RANGES + 5)]
    image = ewf.parse(sources(builder.small(1, ("error2", builder.errors(ranges)))))
    assert len(image.acquisition_errors) == ewf_acquisition.MAX_ERROR_RANGES
    assert "only 65536 of 65541" in image.notes[0]


def with_header(kind, data):
    start = zlib.compress(b"a" * builder.CHUNK)
    before = [(kind, data), ("volume", builder.volume(65))]
    place = len(builder.segment(1, before, "")) + 76
    table = builder.table([place | 1 << 31, place + len(start)])
    sectors = start + builder.checksummed(b"b" * 512)
    return builder.segment(1, [*before, ("sectors", sectors), ("table", table)])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not zlib",
        zlib.compress(b"1\nmain\nc\tn"),
        zlib.compress(b"\xff"),
        zlib.compress(bytes(64 * MIB)),
        zlib.compress(b"1\nmain\nc\nx\n\n")[:-4],
    ],
)
@pytest.mark.parametrize("kind", ["header", "header2"])
def test_values_that_cannot_be_read(kind, data, sources):
    image = ewf.parse(sources(with_header(kind, data)))
    assert image.acquisition == ewf_acquisition.Acquisition()
    assert "acquisition" in image.notes[0]


def test_values_are_bounded_and_kept_as_they_are(sources):
    long = "x" * 100_000
    data = builder.header2(c=long, e="\x1b[31m\u202e", m="99999999999", u="2026 13 1 0 0 0", zz="?")
    acquired = ewf.parse(sources(with_header("header2", data))).acquisition
    assert acquired.untrusted_case_number == "x" * ewf_acquisition.MAX_TEXT
    assert acquired.untrusted_examiner == "\x1b[31m\u202e"
    assert acquired.untrusted_acquired.startswith("5138-")
    assert acquired.untrusted_system_date == "2026 13 1 0 0 0"


def test_values_in_a_code_page(sources):
    data = zlib.compress("1\r\nmain\r\nc\tm\r\nFälle\t2026 11 23 0 3 40\r\n\r\n".encode("cp1252"))
    acquired = ewf.parse(sources(with_header("header", data))).acquisition
    assert acquired.untrusted_case_number == "Fälle"
    assert acquired.untrusted_acquired == "2026-11-23T00:03:40"


def test_without_an_end(sources):
    image = ewf.parse(sources(builder.small(end="")))
    assert not image.complete
    assert "complete" in image.notes[0]


# --- segments that are missing or foreign -------------------------------------------------------


def two(guid=builder.GUID, number=2):
    """Two segments; the second begins with a section that names the set."""
    content = builder.checksummed(b"b" * 512)
    first = zlib.compress(b"a" * builder.CHUNK)
    before = [("volume", builder.volume(65))]
    start = len(builder.segment(1, before, "")) + 76
    one = [*before, ("sectors", first), ("table", builder.table([start | 1 << 31]))]
    before = [("data", builder.volume(65, guid))]
    start = len(builder.segment(2, before, "")) + 76
    other = [*before, ("sectors", content), ("table", builder.table([start]))]
    return builder.segment(1, one, "next"), builder.segment(number, other)


def test_two_segments(sources):
    image = ewf.parse(sources(*two()))
    assert image.segments == 2
    assert image.virtual_size == 65 * 512


def test_missing_last_segment_is_named(sources):
    with pytest.raises(Unreadable, match=r"^/e/x\.E02: is missing: it is segment 2") as failure:
        ewf.parse(sources(two()[0]))
    assert failure.value.path == Path("/e/x.E02")
    assert failure.value.hint


def test_missing_segment_of_an_image_with_an_odd_name(sources):
    with pytest.raises(Unreadable, match="segment 2 is missing") as failure:
        ewf.parse(sources(two()[0], names=["x.bin"]))
    assert failure.value.path == Path("/e/x.bin")


def test_missing_segment_in_the_middle_is_named(sources):
    one, other = two(number=3)
    with pytest.raises(Unreadable, match=r"^/e/x\.E02: is missing"):
        ewf.parse(sources(one, other, names=["x.E01", "x.E03"]))


def test_segment_with_a_wrong_number(sources):
    one, other = two(number=3)
    with pytest.raises(MalformedImage, match=r"^/e/x\.E02: is segment 3 .* segment 2 belongs"):
        ewf.parse(sources(one, other))
    with pytest.raises(MalformedImage, match="not the first"):
        ewf.parse(sources(other))


def test_foreign_segment(sources):
    one, other = two(guid=bytes(16))
    with pytest.raises(MalformedImage, match=r"^/e/x\.E02: belongs to another EWF image"):
        ewf.parse(sources(one, other))


def test_segment_too_many(sources):
    with pytest.raises(MalformedImage, match=r"^/e/x\.E02: does not belong"):
        ewf.parse(sources(builder.small(), two()[1]))


def test_segment_cut_at_a_section(sources):
    one, other = two()
    with pytest.raises(MalformedImage, match=r"E01: .*ends without saying"):
        ewf.parse(sources(one[:-76], other))


# --- lies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (b"LVF\x09\x0d\x0a\xff\x00", "logical"),
        (b"EVF2\x0d\x0a\x81\x00", "version 2"),
        (b"LEF2\x0d\x0a\x81\x00", "logical"),
        (b"ADCRYPT\x00", "encrypted"),
    ],
)
def test_unsupported(head, text, sources):
    for data in (head, head + bytes(100)):
        with pytest.raises(Unsupported, match=text) as failure:
            ewf.parse(sources(data))
        assert failure.value.hint


def patched(offset, value, *, repair=True):
    """The small image with a change in the section descriptor of its first section."""
    data = bytearray(builder.small())
    data[13 + offset : 13 + offset + len(value)] = value
    if repair:
        data[13 + 72 : 13 + 76] = struct.pack("<I", zlib.adler32(data[13 : 13 + 72]))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "signature"),
        (b"EVF\x09\x0d\x0a\xff\x00\x01", "truncated"),
        (b"EVF\x09\x0d\x0a\xff\x00\x01\0\0\0\0", "not possible"),
        (b"EVF\x09\x0d\x0a\xff\x00\x01\1\0\0\0", "no sections"),
        (patched(0, b"H", repair=False), "checksum"),
        (patched(0, b"\x1b[31m"), r"\\x1b"),
        (patched(0, bytes(16)), "cannot be called"),
        (patched(16, struct.pack("<Q", 0)), "next one is said"),
        (patched(16, struct.pack("<Q", 13)), "next one is said"),
        (patched(16, struct.pack("<Q", 13 + 75)), "next one is said"),
        (patched(16, struct.pack("<Q", 1 << 63)), "truncated"),
        (patched(24, struct.pack("<Q", 1)), "claims 1"),
        (patched(24, struct.pack("<Q", (1 << 64) - 1)), "claims"),
        (patched(0, b"done\0\0\0"), "points to"),
        (builder.small()[:-1], "truncated"),
        (builder.segment(1, []), "0 sections that describe"),
        (builder.segment(1, [("volume", builder.volume(65))] * 2), "2 sections that describe"),
        (builder.segment(1, [("volume", builder.volume(65))]), "incomplete"),
        (builder.segment(1, [("volume", b"short")]), "only 5 bytes"),
        (builder.segment(1, [("volume", bytes(1048) + b"1234")]), "checksum"),
        (builder.segment(1, [("volume", builder.volume(0))]), "not possible"),
        (builder.segment(1, [("volume", builder.volume(1 << 60, chunks=0))]), "not possible"),
        (builder.segment(1, [("volume", builder.volume(65, per_chunk=0, chunks=2))]), "chunk of 0"),
        (builder.segment(1, [("volume", builder.volume(65, per_chunk=1 << 30))]), "chunk of"),
        (builder.segment(1, [("volume", builder.volume(65, chunks=3))]), "do not make 3"),
    ],
)
def test_lies(data, text, sources):
    with pytest.raises(MalformedImage, match=text) as failure:
        ewf.parse(sources(data))
    assert failure.value.hint
    assert str(failure.value).isprintable()


GOOD = builder.table([1, 2])


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ([("table", b"")], "checksum"),
        ([("table", b"x" + GOOD[1:])], "checksum"),
        ([("table", GOOD), ("table", GOOD)], "more entries"),
        ([("table", builder.table([1]))], "incomplete"),
        ([("table", builder.table([1, 2, 3]))], "more entries"),
        ([("table", builder.table([1, 2], count=1 << 31))], "not possible"),
        ([("table", builder.table([], count=0))], "not possible"),
        ([("table", builder.table([1, 2], base=1 << 62))], "not possible"),
        ([("table2", GOOD)], "without a table"),
        ([("table", GOOD), ("table2", GOOD), ("table2", GOOD)], "without a table"),
        ([("table", GOOD), ("table2", builder.table([1]))], "disagree"),
    ],
)
def test_tables_that_lie(sections, text, sources):
    data = builder.segment(1, [("volume", builder.volume(65)), *sections])
    with pytest.raises(MalformedImage, match=text):
        ewf.parse(sources(data))


def test_table_is_replaced_by_its_copy(sources):
    data = builder.segment(
        1, [("volume", builder.volume(65)), ("table", bytes(len(GOOD))), ("table2", GOOD)]
    )
    found = ewf.layout(sources(data))
    assert found.tables[0].entries == 2
    assert len(found.tables[0].copies) == 1


def test_number_of_sections_is_bounded(sources, monkeypatch):
    monkeypatch.setattr(ewf, "MAX_SECTIONS", 4)
    with pytest.raises(MalformedImage, match="more than 4 sections"):
        ewf.parse(sources(builder.small()))


def test_chunks_are_bounded():
    assert ewf_volume.MAX_CHUNK <= 64 * MIB


def test_no_segments():
    with pytest.raises(ValueError, match="segments"):
        ewf.parse([])


# --- whatever a file holds ----------------------------------------------------------------------


def survives(segments) -> None:
    try:
        image = ewf.parse(segments)
    except ImageError as error:
        text = str(error) + error.hint
        assert text.isprintable()
    else:
        assert image.virtual_size > 0


@BUDGET
@given(data=st.binary(max_size=300), magic=st.booleans())
def test_noise(data, magic, sources):
    head = b"EVF\x09\x0d\x0a\xff\x00\x01\1\0\0\0" if magic else b""
    survives(sources(head + data))


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7]),
        ),
    ),
    min_size=1,
    max_size=4,
)


def repaired(data: bytearray) -> bytes:
    """With right checksums in the chain of descriptors, so that changes get behind them."""
    offset = 13
    for _ in range(12):
        if offset + 76 > len(data):
            break
        data[offset + 72 : offset + 76] = struct.pack(
            "<I", zlib.adler32(data[offset : offset + 72])
        )
        following = int.from_bytes(data[offset + 16 : offset + 24], "little")
        for size in (1052, 94, 24, 520, 36, 80):
            end = offset + 76 + size
            if end <= min(following, len(data)):
                checksum = zlib.adler32(data[offset + 76 : end - 4])
                data[end - 4 : end] = struct.pack("<I", checksum)
                break
        if following <= offset:
            break
        offset = following
    return bytes(data)


@BUDGET
@given(changes=CHANGES, repair=st.booleans(), length=st.one_of(st.none(), st.integers(0, 10_000)))
def test_changed_images(changes, repair, length, sources):
    for contents in ((builder.small(),), two()):
        changed = []
        for content in contents:
            data = bytearray(content)
            for offset, patch in changes:
                place = offset % len(data)
                data[place : place + len(patch)] = patch
            changed.append((repaired(data) if repair else bytes(data))[:length])
        survives(sources(*changed))
