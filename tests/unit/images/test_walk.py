"""Paths followed by hand: never out of the given folders, whatever the links say."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from images import walk as module
from images.walk import Outside, Root, anchored, walk

from .conftest import listing


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Root, Root]:
    """Two folders that may be entered, `one` also known as `alias`, and one that may not."""
    for name in ("one", "two", "outside", "one-more"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "one/sub/deep").mkdir(parents=True)
    (tmp_path / "one/sub/file").write_text("one/sub")
    (tmp_path / "alias").symlink_to("one")
    one = Root(tmp_path / "alias", tmp_path / "one")
    return one, Root(tmp_path / "two", tmp_path / "two")


def found(roots: Sequence[Root], path: str, start: int = 0) -> tuple[Path, str]:
    """Where the path ends, and what is in the file."""
    descriptor, resolved = walk(roots[start], path.split("/"), roots)
    try:
        assert Path(f"/proc/self/fd/{descriptor}").readlink() == resolved
        return resolved, Path(f"/proc/self/fd/{descriptor}").read_text()
    finally:
        os.close(descriptor)


INSIDE = {
    "file": "one",
    "./file": "one",
    ".//./file": "one",
    "file/": "one",
    "file/.": "one",
    "sub/file": "one/sub",
    "sub/../file": "one",
    "sub/deep/../../sub/./file": "one/sub",
    "../one/file": "one",
    "../two/file": "two",
    "sub/deep/../../../two/file": "two",
    "../two/../one/sub/../file": "one",
}


@pytest.mark.parametrize("path", INSIDE)
def test_inside(path: str, roots: tuple[Root, Root]) -> None:
    assert found(roots, path)[1] == INSIDE[path]


OUTSIDE = [
    "..",
    "../",
    "../file",
    "../outside/file",
    "../one-more/file",
    "../../file",
    "sub/../../outside/file",
    "../two/../outside/file",
    "../outside/../one/file",
    "../outside/../two/file",
    "../" * 200 + "etc/passwd",
    "../one/../outside/file",
    "../alias/../outside/file",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_outside(path: str, roots: tuple[Root, Root]) -> None:
    with pytest.raises(Outside):
        found(roots, path)


ERRORS = {
    "gone": errno.ENOENT,
    "gone/file": errno.ENOENT,
    "sub/gone": errno.ENOENT,
    "file/x": errno.ENOTDIR,
    "": errno.EISDIR,
    ".": errno.EISDIR,
    "./": errno.EISDIR,
    "sub/..": errno.EISDIR,
    "../one": errno.EISDIR,
    "n" * 300: errno.ENAMETOOLONG,
}


@pytest.mark.parametrize("path", ERRORS)
def test_errors(path: str, roots: tuple[Root, Root]) -> None:
    with pytest.raises((OSError, Outside)) as failure:
        found(roots, path)
    if path != "../one":  # a folder itself is not below itself
        assert failure.value.errno == ERRORS[path]


def test_folder_is_returned_as_what_it_is(roots: tuple[Root, Root]) -> None:
    descriptor, resolved = walk(roots[0], ["sub"], roots)
    assert stat.S_ISDIR(os.fstat(descriptor).st_mode)
    assert resolved == roots[0].real / "sub"
    os.close(descriptor)


LINKS_INSIDE = {
    "file": "one",
    "sub/file": "one/sub",
    "{root}/one/file": "one",
    "{root}/alias/sub/file": "one/sub",
    "{root}/two/file": "two",
    "../two/file": "two",
    "sub/deep/../../file": "one",
    "{root}/one/sub/deep/../file": "one/sub",
}


@pytest.mark.parametrize("target", LINKS_INSIDE)
def test_links_inside(target: str, roots: tuple[Root, Root], tmp_path: Path) -> None:
    (tmp_path / "one/link").symlink_to(target.format(root=tmp_path))
    assert found(roots, "link")[1] == LINKS_INSIDE[target]
    (tmp_path / "two/again").symlink_to("../one/link")
    assert found(roots, "again", start=1)[1] == LINKS_INSIDE[target]


LINKS_OUTSIDE = [
    "/etc/passwd",
    "{root}/outside/file",
    "../outside/file",
    "../one-more/file",
    "{root}/one-more/file",
    "{root}/one/../outside/file",
    "{root}/one/sub/../../../etc/passwd",
    "{root}/outside/../one/file",
    "sub/../../outside/file",
    "/",
    "..",
    "/proc/self/cwd/file",
    "/proc/self/root/etc/passwd",
    "/dev/fd/0",
]


@pytest.mark.parametrize("target", LINKS_OUTSIDE)
def test_links_outside(target: str, roots: tuple[Root, Root], tmp_path: Path) -> None:
    (tmp_path / "one/link").symlink_to(target.format(root=tmp_path))
    for path in ("link", "sub/../link", "../one/link"):
        with pytest.raises(Outside):
            found(roots, path)


def test_folders_that_are_links(roots: tuple[Root, Root], tmp_path: Path) -> None:
    (tmp_path / "one/out").symlink_to("../outside")
    (tmp_path / "one/over").symlink_to(tmp_path / "two")
    (tmp_path / "one/down").symlink_to("sub")
    with pytest.raises(Outside):
        found(roots, "out/file")
    with pytest.raises(Outside):
        found(roots, "out/../file")
    assert found(roots, "over/file") == (tmp_path / "two/file", "two")
    assert found(roots, "down/file") == (tmp_path / "one/sub/file", "one/sub")
    # As the kernel does: the parent of where the link leads, not of the link.
    assert found(roots, "down/deep/../../file")[1] == "one"
    assert found(roots, "over/../one/file")[1] == "one"


def test_chains_of_links(roots: tuple[Root, Root], tmp_path: Path) -> None:
    previous = "file"
    for number in range(41):
        (tmp_path / "one" / str(number)).symlink_to(previous)
        previous = str(number)
    assert found(roots, "39")[1] == "one"
    with pytest.raises(OSError, match="symbolic links"):
        found(roots, "40")


@pytest.mark.parametrize("target", ["loop", "./loop", "loop/x", "../one/loop", "sub/../loop"])
def test_loops_of_links_end(target: str, roots: tuple[Root, Root], tmp_path: Path) -> None:
    (tmp_path / "one/loop").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        found(roots, "loop")


def test_growing_links_end_and_close_everything(roots: tuple[Root, Root], tmp_path: Path) -> None:
    """Each of the forty links adds more parts than a process may have descriptors."""
    (tmp_path / "one/long").symlink_to("sub/../" * 500 + "long")
    before = listing("/proc/self/fd")
    with pytest.raises(OSError):  # noqa: PT011 - too many links, or too many open files
        found(roots, "long")
    assert listing("/proc/self/fd") == before


def test_descriptors_are_closed(roots: tuple[Root, Root]) -> None:
    before = listing("/proc/self/fd")
    for path in (*INSIDE, *OUTSIDE, *ERRORS):
        with contextlib.suppress(OSError, Outside):
            found(roots, path)
    assert listing("/proc/self/fd") == before


def test_nothing_outside_is_asked_for(
    roots: tuple[Root, Root], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each single step starts in a folder inside, with a name that is no path."""
    (tmp_path / "one/link").symlink_to(tmp_path / "outside/file")
    (tmp_path / "one/out").symlink_to("../outside")
    real = os.open

    def watched(name: str | Path, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if dir_fd is None:
            assert name in {root.real for root in roots}
        else:
            assert "/" not in str(name)
            assert str(name) not in ("", ".", "..")
            folder = Path(f"/proc/self/fd/{dir_fd}").readlink()
            assert any(folder.is_relative_to(root.real) for root in roots)
        assert flags & os.O_PATH
        return real(name, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(module.os, "open", watched)
    for path in (*INSIDE, *OUTSIDE, "link", "out/file", "out/../file", "sub/../link"):
        with contextlib.suppress(OSError, Outside):
            os.close(walk(roots[0], path.split("/"), roots)[0])


def test_swapped_while_it_is_walked(
    roots: tuple[Root, Root], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that becomes a link after it was looked at: the one that was opened counts."""
    real = os.fstat

    def swapping(descriptor: int) -> os.stat_result:
        if (tmp_path / "one/sub").is_dir() and not (tmp_path / "one/sub").is_symlink():
            (tmp_path / "one/sub").rename(tmp_path / "one/moved")
            (tmp_path / "one/sub").symlink_to("../outside")
        return real(descriptor)

    monkeypatch.setattr(module.os, "fstat", swapping)
    descriptor, _ = walk(roots[0], ["sub", "file"], roots)
    monkeypatch.undo()
    assert Path(f"/proc/self/fd/{descriptor}").read_text() == "one/sub"
    os.close(descriptor)


def test_anchored(roots: tuple[Root, Root], tmp_path: Path) -> None:
    parts = [*tmp_path.parts[1:]]
    assert anchored(["", *parts, "one", "file"], roots) == (roots[0], ["file"])
    assert anchored(["", *parts, "", "alias", ".", "a", "b"], roots) == (roots[0], ["a", "b"])
    for outside in (["one"], ["one", "."], ["one-more", "file"], ["ONE", "file"], []):
        with pytest.raises(Outside):
            anchored(["", *parts, *outside], roots)
    assert anchored(["", "etc"], (Root(Path("/"), Path("/")),))[1] == ["etc"]
