"""Hashes beside the analysis: of files and disks, right, complete, and compared at the end."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from controller.errors import EvidenceRefused, UsageError
from controller.integrity import Integrity, refuse_writers
from controller.keys import Key
from controller.settings import Settings
from images.errors import Locked
from images.hashing import ExportHash, FileHash, ReadFailed
from images.image import Image, open_image
from tests.builders.locked import make_locked

MIB = 1 << 20


def silent(_operation: str, _done: int, _total: int) -> None:
    pass


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def content() -> bytes:
    return (b"start" + bytes(MIB)).ljust(4 * MIB, b"\0") + b"end".ljust(MIB, b"x")


@pytest.fixture
def overlay(tmp_path: Path, content: bytes, stack: ExitStack) -> Image:
    """A qcow2 on a raw file."""
    base = tmp_path / "base.raw"
    base.write_bytes(content)
    top = tmp_path / "top.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
    return open_image(top, stack=stack)


def test_files(overlay: Image) -> None:
    with Integrity([overlay], Settings(), silent) as integrity:
        found = integrity.files()
        assert integrity.disks() == [None]
    assert len(found) == 2
    for file in overlay.files:
        outcome = found[file.fd]
        assert isinstance(outcome, FileHash)
        assert outcome.sha256 == sha256(file.path.read_bytes())


def test_disks(overlay: Image, content: bytes) -> None:
    seen: list[tuple[str, int, int]] = []
    with Integrity([overlay], Settings(hash="all"), lambda *now: seen.append(now)) as integrity:
        (outcome,) = integrity.disks()
    assert isinstance(outcome, ExportHash)
    assert outcome.digests["sha256"] == sha256(content)
    assert all(total == len(content) for name, _, total in seen if name == "hash the disks")


def test_none(overlay: Image) -> None:
    with Integrity([overlay], Settings(hash="none"), silent) as integrity:
        assert integrity.files() == {}
        assert integrity.disks() == [None]


def test_locked_disk(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "locked.qcow2"
    make_locked(path, "word")
    image = open_image(path, stack=stack)
    for keys, kind in (((), Locked), ((Key("disk0", b"word"),), ExportHash)):
        with Integrity([image], Settings(hash="all", keys=keys), silent) as integrity:
            (outcome,) = integrity.disks()
        assert isinstance(outcome, kind)


def test_differences(overlay: Image) -> None:
    """The content is other, and everything that fstat tells is as before."""
    with Integrity([overlay], Settings(verify=True), silent) as integrity:
        integrity.files()
        assert integrity.differences() == []
        base = overlay.files[1].path
        times = base.stat()
        with base.open("r+b") as file:
            file.write(b"S")
        os.utime(base, ns=(times.st_atime_ns, times.st_mtime_ns))
        (difference,) = integrity.differences()
    assert str(base) in difference
    assert sha256(base.read_bytes()) in difference


def test_shorter_file(overlay: Image) -> None:
    base = overlay.files[1]
    with Integrity([overlay], Settings(verify=True), silent) as integrity:
        integrity.files()
        os.truncate(base.path, 4096)
        (difference,) = integrity.differences()
    assert "no more" in difference


def test_unreadable_file_has_no_hash(overlay: Image) -> None:
    os.truncate(overlay.files[1].path, 4096)
    with Integrity([overlay], Settings(), silent) as integrity:
        found = integrity.files()
    assert isinstance(found[overlay.files[1].fd], ReadFailed)


def test_leaving_ends_the_work(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "large.raw"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.write(b"x")
    image = open_image(path, stack=stack)
    with Integrity([image], Settings(hash="all"), silent):
        time.sleep(0.3)
        begin = time.monotonic()
    assert time.monotonic() - begin < 2


def test_writers_are_refused() -> None:
    refuse_writers([])
    with pytest.raises(EvidenceRefused, match="somebody") as caught:
        refuse_writers(["process 7 has it open"])
    assert "--live" in caught.value.hint
    assert "process 7" in caught.value.message


def test_nothing_to_compare() -> None:
    with pytest.raises(UsageError, match="--verify"):
        Settings(hash="none", verify=True)
