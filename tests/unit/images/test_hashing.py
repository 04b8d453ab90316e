"""Hashes equal those of coreutils, whatever the holes; and none is given of less than all."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import file_content, hashing, read_ahead
from images.errors import ExportFailed, Unreadable
from images.evidence import opened as opened_file
from images.exporter import exported
from images.hashing import Cancelled, Hashing, ReadFailed, digest, digest_export

from .conftest import MIB, VARIANTS


def sha256sum(path: Path) -> str:
    done = subprocess.run(["sha256sum", "-b", path], check=True, capture_output=True, text=True)
    return done.stdout.split()[0].lstrip("\\")


def sparse(path: Path, size: int, *pieces: tuple[int, int]) -> Path:
    """A file with random data at each (offset, length) and holes between."""
    chance = random.Random(size)
    with path.open("wb") as file:
        for offset, length in pieces:
            file.seek(offset)
            file.write(chance.randbytes(length))
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    ("size", "pieces", "holes"),
    [
        (1, [(0, 1)], 0),
        (4095, [], 4095),
        (MIB, [(0, MIB)], 0),
        (MIB + 1, [(0, MIB + 1)], 0),
        (300 * MIB, [], 300 * MIB),
        (64 * MIB + 5, [(20 * MIB, 3 * MIB + 17)], None),
        (64 * MIB, [(0, 100), (64 * MIB - 100, 100)], None),
        (30 * MIB, [(n * 64 * 1024, 4096) for n in range(0, 480, 2)], None),
        (30 * MIB, [(0, 20 * MIB), (22 * MIB, 1)], None),
    ],
)
def test_same_as_sha256sum(tmp_path, size, pieces, holes):
    path = sparse(tmp_path / "disk", size, *pieces)
    done: list[int] = []
    with opened_file(path) as file:
        found = digest(file, progress=done.append)
        assert file.changes() == []
    assert found.sha256 == sha256sum(path)
    assert found.size == size
    assert found.seconds > 0
    assert done == sorted(done)
    assert done[-1] == size
    if holes is not None:
        assert found.holes == holes
    elif sum(length for _, length in pieces) < size // 2 and len(pieces) < 10:
        assert found.holes > size // 2


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.integers(1, 12 * MIB),
    pieces=st.lists(st.tuples(st.integers(0, 12 * MIB), st.integers(1, 300_000)), max_size=6),
)
def test_extents_cover_everything_once(tmp_path, size, pieces):
    path = sparse(tmp_path / "disk", size, *pieces)
    with path.open("rb") as file:
        end = 0
        for begin, stop, is_hole in file_content.extents(file.fileno(), size):
            assert begin == end < stop
            end = stop
            if is_hole:
                assert not any(os.pread(file.fileno(), stop - begin, begin))
        assert end == size
    with opened_file(path) as file:
        assert digest(file).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_offset_and_access_time_stay(tmp_path):
    path = sparse(tmp_path / "disk", 3 * MIB, (0, MIB))
    os.utime(path, (10**9, 10**9))
    with opened_file(path) as file:
        os.lseek(file.fd, 77, os.SEEK_SET)
        digest(file, drop=True)
        assert os.lseek(file.fd, 0, os.SEEK_CUR) == 77
    assert path.stat().st_atime == 10**9


def resident(path: Path) -> int:
    """Bytes of a file in the page cache, by fincore(1)."""
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", path]
    return int(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.fixture
def folder_on_a_disk():
    """Beside the project: /tmp may be kept in memory, where nothing can be dropped."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parents[3], prefix=".test-") as name:
        yield Path(name)


def test_page_cache_is_kept_or_dropped(folder_on_a_disk):
    path = sparse(folder_on_a_disk / "disk", 40 * MIB, (0, 40 * MIB))
    subprocess.run(["sync", path], check=True)  # what is not written yet cannot be dropped
    with opened_file(path) as file:
        digest(file, drop=True)
        assert resident(path) < 20 * MIB
        digest(file)
        assert resident(path) == 40 * MIB
        digest(file, drop=True)
        assert resident(path) < 4 * MIB
    assert hashing.outgrows_memory(1 << 60)
    assert not hashing.outgrows_memory(MIB)


def test_file_that_may_not_be_opened_again(tmp_path, monkeypatch):
    path = sparse(tmp_path / "disk", 3 * MIB, (0, MIB), (3 * MIB - 1, 1))
    with opened_file(path) as file, monkeypatch.context() as patch:

        def denied(*_args, **_options):
            raise PermissionError(errno.EACCES, "Permission denied")

        patch.setattr(file_content.os, "open", denied)
        found = digest(file)
    assert found.sha256 == sha256sum(path)


# --- what cannot be read ------------------------------------------------------------------------


@contextmanager
def damaged(monkeypatch, first: int, last: int):
    """As a disk with bad sectors: what lies before is delivered, then there is EIO."""
    real = os.preadv

    def preadv(descriptor, buffers, offset):
        (buffer,) = buffers
        if first <= offset <= last:
            raise OSError(errno.EIO, "Input/output error")
        room = first - offset if offset < first else len(buffer)
        return real(descriptor, [buffer[:room]], offset)

    def pread(descriptor, length, offset):
        buffer = bytearray(length)
        preadv(descriptor, [memoryview(buffer)], offset)
        return bytes(buffer)

    with monkeypatch.context() as patch:
        patch.setattr(file_content.os, "preadv", preadv)
        patch.setattr(file_content.os, "pread", pread)
        yield


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        (2 * MIB + 4096, 2 * MIB + 8191, 2 * MIB + 8191),
        (4096, 4607, 8191),
        (0, 3 * MIB - 1, MIB - 1),
    ],
)
def test_read_error_names_the_range(tmp_path, monkeypatch, first, last, told):
    path = sparse(tmp_path / "disk", 3 * MIB, (0, 3 * MIB))
    with opened_file(path) as file, damaged(monkeypatch, first, last):
        with pytest.raises(ReadFailed, match="Input/output error") as failure:
            digest(file)
        with Hashing([file]) as hashing_, pytest.raises(Unreadable, match=f"bytes {first} to"):
            hashing_.join()
    error = failure.value
    assert (error.offset, error.offset + error.length - 1) == (first, told)
    assert str(path) in str(error)
    assert f"bytes {first} to {told} " in str(error)
    assert error.hint


def test_real_read_error_of_the_kernel(tmp_path):
    """/proc/self/mem gives EIO where nothing is mapped: at 0, for instance."""
    path = sparse(tmp_path / "disk", MIB, (0, 100))
    with opened_file(path) as file:
        descriptor = os.open("/proc/self/mem", os.O_RDONLY)
        try:
            os.dup2(descriptor, file.fd)
        finally:
            os.close(descriptor)
        with pytest.raises(ReadFailed) as failure:
            digest(file)
    assert failure.value.offset == 0


@pytest.mark.parametrize("left", [0, 1, MIB, 5 * MIB - 1])
def test_shorter_file_has_no_hash(tmp_path, left):
    path = sparse(tmp_path / "disk", 5 * MIB, (0, 5 * MIB))
    with opened_file(path) as file:
        os.truncate(path, left)
        with pytest.raises(ReadFailed, match="shorter") as failure:
            digest(file)
        assert failure.value.offset == left
        assert failure.value.length == 5 * MIB - left
        assert file.changes()


def test_growing_file_is_told_afterwards(tmp_path):
    path = sparse(tmp_path / "disk", MIB, (0, MIB))
    before = sha256sum(path)
    with opened_file(path) as file:
        with path.open("ab") as more:
            more.write(b"x")
        assert digest(file).sha256 == before
        assert any("size" in change for change in file.changes())


# --- in the background --------------------------------------------------------------------------


def test_several_files_at_once(tmp_path):
    paths = [sparse(tmp_path / f"part{n}", (n + 1) * MIB + n, (n, MIB // 2)) for n in range(9)]
    with ExitStack() as stack:
        files = [stack.enter_context(opened_file(path)) for path in paths]
        with Hashing(files) as hashing_:
            seen: list[tuple[int, int]] = []
            found = hashing_.join(lambda done, total: seen.append((done, total)))
            assert hashing_.join() == found
        total = sum(path.stat().st_size for path in paths)
        assert hashing_.progress == seen[-1] == (total, total)
    assert [each.sha256 for each in found] == [sha256sum(path) for path in paths]
    assert [each.size for each in found] == [path.stat().st_size for path in paths]


def test_no_file_is_no_error():
    with Hashing([]) as hashing_:
        assert hashing_.join() == []
        assert hashing_.progress == (0, 0)


def test_other_files_are_hashed_although_one_is_damaged(tmp_path):
    good, bad = (sparse(tmp_path / name, 2 * MIB, (0, 2 * MIB)) for name in ("good", "bad"))
    with opened_file(bad) as first, opened_file(good) as second:
        os.truncate(bad, MIB)
        with Hashing([first, second]) as hashing_:
            failure, found = hashing_.outcomes()
            with pytest.raises(ReadFailed):
                hashing_.join()
    assert isinstance(failure, ReadFailed)
    assert found.sha256 == sha256sum(good)


def test_mistakes_of_ours_are_not_swallowed(tmp_path, monkeypatch):
    def broken(*_args, **_options):
        raise RuntimeError("broken")

    monkeypatch.setattr(hashing, "digest", broken)
    with (
        opened_file(sparse(tmp_path / "disk", 10, (0, 10))) as file,
        Hashing([file]) as hashing_,
        pytest.raises(RuntimeError, match="broken"),
    ):
        hashing_.join()


def test_priority_of_the_caller_stays(tmp_path):
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with (
        opened_file(sparse(tmp_path / "disk", 10, (0, 10))) as file,
        Hashing([file]) as hashing_,
    ):
        hashing_.join()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("pieces", [[], [(0, 200 * MIB)]])
def test_leaving_ends_everything_at_once(tmp_path, pieces):
    path = sparse(tmp_path / "disk", 1 << 40, *pieces)
    with opened_file(path) as file:
        hashing_ = Hashing([file, file])
        with hashing_:
            time.sleep(0.1)
            begin = time.monotonic()
        assert time.monotonic() - begin < 0.2
        assert not {"hashing", "read ahead"} & set(threads())
        assert 0 < hashing_.progress[0] < hashing_.progress[1]
        with pytest.raises(Cancelled):
            hashing_.join()


@pytest.mark.parametrize("as_event", [True, False])
def test_stop_ends_a_digest_at_once(tmp_path, as_event):
    event = threading.Event()
    with opened_file(sparse(tmp_path / "disk", 1 << 40)) as file:
        threading.Timer(0.1, event.set).start()
        begin = time.monotonic()
        with pytest.raises(Cancelled):
            digest(file, stop=event if as_event else event.is_set)
    assert time.monotonic() - begin < 0.3


INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
from images.evidence import opened
from images.hashing import Hashing
with opened(Path(sys.argv[1])) as file:
    try:
        with Hashing([file]) as hashing:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            hashing.join()
    except KeyboardInterrupt:
        print("interrupted", threading.active_count())
"""


def test_interrupt_ends_the_wait(tmp_path):
    path = sparse(tmp_path / "disk", 1 << 40)
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, path],
        env={**os.environ, "PYTHONPATH": str(Path(hashing.__file__).parents[1])},
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout.split()[0] == "interrupted"
    assert done.stderr == ""
    assert time.monotonic() - begin < 3


def test_reader_that_hangs_in_the_kernel_is_left_behind(tmp_path, monkeypatch):
    release = threading.Event()

    def hanging(*_args):
        release.wait(20)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(file_content.os, "preadv", hanging)
    monkeypatch.setattr(read_ahead, "_PATIENCE", 0.2)
    monkeypatch.setattr(hashing, "_PATIENCE", 0.2)
    with opened_file(sparse(tmp_path / "disk", MIB, (0, MIB))) as file:
        begin = time.monotonic()
        with Hashing([file]):
            time.sleep(0.05)
        assert time.monotonic() - begin < 1
    release.set()


# --- the content of an export -------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_content_of_an_export(name, variants, disk, opened, run_folder):
    image = opened(variants[name])
    done: list[int] = []
    with exported(image.plan, run_folder, name="disk0") as export:
        found = digest_export(
            export.socket, export.name, export.size, path=image.path, progress=done.append
        )
    assert found.digests == {"sha256": sha256sum(disk)}
    assert found.size == done[-1] == disk.stat().st_size
    assert done == sorted(done)
    assert found.holes <= 38 * MIB
    if name in {"qcow2-v3", "vmdk-sparse"}:
        assert found.holes > 30 * MIB


def test_algorithms_are_the_callers_choice(variants, disk, opened, run_folder):
    image = opened(variants["qcow2-v3"])
    with exported(image.plan, run_folder, name="disk0") as export:
        found = digest_export(
            export.socket, "disk0", export.size, path=image.path,
            algorithms=("md5", "sha1", "sha256"),
        )  # fmt: skip
        with pytest.raises(ValueError, match="algorithms"):
            digest_export(export.socket, "disk0", export.size, path=image.path, algorithms=())
    content = disk.read_bytes()
    assert found.digests == {
        name: hashlib.new(name, content).hexdigest() for name in ("md5", "sha1", "sha256")
    }


def test_large_disk_of_zeros_costs_no_reading(tmp_path, opened, run_folder):
    path = tmp_path / "large.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, f"{1 << 31}"], check=True)
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 1G 64k", path]
    subprocess.run(write, check=True, capture_output=True)
    image = opened(path)
    with exported(image.plan, run_folder, name="disk0") as export:
        found = digest_export(export.socket, "disk0", export.size, path=path)
        begin = time.monotonic()
        with pytest.raises(Cancelled):
            digest_export(export.socket, "disk0", export.size, path=path, stop=lambda: True)
        assert time.monotonic() - begin < 0.3
    assert found.holes >= (1 << 31) - MIB
    expected = hashlib.sha256()
    zeros = bytes(MIB)
    for block in range(2048):
        expected.update(b"\7" * 65536 + zeros[65536:] if block == 1024 else zeros)
    assert found.digests["sha256"] == expected.hexdigest()


def test_damaged_image_has_no_hash(tmp_path, opened, run_folder):
    """A compressed cluster whose stream is none: QEMU answers EIO."""
    path = tmp_path / "cut.qcow2"
    raw = sparse(tmp_path / "raw", 8 * MIB, (0, 8 * MIB))
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", raw, path], check=True)
    content = bytearray(path.read_bytes())
    table = int.from_bytes(content[40:48], "big")
    second = int.from_bytes(content[table : table + 8], "big") & 0x00FFFFFFFFFFFE00
    entry = second + 8 * 40
    content[entry : entry + 8] = ((1 << 62) | 4096).to_bytes(8, "big")
    path.write_bytes(content)
    image = opened(path)
    with (
        exported(image.plan, run_folder, name="disk0") as export,
        pytest.raises(ReadFailed, match="of the disk could not be read") as failure,
    ):
        digest_export(export.socket, "disk0", export.size, path=path)
    assert failure.value.offset <= 40 * 65536 < failure.value.offset + failure.value.length


def test_wrong_name_or_size_is_refused(variants, opened, run_folder):
    image = opened(variants["qcow2-v3"])
    with exported(image.plan, run_folder, name="disk0") as export:
        with pytest.raises(ExportFailed, match="refused option") as failure:
            digest_export(export.socket, "disk1", export.size, path=image.path)
        assert failure.value.hint
        with pytest.raises(ExportFailed, match="bytes, expected were"):
            digest_export(export.socket, "disk0", export.size + 512, path=image.path)
    with pytest.raises(ExportFailed, match="cannot be reached"):
        digest_export(export.socket, "disk0", export.size, path=image.path)
