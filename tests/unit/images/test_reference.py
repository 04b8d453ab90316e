"""Where a reference found in an image may lead, and what is said when it may not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from images import evidence, reference
from images.errors import Ambiguous, ImageError, PolicyViolation, Unreadable
from images.evidence import EvidenceFile
from images.reference import MAX_NAME, Found, Reach, opened_reference

from .conftest import listing


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[EvidenceFile]:
    """An image in case/, beside it a base; a second base in allowed/deep/, a secret outside."""
    for folder in ("case/sub", "allowed/deep", "outside", "case-2"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("case/image", "case/base", "case/sub/base", "allowed/deep/other",
                 "allowed/deep/base", "outside/secret", "case-2/sibling"):  # fmt: skip
        (tmp_path / name).write_text(name)
    with evidence.opened(tmp_path / "case/image") as file:
        yield file


def find(owner: EvidenceFile, name: str | bytes, *folders: Path) -> tuple[str, bool]:
    """What is in the file that was found, and whether it was elsewhere."""
    with opened_reference(owner, os.fsencode(name), "backing file", Reach.into(folders)) as found:
        assert isinstance(found, Found)
        return found.file.read(0, 100).decode(), found.moved


def refusal(owner: EvidenceFile, name: str | bytes, *folders: Path) -> ImageError:
    before = listing("/proc/self/fd")
    with pytest.raises(ImageError) as failure:
        find(owner, name, *folders)
    assert listing("/proc/self/fd") == before
    assert str(failure.value).isprintable()
    return failure.value


BESIDE = {
    "base": False,
    "./base": False,
    "sub/../base": False,
    "../case/base": False,
    "{root}/case/base": False,
    "{root}/case/sub/../base": False,
    "{root}/elsewhere/base": True,
    "/vmfs/volumes/ds/vm/base": True,
    "C:\\VMs\\base": True,
    "c:/VMs/base": True,
    "\\\\server\\share\\base": True,
    "\\VMs\\base": True,
    ".\\base": False,
    "sub\\..\\base": False,
    "../base": True,
    "..\\base": True,
    "sub/base": True,
    "sub\\base": True,
    "/base": True,
    "/etc/../base": True,
}


@pytest.mark.parametrize("name", BESIDE)
def test_beside_the_owner(name: str, owner: EvidenceFile, tmp_path: Path) -> None:
    assert find(owner, name.format(root=tmp_path)) == ("case/base", BESIDE[name])


ALLOWED = {
    "other": True,
    "deep/other": True,
    "../allowed/deep/other": False,
    "..\\allowed\\deep\\other": False,
    "{root}/allowed/deep/other": False,
    "/gone/deep/other": True,
    "D:\\old\\deep\\other": True,
    "D:\\old\\other": True,
}


@pytest.mark.parametrize("name", ALLOWED)
def test_in_an_allowed_folder(name: str, owner: EvidenceFile, tmp_path: Path) -> None:
    name = name.format(root=tmp_path)
    allowed = tmp_path / "allowed"
    assert find(owner, name, allowed) == ("allowed/deep/other", ALLOWED[name.replace(
        str(tmp_path), "{root}")])  # fmt: skip
    assert isinstance(refusal(owner, name), PolicyViolation | Unreadable)


def test_exact_place_before_all_others(owner: EvidenceFile, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    assert find(owner, f"{allowed}/deep/base", allowed) == ("allowed/deep/base", False)
    assert find(owner, "base", allowed) == ("case/base", False)
    assert find(owner, "/x/deep/base", allowed) == ("case/base", True)
    (tmp_path / "case/base").unlink()
    assert find(owner, "/x/deep/base", allowed) == ("allowed/deep/base", True)


PROTOCOLS = [
    'json:{"driver":"file","filename":"/etc/passwd"}',
    "json:",
    "nbd://127.0.0.1/x",
    "nbd+unix:///x?socket=/run/x",
    "nbd:127.0.0.1:10809",
    "http://127.0.0.1/x",
    "https://x/y",
    "ftp://x/y",
    "ssh://x/y",
    "file:/etc/passwd",
    "file:base",
    "FILE:base",
    "fat:/etc",
    "fat:rw:sub",
    "host_device:/dev/sda",
    "host_cdrom:/dev/sr0",
    "blkdebug::base",
    "blkverify:base:base",
    "null-co://",
    "fd:3",
    "rbd:pool/image",
    "iscsi://x/y/0",
    "gluster+tcp://x/y",
    "vvfat:base",
    "raw:base",
    "C:base",
    "a-b.c+d:base",
]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols(name: str, owner: EvidenceFile, tmp_path: Path) -> None:
    """Refused by their form; a file that has such a name is not opened either."""
    if "/" not in name:
        (tmp_path / "case" / name).write_text("trap")
    for folders in ((), (tmp_path,)):
        error = refusal(owner, name, *folders)
        assert isinstance(error, PolicyViolation)
        assert "protocol" in str(error)
        assert error.hint


def test_name_with_a_colon_is_found_by_a_path(owner: EvidenceFile, tmp_path: Path) -> None:
    (tmp_path / "case/a:b").write_text("colon")
    assert find(owner, "./a:b") == ("colon", False)


@pytest.mark.parametrize("name", [b"", b"base\0", b"\0", b"base\0/etc/passwd", b"x" * 1024])
def test_names_that_no_file_has(name: bytes, owner: EvidenceFile) -> None:
    assert isinstance(refusal(owner, name), PolicyViolation)


def test_longest_name(owner: EvidenceFile) -> None:
    assert find(owner, b"./" * ((MAX_NAME - 4) // 2) + b"base") == ("case/base", False)
    assert "too long" in str(refusal(owner, b"./" * (MAX_NAME // 2) + b"base"))
    assert "name too long" in str(refusal(owner, b"x" * 300)).lower()


OUTSIDE = [
    "{root}/outside/secret",
    "../outside/secret",
    "../../../../../../../../etc/hostname",
    "sub/../../outside/secret",
    "../case-2/sibling",
    "{root}/case-2/sibling",
    "{root}/case/../outside/secret",
    "..\\outside\\secret",
    "/proc/self/environ",
    "/dev/zero",
    "/dev/stdin",
    "link",
    "folder/secret",
    "dangling",
    "chain",
    "proc",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside(name: str, owner: EvidenceFile, tmp_path: Path) -> None:
    case = tmp_path / "case"
    (case / "link").symlink_to("../outside/secret")
    (case / "folder").symlink_to(tmp_path / "outside")
    (case / "dangling").symlink_to("/nonexistent/secret")
    (case / "chain").symlink_to("link")
    (case / "proc").symlink_to(f"/proc/{os.getpid()}/environ")
    for folders in ((), (tmp_path / "allowed",)):
        error = refusal(owner, name.format(root=tmp_path), *folders)
        assert isinstance(error, PolicyViolation)
        assert "outside of the folders" in str(error)
        assert "--allow-dir" in error.hint


@pytest.mark.parametrize("name", [".", "..", "./", "/", "sub", "sub/", "{root}/case", "sub/.."])
def test_folders(name: str, owner: EvidenceFile, tmp_path: Path) -> None:
    assert isinstance(refusal(owner, name.format(root=tmp_path)), PolicyViolation)


def test_special_files(owner: EvidenceFile, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "case/fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "case/socket"))
    for name, kind in (("fifo", "a named pipe"), ("socket", "a socket")):
        error = refusal(owner, name)
        assert isinstance(error, PolicyViolation)
        assert kind in str(error)
        assert str(owner.path) in str(error)


def test_links_inside_are_followed(owner: EvidenceFile, tmp_path: Path) -> None:
    (tmp_path / "case/link").symlink_to("base")
    (tmp_path / "case/far").symlink_to(tmp_path / "allowed/deep/other")
    assert find(owner, "link") == ("case/base", False)
    assert isinstance(refusal(owner, "far"), PolicyViolation)
    assert find(owner, "far", tmp_path / "allowed") == ("allowed/deep/other", False)
    (tmp_path / "case/below").symlink_to("sub/base")  # a folder below is not the folder
    assert isinstance(refusal(owner, "below"), PolicyViolation)


def test_missing(owner: EvidenceFile, tmp_path: Path) -> None:
    error = refusal(owner, "gone")
    assert isinstance(error, Unreadable)
    assert f"{tmp_path}/case/gone: does not exist" in str(error)
    assert "--allow-dir" in error.hint


def test_several_of_one_name(owner: EvidenceFile, tmp_path: Path) -> None:
    (tmp_path / "case/base").unlink()
    (tmp_path / "allowed/again").mkdir()
    (tmp_path / "allowed/again/base").write_text("another")
    error = refusal(owner, "/x/base", tmp_path / "allowed")
    assert isinstance(error, Ambiguous)
    assert "again/base" in str(error)
    assert "deep/base" in str(error)
    assert find(owner, "/x/again/base", tmp_path / "allowed") == ("another", True)


def test_search_takes_no_links_and_has_an_end(
    owner: EvidenceFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "deep/secret").symlink_to(tmp_path / "outside/secret")
    (allowed / "linked").symlink_to(tmp_path / "outside")
    assert isinstance(refusal(owner, "/x/secret", allowed), PolicyViolation)
    monkeypatch.setattr(reference, "_MAX_SEARCHED", 1)
    assert isinstance(refusal(owner, "/x/other", allowed), PolicyViolation)


def test_file_that_goes_away_during_the_search(
    owner: EvidenceFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.lstat

    def gone(path: Path) -> os.stat_result:
        if Path(path).name == "other":
            raise FileNotFoundError(2, "No such file or directory")
        return real(path)

    monkeypatch.setattr(reference.os, "lstat", gone)
    assert isinstance(refusal(owner, "/x/other", tmp_path / "allowed"), PolicyViolation)


@pytest.mark.parametrize("name", ["gone", "file"])
def test_reach_must_be_folders(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unreadable, match=r"not exist|not a folder"):
        Reach.into([tmp_path / name])


def test_owner_behind_a_link_has_its_real_folder(owner: EvidenceFile, tmp_path: Path) -> None:
    """The user's link lies in outside/; what is beside the link does not count."""
    (tmp_path / "outside/link").symlink_to("../case/image")
    with ExitStack() as stack:
        linked = stack.enter_context(evidence.opened(tmp_path / "outside/link"))
        assert isinstance(refusal(linked, "secret"), Unreadable)
        # An absolute name is taken as the user sees it, too.
        assert find(linked, str(tmp_path / "outside/base")) == ("case/base", False)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", b"\x1b[31m", "\u202e".encode(), b"a\\b"])
def test_odd_names(name: bytes, owner: EvidenceFile, tmp_path: Path) -> None:
    """Opened where they are; escaped where they are shown."""
    refusal(owner, name)
    (tmp_path / "case" / os.fsdecode(name)).write_text("odd")
    assert find(owner, name) == ("odd", False)
    refusal(owner, b"../outside/" + name + b"secret")
