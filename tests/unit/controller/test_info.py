"""`forensic info` on real containers, made by qemu-img."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from controller.errors import EvidenceRefused, ExitCode
from controller.info import gather
from controller.info_report import run, text
from tests.builders.locked import make_locked

MIB = 1 << 20


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A qcow2 with a snapshot on a raw disk of which two separate MiB are written."""
    base = tmp_path / "base.raw"
    with base.open("wb") as file:
        file.truncate(16 * MIB)
        file.write(b"a" * MIB)
        file.seek(8 * MIB)
        file.write(b"b" * MIB)
    top = tmp_path / "top.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
    qemu_img("snapshot", "-c", "before \x1b[31m", top)
    return top


def told(path: Path, capsysbinary: Any, *, verbose: bool = False) -> dict[str, Any]:
    assert run([path], [], json=True, verbose=verbose) is ExitCode.COMPLETE
    return json.loads(capsysbinary.readouterr().out)


def test_chain(chain: Path, capsysbinary: Any) -> None:
    document = told(chain, capsysbinary)
    assert document["schema"] == "forensic.info/1"
    (image,) = document["images"]
    assert image["path"] == str(chain)
    assert image["virtual_size"] == 16 * MIB
    assert image["data"] == {"bytes": 2 * MIB, "ranges": 2}
    assert (image["locked"], image["problem"]) == (False, None)
    top, base = image["chain"]
    assert (top["role"], top["format"]) == ("image", "qcow2")
    assert (base["role"], base["format"]) == ("backing file", "raw")
    assert base["files"][0]["data"] == {"bytes": 2 * MIB, "ranges": 2}
    assert base["files"][0]["size"] == 16 * MIB
    assert top["details"]["backing"] == str(chain.parent / "base.raw")
    (snapshot,) = top["snapshots"]
    assert snapshot["name"] == "before \\x1b[31m"
    assert snapshot["name_base64"] is None
    assert snapshot["disk_size"] == 16 * MIB


def test_text_cannot_act_on_a_terminal(chain: Path) -> None:
    page = text(gather([chain], []))
    assert all(character.isprintable() or character == "\n" for character in page)
    assert "before \\\\x1b[31m" in page or "before \\x1b[31m" in page
    assert "backing file" in page


def test_more_in_the_verbose_text(chain: Path) -> None:
    info = gather([chain], [])
    assert "refcount order" not in text(info)
    assert "refcount order" in text(info, verbose=True)


def test_data_file(tmp_path: Path, capsysbinary: Any) -> None:
    top = tmp_path / "top.qcow2"
    data = tmp_path / "data.raw"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data}", top, "1M")
    (image,) = told(top, capsysbinary)["images"]
    assert [link["role"] for link in image["chain"]] == ["image", "data file"]


def test_locked(tmp_path: Path) -> None:
    path = tmp_path / "locked.qcow2"
    make_locked(path, "word")
    info = gather([path], [])
    assert info.images[0].locked
    assert info.images[0].data is None
    assert info.exit_code is ExitCode.INCOMPLETE
    assert "locked" in text(info)


def test_what_the_parser_refuses_is_still_told(tmp_path: Path) -> None:
    """The header is in order, the content is not: QEMU refuses it, and the rest is told."""
    path = tmp_path / "broken.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "16M")
    with path.open("r+b") as file:
        file.seek(0x30000)  # the only entry of the L1 table
        file.write(b"\x80\x00\x7f\xff\xff\xff\xff\x01")
    info = gather([path], [])
    image = info.images[0]
    assert image.chain[0].format == "qcow2"
    assert image.data is None
    assert "which parts hold data" in (image.problem or "")
    assert not image.locked
    assert info.exit_code is ExitCode.INCOMPLETE


def test_missing_backing_file(chain: Path) -> None:
    (chain.parent / "base.raw").unlink()
    with pytest.raises(EvidenceRefused, match=r"base\.raw"):
        gather([chain], [])


def test_nothing_is_left(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = sorted(chain.parent.iterdir())
    gather([chain], [])
    assert list(scratch.iterdir()) == []
    assert sorted(chain.parent.iterdir()) == before


def test_killed_while_it_unpacks(tmp_path: Path) -> None:
    """SIGKILL leaves neither a process nor a file, whenever it comes."""
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(bytes(64 * MIB), 9) * 200)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-c", "from controller.cli import main; main()", "info", bomb]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not (children := descendants(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        children = descendants(process.pid)
        assert children
        assert list(scratch.iterdir()) == []
        process.kill()
    assert list(scratch.iterdir()) == []
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}/exe").exists() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found
