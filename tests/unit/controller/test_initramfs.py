"""The newc archive, read back by a parser of our own and by cpio."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.initramfs import pack

DIRECTORY, FILE, PROGRAM = 0o040755, 0o100644, 0o100755


@dataclass(frozen=True)
class Member:
    name: str
    mode: int
    content: bytes
    inode: int
    rest: tuple[int, ...]


def parse(archive: bytes) -> list[Member]:
    """Every member before the trailer; the format is the kernel's buffer-format.rst."""
    members = []
    position = 0
    while True:
        assert position % 4 == 0
        assert archive[position : position + 6] == b"070701"
        fields = [
            int(archive[start : start + 8], 16) for start in range(position + 6, position + 110, 8)
        ]
        inode, mode, *rest, size, major, minor, rmajor, rminor, length, check = fields
        name_end = position + 110 + length
        name = archive[position + 110 : name_end]
        assert name[-1:] == b"\0"
        assert b"\0" not in name[:-1]
        start = -(-name_end // 4) * 4
        assert not any(archive[name_end:start])
        content = archive[start : start + size]
        position = -(-(start + size) // 4) * 4
        assert not any(archive[start + size : position])
        assert (major, minor, rmajor, rminor, check) == (0, 0, 0, 0, 0)
        if name == b"TRAILER!!!\0":
            assert position == len(archive)
            return members
        members.append(Member(name[:-1].decode(), mode, content, inode, tuple(rest)))


def listed(archive: bytes, *options: str, folder: Path | None = None) -> list[str]:
    argv = ["cpio", "--quiet", *options]
    done = subprocess.run(argv, input=archive, capture_output=True, check=True, cwd=folder)
    return done.stdout.decode().splitlines()


FILES = {
    "forensic/appliance/agent/__main__.py": b"print()\n",
    "forensic/appliance/__init__.py": b"",
    "forensic/first": b"#!/bin/sh\n",
    "top": b"\0\1\2",
}


def test_members() -> None:
    members = parse(pack(FILES, frozenset({"forensic/first"})))
    assert [(each.name, each.mode) for each in members] == [
        ("forensic", DIRECTORY),
        ("forensic/appliance", DIRECTORY),
        ("forensic/appliance/agent", DIRECTORY),
        ("forensic/appliance/__init__.py", FILE),
        ("forensic/appliance/agent/__main__.py", FILE),
        ("forensic/first", PROGRAM),
        ("top", FILE),
    ]
    assert {each.name: each.content for each in members if each.mode != DIRECTORY} == FILES
    assert len({each.inode for each in members}) == len(members)
    # uid, gid, links, mtime: root's, and the same bytes at any time
    assert {each.rest for each in members} == {(0, 0, 1, 0)}


def test_cpio_lists_the_same() -> None:
    archive = pack(FILES)
    assert listed(archive, "-t") == [each.name for each in parse(archive)]


def test_cpio_extracts_the_same(tmp_path: Path) -> None:
    archive = pack(FILES, frozenset({"forensic/first"}))
    listed(archive, "-i", "--no-preserve-owner", folder=tmp_path)
    for name, content in FILES.items():
        assert (tmp_path / name).read_bytes() == content
        assert os.access(tmp_path / name, os.X_OK) == (name == "forensic/first")


def test_archives_in_a_row() -> None:
    """It is appended to base.cpio: only where that ends on a multiple of four is it found."""
    first, second = pack({"a": b"1"}), pack({"b": b"22"})
    assert len(first) % 4 == 0
    position = (first + second).index(b"TRAILER!!!") + 12
    assert (first + second)[position:].lstrip(b"\0").startswith(b"070701")


def test_no_files() -> None:
    assert parse(pack({})) == []


def test_order_of_the_files_does_not_matter() -> None:
    assert pack(dict(reversed(FILES.items()))) == pack(FILES)


PARTS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda part: part not in {".", ".."})
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
TREES = st.dictionaries(PATHS, st.binary(max_size=40), max_size=8).filter(
    lambda files: not any(str(parent) in files for path in files for parent in Path(path).parents)
)


@given(TREES, st.data())
@settings(max_examples=150, deadline=None)
def test_round_trip(files: dict[str, bytes], data: st.DataObject) -> None:
    programs = data.draw(st.frozensets(st.sampled_from(sorted(files)))) if files else frozenset()
    members = parse(pack(files, programs))
    seen: set[str] = {"."}
    for each in members:
        assert str(Path(each.name).parent) in seen, "a folder comes before what is in it"
        assert each.name not in seen
        seen.add(each.name)
    found = {each.name: (each.mode, each.content) for each in members if each.mode != DIRECTORY}
    assert found == {
        name: (PROGRAM if name in programs else FILE, content) for name, content in files.items()
    }


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 4095, 4096, 1 << 20])
def test_sizes(size: int) -> None:
    (member,) = parse(pack({"file": b"x" * size}))
    assert len(member.content) == size
