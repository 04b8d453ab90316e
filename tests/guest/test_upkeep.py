"""`forensic doctor` and `forensic appliance …` against the real appliance."""

from __future__ import annotations

import json
import time

from tests.guest.conftest import forensic


def test_doctor_finds_this_host_fit() -> None:
    begin = time.monotonic()
    run = forensic("doctor", "--json")
    assert time.monotonic() - begin < 20
    document = json.loads(run.stdout)
    assert run.status == 0, document
    assert document["healthy"] is True
    names = [check["name"] for check in document["checks"]]
    assert names[:3] == ["programs", "python", "sandbox"]
    assert {"memory", "disk", "appliance", "accelerator"} <= set(names)


def test_doctor_names_a_command_for_each_problem(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    run = forensic("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(run.stdout)["checks"]}
    assert checks["appliance"]["grade"] == "warning"
    assert checks["appliance"]["remedy"] == "./forensic appliance build"


def test_status_and_verify() -> None:
    status = forensic("appliance", "status", "--json")
    assert status.status == 0
    document = json.loads(status.stdout)
    assert document["ready"] is True
    state = next(e for e in document["entries"] if e["kind"] == "state" and e["current"])
    assert state["outdated_by"] == []
    assert {"qemu", "libvirt"} <= set(state["tools"])
    base = next(e for e in document["entries"] if e["kind"] == "base" and e["current"])
    assert base["packages"]["lvm2"]
    assert forensic("appliance", "verify").status == 0
