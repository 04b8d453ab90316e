"""Real file systems, and the tools that say independently of us what is in them.

A missing tool makes a test fail (FileNotFoundError), never skip.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.agent.filesystem import Usage, read_usage

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "TZ": "UTC",
    "MTOOLS_SKIP_CHECK": "1",
}


def run(*command: object, ok: tuple[int, ...] = (0,), stdin: str = "", home: str = "/") -> str:
    """Standard output and error of a tool."""
    done = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        env={**ENVIRONMENT, "HOME": home},
        timeout=60,
        check=False,
    )
    assert done.returncode in ok, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def read_file(path: Path, blkid_type: str | None = None, size: int | None = None) -> Usage:
    """Our answer for an image; the type is what blkid says unless given."""
    kind = blkid_type or run("blkid", "-p", "-o", "value", "-s", "TYPE", path).strip()
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, offset)

        usage = read_usage(kind, read, path.stat().st_size if size is None else size)
    assert usage is not None, f"{kind} is not known"
    return usage


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    return run


@pytest.fixture(scope="session")
def usage_of() -> Callable[..., Usage]:
    return read_file


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """A folder with some content: 3 MB in a few files."""
    root = tmp_path_factory.mktemp("tree")
    (root / "folder").mkdir()
    (root / "folder" / "small").write_text("small\n")
    (root / "big").write_bytes(os.urandom(3_000_000))
    (root / "middle").write_bytes(os.urandom(70_000))
    return root


@pytest.fixture
def blank(tmp_path) -> Callable[[int], Path]:
    """A sparse file of so many MiB."""

    def make(mib: int) -> Path:
        path = tmp_path / "volume.img"
        path.unlink(missing_ok=True)
        path.touch()
        os.truncate(path, mib * 1024 * 1024)
        return path

    return make


@pytest.fixture(scope="session")
def patch() -> Callable[[Path, int, bytes], None]:
    """Overwrite bytes of an image."""

    def write(path: Path, offset: int, data: bytes) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return write


@pytest.fixture(scope="session")
def codes() -> Callable[[Usage], set[str]]:
    return lambda usage: {problem.code for problem in usage.problems}
