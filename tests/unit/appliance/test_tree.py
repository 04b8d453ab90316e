"""Trees of files before and after a repair."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.agent.fsck import tree
from appliance.repair import Change


def test_every_difference(tmp_path: Path) -> None:
    for name in ("same", "content", "mode", "gone"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/\udcff").write_bytes(b"x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for each in tmp_path.rglob("*"):
        os.utime(each, (1, 1), follow_symlinks=False)
    before = tree.walk(tmp_path, 60)
    (tmp_path / "content").write_bytes(b"2")
    (tmp_path / "mode").chmod(0o777)
    (tmp_path / "gone").unlink()
    (tmp_path / "new").mkdir()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("/etc/shadow")
    for each in tmp_path.rglob("*"):
        os.utime(each, (1, 1), follow_symlinks=False)
    after = tree.walk(tmp_path, 60)
    found = list(tree.differences(before, after))
    assert [(path, change) for path, change, _ in found] == [
        (b"/content", Change.CHANGED),
        (b"/gone", Change.REMOVED),
        (b"/link", Change.CHANGED),
        (b"/mode", Change.CHANGED),
        (b"/new", Change.ADDED),
    ]
    assert [what for _, _, what in found] == [["content"], [], ["target"], ["mode"], []]
    assert b"/folder/\xff" in before.entries
    assert tree.is_compared(before, after)


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path
    for _ in range(tree.MAX_DEPTH + 3):
        deep /= "d"
    deep.mkdir(parents=True)
    whole = tree.walk(tmp_path, 60)
    assert whole.is_cut
    assert len(whole.entries) == tree.MAX_DEPTH + 1
    monkeypatch.setattr(tree, "MAX_ENTRIES", 5)
    assert len(tree.walk(tmp_path, 60).entries) == 5
    assert tree.walk(tmp_path, -1).is_cut


def test_what_could_not_be_read_is_not_called_new() -> None:
    entry = tree.Entry((1, 2, 3, 4, 5, b""), None, is_file=False)
    before = tree.Tree({}, {b"/a", b"/b"})
    after = tree.Tree({b"/a": entry, b"/a/x": entry, b"/c": entry})
    assert list(tree.differences(before, after)) == [
        (b"/a", Change.CHANGED, ["readable"]),
        (b"/b", Change.REMOVED, []),
        (b"/c", Change.ADDED, []),
    ]
    cut = tree.Tree({}, is_cut=True)
    assert list(tree.differences(cut, after)) == []


def test_large_contents_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_HASHED", 3)
    (tmp_path / "a").write_bytes(b"1234")
    found = tree.walk(tmp_path, 60)
    assert found.entries[b"/a"].digest is None
    assert not tree.is_compared(found, found)
