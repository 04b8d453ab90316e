"""Who runs it: root with evidence that only root may read, and an account without any privilege."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from controller.base import find
from controller.store import Store
from tests.guest.conftest import OFFICE, forensic, inspect

ORDINARY = 54321


def test_evidence_that_only_its_owner_may_read(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    image = folder / "office.vmdk"
    shutil.copy(OFFICE, image)
    image.chmod(0o400)
    run = inspect(image)
    assert run.status == 0, run.stderr


def test_ordinary_account(tmp_path: Path) -> None:
    """Its own saved state, made and restored without root; the base is copied to save time."""
    base = find(Store())
    assert base
    home = tmp_path / "home"
    copy = home / "cache/forensic" / base.name
    shutil.copytree(base, copy)
    account = ORDINARY if os.geteuid() == 0 else os.geteuid()
    for path in [home, *home.rglob("*")]:
        os.chown(path, account, -1)
    for parent in home.parents:
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    image = tmp_path / "office.vmdk"
    shutil.copy(OFFICE, image)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TMPDIR": os.environ["TMPDIR"],
    }
    identity: dict[str, Any] = (
        {} if os.geteuid() else {"user": account, "group": account, "extra_groups": []}
    )
    for _ in range(2):
        run = inspect(image, env=environment, **identity)
        assert run.status == 0, run.stderr
    assert b'"boundary": "cell"' in run.stdout


def test_auto_comes_to_an_answer_whatever_kvm_is_worth() -> None:
    run = forensic("inspect", "--json", OFFICE)
    assert run.status == 0, run.stderr
    assert run.json["boundary"] in {"kvm", "cell"}
    strict = forensic("inspect", "--json", "--require-kvm", OFFICE)
    assert strict.status == (0 if run.json["boundary"] == "kvm" else 4)
    if strict.status:
        assert "KVM cannot be used" in strict.stderr
