"""Reading below a root: the way of every link, and nothing of what lies outside."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.agent.system.descriptor import Missing, Refused, RootError
from appliance.agent.system.root import opened_folder, opened_root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/name").write_text("inside")
    return root


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("etc/name", b"inside"),
        ("/etc/name", b"inside"),
        ("../../../../etc/name", b"inside"),
        ("/../etc/./name", b"inside"),
        ("etc/../etc/name", b"inside"),
        ("../secret", None),
        ("/secret", None),
        ("etc/../../secret", None),
        ("/etc/name/", b"inside"),
        ("etc/name/..", None),
        ("etc/name/name", None),
        ("self", None),
        ("", None),
    ],
)
def test_links_stay_inside(folder: Path, target: str, content: bytes | None) -> None:
    if target:
        (folder / "self").symlink_to(target)
    with opened_root(folder) as root:
        if content is None:
            with pytest.raises(RootError):
                root.read("/self", 100)
        else:
            assert root.read("self", 100) == content
            assert root.read("self", 2) == content[:2]
            assert root.readlink("self") == target


def test_a_link_in_the_middle_of_a_path(folder: Path) -> None:
    (folder / "conf").symlink_to("/etc")
    (folder / "out").symlink_to("..")
    with opened_root(folder) as root:
        assert root.read("conf/name", 100) == b"inside"
        assert root.listdir("out").names == root.listdir("/").names
        with pytest.raises(Missing):
            root.read("out/secret", 100)


def test_only_files_and_folders_are_opened(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "socket"))
    with opened_root(folder) as root:
        for name in ("fifo", "socket", "etc"):
            with pytest.raises(Refused):
                root.read(name, 100)
            assert root.exists(name)
            assert not root.is_file(name)
        with pytest.raises(Missing):
            root.listdir("etc/name")


def test_names_that_no_file_can_have(folder: Path) -> None:
    with opened_root(folder) as root:
        for name in ("a\0b", "\ud800", "x" * 300, "a/" * 600 + "b"):
            with pytest.raises(RootError):
                root.read(name, 100)


def test_folders_are_read_up_to_a_limit(folder: Path) -> None:
    for index in range(10):
        (folder / f"{index}").touch()
    (folder / os.fsdecode(b"bad\xff")).touch()
    with opened_root(folder) as root:
        listing = root.listdir("/", 4)
        assert (len(listing.names), listing.cut) == (4, True)
        names = root.listdir("/").names
        assert os.fsdecode(b"bad\xff") in names
        assert root.read(os.fsdecode(b"bad\xff"), 1) == b""


def test_other_case(folder: Path) -> None:
    with opened_root(folder) as root:
        assert not root.exists("ETC/NAME")
        folding = root.ignoring_case()
        assert folding.read("ETC/Name", 100) == b"inside"
        (folder / "ETC").mkdir()
        (folder / "ETC/name").write_text("the exact one first")
        assert folding.read("ETC/name", 100) == b"the exact one first"


def test_another_file_system_in_its_place(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other/lib").mkdir(parents=True)
    (tmp_path / "other/lib/x").write_text("other")
    (tmp_path / "other/up").symlink_to("../etc/name")
    (folder / "usr").mkdir()
    (folder / "usr/hidden").touch()
    (folder / "lib").symlink_to("usr/lib")
    with opened_root(folder) as root, opened_folder(tmp_path / "other") as other:
        root.attach("/usr", other)
        assert root.read("lib/x", 100) == b"other"
        assert root.read("/usr/up", 100) == b"inside"
        assert not root.exists("usr/hidden")
        assert root.listdir("usr").names == ["lib", "up"]


NAMES = st.sampled_from(["a", "b", "c"])
TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", "", "secret"]), max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES, TARGETS, st.booleans()), max_size=12), TARGETS)
def test_no_way_leads_out(
    tmp_path_factory: pytest.TempPathFactory,
    links: list[tuple[str, str, list[str], bool]],
    path: list[str],
) -> None:
    """Whatever links there are, it is never the file outside."""
    outside = tmp_path_factory.mktemp("links")
    (outside / "secret").write_text("outside")
    folder = outside / "root"
    for first, second, target, absolute in links:
        (folder / first).mkdir(parents=True, exist_ok=True)
        place = folder / first / second
        if not place.is_symlink() and not place.exists():
            place.symlink_to(("/" if absolute else "") + "/".join(target) or ".")
    folder.mkdir(exist_ok=True)
    with opened_root(folder) as root, suppress(RootError):
        assert root.read("/".join(path), 100) != b"outside"
