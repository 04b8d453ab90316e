"""A key is nowhere but where it is used: not in output, logs, files, saved states, or processes."""

from __future__ import annotations

import base64
import mmap
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.store import Store
from tests.builders.luks import make_luks
from tests.guest.conftest import FORENSIC, wait_for

MIB = 1 << 20

pytestmark = pytest.mark.timeout(1200)
QEMU = "guest=forensic"


class Needle:
    """A key that is found wherever it is: as it is, in base64 at any alignment, in hexadecimal."""

    def __init__(self) -> None:
        self.word = secrets.token_hex(24).encode()
        self._forms = [self.word, self.word.hex().encode()]
        for shift in range(3):
            # The middle does not depend on what stands before and behind it.
            self._forms.append(base64.b64encode(bytes(shift) + self.word)[4:-4])

    def is_in(self, data: bytes | mmap.mmap) -> bool:
        return any(data.find(form) >= 0 for form in self._forms)

    def files_below(self, folder: Path) -> list[Path]:
        return [path for path in folder.rglob("*") if path.is_file() and self._is_in_file(path)]

    def _is_in_file(self, path: Path) -> bool:
        if path.stat().st_size == 0:
            return False
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return self.is_in(data)

    @contextmanager
    def watched_processes(self) -> Iterator[set[str]]:
        """Look at all processes of the host, again and again; what shows the key is in the set."""
        found: set[str] = set()
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.05):
                for name in ("cmdline", "environ"):
                    found.update(
                        str(path)
                        for path in Path("/proc").glob(f"[0-9]*/{name}")
                        if self.is_in(_content(path))
                    )

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield found
        finally:
            over.set()
            thread.join()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has just ended


@pytest.fixture
def needle() -> Needle:
    return Needle()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STATE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "home"))
    work = tmp_path / "work"
    work.mkdir()
    (work / "content").write_bytes(bytes(MIB))
    return work


def _nowhere(needle: Needle, tmp_path: Path, stdout: bytes, stderr: bytes) -> None:
    assert not needle.is_in(stdout)
    assert not needle.is_in(stderr)
    assert needle.files_below(tmp_path) == [tmp_path / "work/key"]
    assert needle.files_below(Store().root) == []


def test_needle_is_found(needle: Needle, tmp_path: Path) -> None:
    """The search itself works."""
    for data in (needle.word, b"x" + needle.word, base64.b64encode(b"ab" + needle.word + b"c")):
        assert needle.is_in(b"..." + data)
    assert not needle.is_in(secrets.token_hex(24).encode())
    (tmp_path / "file").write_bytes(b"y" * 5000 + base64.b64encode(needle.word))
    assert needle.files_below(tmp_path) == [tmp_path / "file"]
    with (
        needle.watched_processes() as found,
        subprocess.Popen(["/usr/bin/sleep", "1"], env={"KEY": needle.word.decode()}) as process,
    ):
        process.wait()
    assert found


@pytest.mark.parametrize("is_right", [True, False])
def test_key_is_nowhere(needle: Needle, folders: Path, tmp_path: Path, *, is_right: bool) -> None:
    make_luks(folders / "image", folders / "content", needle.word if is_right else b"other", 2)
    (folders / "key").write_bytes(needle.word)
    words = ["--accel", "tcg", "--json", "-v", "--keep-log", "log", "--key", "disk0:file:key"]
    with needle.watched_processes() as found:
        done = subprocess.run(
            [FORENSIC, "inspect", *words, "--keys-from-stdin", "image"],
            cwd=folders,
            input=needle.word + b"\n",
            capture_output=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 1, done.stderr  # what is inside is nothing that anybody knows
    assert (b'"unlocked"' in done.stdout) == is_right
    assert (b'"wrong-key"' in done.stdout) != is_right
    assert found == set()
    assert (folders / "log").exists()
    _nowhere(needle, tmp_path, done.stdout, done.stderr)


def test_key_is_nowhere_after_a_crash(needle: Needle, folders: Path, tmp_path: Path) -> None:
    """The guest is killed while it derives the key: another one leaves the volume alone."""
    slow = ("--pbkdf-force-iterations", "6000000")
    make_luks(folders / "image", folders / "content", needle.word, 2, *slow)
    (folders / "key").write_bytes(needle.word)
    words = ["--accel", "tcg", "-v", "--keep-log", "log", "--key", "disk0:file:key", "image"]
    with (
        needle.watched_processes() as found,
        subprocess.Popen(
            [FORENSIC, "inspect", *words],
            cwd=folders,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stderr
        seen = b""
        while b"derive the key" not in seen:
            line = process.stderr.readline()
            assert line, seen
            seen += line
        os.kill(wait_for(process.pid, QEMU), signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    assert b"guest-lost" in stdout
    assert b"derive the key" in stdout
    assert found == set()
    _nowhere(needle, tmp_path, stdout, seen + stderr)
