"""Whatever an image names: nothing outside of the allowed folders is opened or looked at."""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import qcow2_header, qcow2_snapshots, reference, vmdk_descriptor, walk
from images.evidence import EvidenceFile, opened
from images.image import open_image
from images.reference import Reach, opened_reference
from tests.builders.qcow2 import CLUSTER, MIB, Qcow2, patched
from tests.builders.vmdk_chain import Ids, descriptor

from .conftest import BytesSource, listing
from .test_fuzz import BUDGET, CASES, survives

pytestmark = pytest.mark.timeout(max(300, CASES // 10))

PARTS = [
    b"",
    b".",
    b"..",
    b"case",
    b"allowed",
    b"outside",
    b"case-2",
    b"secret",
    b"base",
    b"sub",
    b"deep",
    b"etc",
    b"passwd",
    b"proc",
    b"self",
    b"root",
    b"C:",
    b"json:{}",
    b"nbd:",
    b"\0",
    b"\xff",
    b"\n",
    *(b"link%d" % number for number in range(12)),
]
TARGETS = [
    "../outside/secret",
    "../outside",
    "{}/outside/secret",
    "{}/allowed",
    "..",
    ".",
    "/",
    "link7",
    "link6/../link3",
    "sub/../../outside",
    "/etc/passwd",
    "/proc/self/root",
]
FILES = [
    "case/image",
    "case/base",
    "case/sub/base",
    "allowed/deep/base",
    "allowed/deep/secret",
    "outside/secret",
    "outside/sub/base",
    "case-2/base",
]
WALKS = st.lists(st.sampled_from(PARTS), max_size=9)
LEADING_SOMEWHERE = st.builds(
    lambda folders, end: [part for folder in folders for part in folder.split(b"/")] + [end],
    st.lists(
        st.sampled_from([b".", b"sub/..", b"../case", b"../allowed", b"deep", b"link3", b"link1"]),
        max_size=4,
    ),
    st.sampled_from([b"base", b"secret", b"link0", b"link2", b"link7", b"link8"]),
)
PATHS = st.builds(
    lambda start, parts, between: start + between.join(parts),
    st.sampled_from([b"", b"", b"/", b"@/case/", b"@/allowed/", b"@/", b"\\", b"C:\\", b"./"]),
    st.one_of(WALKS, LEADING_SOMEWHERE),
    st.sampled_from([b"/", b"/", b"\\", b"//"]),
)
NAMES = st.one_of(PATHS, PATHS, st.binary(max_size=40), st.binary(min_size=1000, max_size=1100))


class Place:
    """A case, an allowed folder, secrets outside, and links that lead everywhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.case, self.allowed = root / "case", root / "allowed"
        for folder in ("case/sub", "allowed/deep", "outside/sub", "case-2"):
            (root / folder).mkdir(parents=True)
        for name in FILES:
            (root / name).write_bytes(name.encode().ljust(512))
        for number, target in enumerate(TARGETS):
            for folder in (self.case, self.allowed):
                (folder / f"link{number}").symlink_to(target.format(root))
        self.reach = Reach.into([self.allowed])

    def named(self, template: bytes) -> bytes:
        return template.replace(b"@", os.fsencode(self.root))

    def allows(self, file: EvidenceFile, *, reached: bool) -> bool:
        real = Path(f"/proc/self/fd/{file.fd}").readlink()
        assert real == file.resolved
        return real.parent == self.case or (reached and real.is_relative_to(self.allowed))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(autouse=True)
def _each_step_starts_inside(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of the walk names anything but one component in an open folder inside."""
    real = os.open
    roots = {place.case, place.allowed}

    def watched(name: str | Path, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            assert "/" not in str(name)
            assert str(name) not in ("", ".", "..")
            folder = Path(f"/proc/self/fd/{dir_fd}").readlink()
            assert any(folder.is_relative_to(root) for root in roots)
        elif not str(name).startswith("/proc/self/fd/"):
            assert Path(name).is_relative_to(place.root)
            assert Path(name) in roots or Path(name).parent == place.case
        return real(name, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(walk.os, "open", watched)


@BUDGET
@given(template=NAMES, reached=st.booleans())
def test_any_name(template: bytes, reached: bool, place: Place) -> None:
    before = len(listing("/proc/self/fd"))
    with opened(place.case / "image") as owner:
        reach = place.reach if reached else Reach()

        def find() -> None:
            with opened_reference(owner, place.named(template), "backing file", reach) as found:
                assert place.allows(found.file, reached=reached)
                assert found.file.read(0, 100)

        survives(find)
    assert len(listing("/proc/self/fd")) == before


@BUDGET
@given(
    backing=NAMES,
    form=st.sampled_from([b"", b"raw", b"qcow2", b"vmdk", b"\xff"]),
    data=st.one_of(st.just(b""), NAMES),
    reached=st.booleans(),
)
def test_any_qcow2(backing: bytes, form: bytes, data: bytes, reached: bool, place: Place) -> None:
    image = Qcow2(backing=place.named(backing), backing_format=form, data_file=place.named(data))
    any_image(place, "top.qcow2", image.build(), reached=reached)


@BUDGET
@given(
    extents=st.lists(NAMES, min_size=1, max_size=3),
    hint=st.one_of(st.just(b""), NAMES),
    ids=st.tuples(st.sampled_from([0, 1, 0xFFFFFFFF]), st.sampled_from([1, 2, 0xFFFFFFFF])),
    reached=st.booleans(),
)
def test_any_vmdk(
    extents: list[bytes], hint: bytes, ids: tuple[int, int], reached: bool, place: Place
) -> None:
    lines = [f'RW 1 FLAT "{place.named(name).decode("latin-1")}" 0' for name in extents]
    named = place.named(hint).decode("latin-1")
    text = descriptor("twoGbMaxExtentFlat", lines, Ids(*ids, named))
    any_image(place, "top.vmdk", text, reached=reached)


def any_image(place: Place, name: str, data: bytes, *, reached: bool) -> None:
    path = place.case / name
    path.write_bytes(data)
    reach = place.reach if reached else Reach()

    def use() -> None:
        with ExitStack() as stack:
            image = open_image(path, stack=stack, reach=reach)
            assert all(place.allows(file, reached=reached) for file in image.files)
            assert all(note.isprintable() for note in image.notes)

    survives(use)


# --- tables of snapshots ------------------------------------------------------------------------

ENTRIES = st.builds(
    lambda numbers, extra, identity, name: (
        struct.pack(">QIHHIIQII", *numbers) + extra + identity + name
    ),
    st.tuples(
        st.one_of(st.sampled_from([0, 3 * CLUSTER, 1 << 40]), st.integers(0, (1 << 64) - 1)),
        st.one_of(st.sampled_from([0, 1, 1 << 22]), st.integers(0, (1 << 32) - 1)),
        st.one_of(st.integers(0, 8), st.integers(0, 0xFFFF)),
        st.one_of(st.integers(0, 8), st.integers(0, 0xFFFF)),
        *(st.integers(0, (1 << bits) - 1) for bits in (32, 32, 64, 32)),
        st.one_of(st.sampled_from([0, 8, 16, 24, 1024, 1025]), st.integers(0, (1 << 32) - 1)),
    ),
    st.one_of(
        st.binary(max_size=24),
        st.builds(struct.Struct(">QQ").pack, st.just(0), st.integers(0, (1 << 64) - 1)),
    ),
    st.binary(max_size=8),
    st.one_of(st.just(b"wanted"), st.binary(max_size=8)),
)


@BUDGET
@given(
    table=st.lists(ENTRIES, max_size=4).map(b"".join),
    count=st.one_of(st.integers(0, 5), st.sampled_from([65535, 65536])),
    cut=st.integers(0, 200),
)
def test_any_table_of_snapshots(table: bytes, count: int, cut: int) -> None:
    image = Qcow2(MIB).build()
    data = patched(image, {"snapshots": count, "snapshots_offset": len(image)}) + table
    source = BytesSource(data[: max(len(image), len(data) - cut)])

    def use() -> None:
        header = qcow2_header.parse(source)
        for each in qcow2_snapshots.read_snapshots(source, header):
            assert len(each.name) <= 0xFFFF
            survives(qcow2_snapshots.seen_by, source, header, each)
            wanted = each.name.decode("utf-8", "surrogateescape")
            survives(qcow2_snapshots.chosen, source, (each,), wanted)

    survives(use)


# --- descriptors with ancestry ------------------------------------------------------------------

LINES = st.sampled_from(
    [
        b"# Disk DescriptorFile",
        b"CID=1",
        b"CID=ffffffff0",
        b"parentCID=ffffffff",
        b"parentCID=1",
        b'parentCID="0x1"',
        b"parentCID=",
        b'parentFileNameHint="base.vmdk"',
        b'parentFileNameHint="/etc/passwd"',
        b'parentFileNameHint=""',
        b"parentFileNameHint",
        b'  parentFileNameHint = "x"  ',
        b'# parentFileNameHint="x"',
        b'ddb.x = "parentCID=2"',
        b'createType="monolithicFlat"',
        b'createType="twoGbMaxExtentSparse"',
        b'RW 1 FLAT "a" 0',
        b"\0",
    ]
)


@BUDGET
@given(
    lines=st.lists(st.one_of(LINES, LINES, st.binary(max_size=30)), max_size=12),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_any_ancestry(lines: list[bytes], end: bytes) -> None:
    """A parent is named by exactly one line with an ID, or there is no word of one anywhere."""
    text = end.join(lines)

    def use() -> None:
        found = vmdk_descriptor.parse(BytesSource(text), text)
        has_parent = found.untrusted_parent is not None
        assert text.count(b"parentFileNameHint") == has_parent
        assert text.count(b"parentCID") <= 1
        assert has_parent == (found.parent_id != vmdk_descriptor.NO_PARENT)

    survives(use)


def test_the_watch_sees_what_leaves(place: Place) -> None:
    with pytest.raises(AssertionError):
        walk.os.open("/etc/passwd", os.O_RDONLY)
    assert reference.walk is walk.walk
