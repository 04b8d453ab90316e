"""Files that get their name at the end, or never."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller import new_files
from controller.errors import EnvironmentFailed, UsageError
from controller.new_files import new_file, refuse_existing
from controller.sizes import parsed


@pytest.fixture(params=[True, False], ids=["unnamed", "partial"])
def unnamed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(new_files, "_unnamed", lambda _folder: None)
    return bool(request.param)


def test_kept(tmp_path: Path, unnamed: bool) -> None:
    with new_file(tmp_path, "x") as file:
        os.write(file.descriptor, b"content")
        names = [each.name for each in tmp_path.iterdir()]
        assert names == ([] if unnamed else ["x.partial"])
        assert os.pread(file.readable, 10, 0) == b"content"
        with pytest.raises(OSError, match="Bad file"):
            os.write(file.readable, b"x")
        file.keep(tmp_path / "x")
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"content"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("unnamed")
def test_not_kept_and_never_over_another(tmp_path: Path) -> None:
    with new_file(tmp_path, "x"):
        pass
    assert list(tmp_path.iterdir()) == []
    with new_file(tmp_path, "x") as file:
        (tmp_path / "x").write_bytes(b"theirs")
        with pytest.raises(EnvironmentFailed, match="File exists"):
            file.keep(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"theirs"
    with pytest.raises(EnvironmentFailed), new_file(tmp_path / "none", "x"):
        pass


def test_refused(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("/nowhere")
    for path in (tmp_path / "dangling", tmp_path, tmp_path / "no/file"):
        with pytest.raises(UsageError):
            refuse_existing("--output", path)
    refuse_existing("--output", tmp_path / "new")


def test_sizes() -> None:
    assert [parsed(each) for each in ("512", "1K", "512M", "4G", "1.5T", "2 GiB", "3mb")] == [
        *(512, 1024, 512 << 20, 4 << 30, 3 << 39, 2 << 30, 3 << 20)
    ]
    for wrong in ("", "-1", "4X", "1e9", "G", "1" * 20):
        with pytest.raises(ValueError, match="not a size"):
            parsed(wrong)
