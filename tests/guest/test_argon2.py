"""Deriving a key can need more memory than the guest has: that is known before it is tried."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.builders.luks import make_luks
from tests.builders.luks2_header import change_json
from tests.guest.conftest import inspect

ARGON2 = ["--pbkdf", "argon2id", "--pbkdf-parallel", "1", "--pbkdf-force-iterations", "4"]
MIB = 1 << 20

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("argon2")
    content = path / "content"
    content.write_bytes(b"")
    os.truncate(content, MIB)
    subprocess.run(
        ["mkfs.vfat", "-i", "ca11ab1e", content], check=True, capture_output=True, timeout=20
    )
    make_luks(path / "large", content, b"word", 2, *ARGON2, "--pbkdf-memory", "614400")
    make_luks(path / "absurd", content, b"word", 2, *ARGON2, "--pbkdf-memory", "65536")
    change_json(path / "absurd", _claim_4_tib)
    (path / "key").write_bytes(b"word")
    return path


def _claim_4_tib(document: dict[str, Any]) -> None:
    document["keyslots"]["0"]["kdf"]["memory"] = 4 << 30


def test_guest_with_more_memory_takes_over(folder: Path) -> None:
    key = ("--key", "all:file:key")
    run = inspect(*key, "large", "absurd", "--timeout", "600", cwd=folder, timeout=900)
    assert run.status == 1, run.stderr
    layers = run.layers()
    assert layers["disk0"]["encryption"]["keyslots"][0]["memory"] == 600 * MIB
    assert layers["disk0"]["encryption"]["opened_by"] == 1
    assert layers["disk0/luks"]["content"]["uuid"] == "CA11-AB1E"
    assert layers["disk1"]["status"] == "locked"
    assert layers["disk1"]["encryption"]["opened_by"] is None
    (problem,) = [each for each in run.json["findings"] if each["severity"] != "info"]
    assert (problem["layer"], problem["code"]) == ("disk1", "impossible-keyslot")
    assert "start a guest with 1024 MiB of memory" in run.stderr


def test_memory_that_the_user_gives_stays(folder: Path) -> None:
    run = inspect("--memory", "512", "--key", "all:file:key", "large", cwd=folder)
    assert run.status == 1, run.stderr
    layer = run.layers()["disk0"]
    assert (layer["status"], layer["encryption"]["keys_tried"]) == ("locked", 0)
    (problem,) = [each for each in run.json["findings"] if each["severity"] != "info"]
    assert problem["code"] == "needs-memory"
    assert "600 MiB" in problem["message"]
    assert "--memory 1024" in problem["message"]
