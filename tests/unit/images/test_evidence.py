"""One file: what may be opened, and how a change is noticed."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import pytest

from images import evidence
from images.errors import ImageError, MalformedImage, Unreadable
from images.reference import Reach, opened_reference

from .conftest import listing


def refusal(path) -> ImageError:
    with pytest.raises(ImageError) as failure, evidence.opened(path):
        pass
    assert str(path) in str(failure.value)
    assert failure.value.hint
    return failure.value


def test_reads_are_bounded(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with evidence.opened(path) as file:
        assert file.read(8, 100) == b"89"
        assert file.read(100, 1) == b""
        for offset, length in ((-1, 1), (0, -1), (0, evidence.MAX_READ + 1)):
            with pytest.raises(MalformedImage):
                file.read(offset, length)
        with pytest.raises(ImageError):
            file.read(1 << 70, 1)


def test_kinds_that_are_no_image(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    expected = {
        "fifo": "named pipe",
        "empty": "empty",
        "loop": "link",
        "socket": "a socket",
        "missing": "does not exist",
        ".": "a folder",
        "file\0name": "null",
    }
    for name, reason in expected.items():
        with pytest.raises(Unreadable, match=reason), evidence.opened(tmp_path / name):
            pass
    assert "character device" in str(refusal("/dev/null"))


def test_permission_is_named(monkeypatch, tmp_path):
    (tmp_path / "disk").write_bytes(b"x")

    def denied(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(evidence.os, "open", denied)
    assert "may not be read" in str(refusal(tmp_path / "disk"))


def test_unchanged_and_each_change(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 1000)
    with evidence.opened(path) as file:
        assert file.changes() == []
        path.open("ab").write(b"y")
        changes = file.changes()
    assert "open file: size in bytes was 1000, is 1001" in changes
    assert any(line.startswith("path: modification time") for line in changes)
    assert any("status change time" in line for line in changes)


def test_replaced_and_removed_file(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"x")
    other = tmp_path / "other"
    other.write_bytes(b"x")
    with evidence.opened(path) as file:
        other.rename(path)
        assert any(line.startswith("path: inode was") for line in file.changes())
        path.unlink()
        assert any("no longer accessible" in line for line in file.changes())


def test_link_of_the_user_is_followed_and_watched(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode())
    link = tmp_path / "link"
    link.symlink_to("one")
    with evidence.opened(link) as file:
        assert file.read(0, 10) == b"one"
        assert file.changes() == []
        link.unlink()
        link.symlink_to("two")
        assert file.changes() == ["path: the name as given now leads to another file"]


def test_descriptors_are_closed(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"x")
    before = len(listing("/proc/self/fd"))
    with ExitStack() as stack:
        owner = stack.enter_context(evidence.opened(path))
        stack.enter_context(opened_reference(owner, b"disk", "extent", Reach()))
    assert len(listing("/proc/self/fd")) == before
