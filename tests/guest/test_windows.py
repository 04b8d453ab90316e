"""What a guest reads of a Windows: on NTFS in an MBR and a GPT, and beside hostile hives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.base import RECIPE, find
from controller.store import Store
from tests.builders import windows
from tests.builders.windows_disks import DATA, windows_disks
from tests.guest.conftest import Run, inspect


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = find(Store())
    assert base
    return windows_disks(tmp_path_factory.mktemp("windows"), base, RECIPE)


@pytest.fixture(scope="module")
def run(disks: list[Path]) -> Run:
    return inspect("--os", *disks)


def systems(run: Run, layer: str) -> list[dict[str, Any]]:
    return [each for each in run.json["systems"] if each["root"] == layer]


def findings(run: Run, layer: str) -> Iterator[tuple[str, str, str]]:
    for each in run.json["findings"]:
        if each["layer"] == layer:
            yield each["severity"], each["code"], each["message"]


def test_facts(run: Run) -> None:
    system = systems(run, "disk0/p2")[0]
    assert system["product_name"] == "Windows 10 Pro"
    assert system["build_id"] == "19045.3803"
    assert system["arch"] == "x86_64"
    assert system["hostname"] == "WS-17"
    assert system["machine_id"] == windows.MACHINE_ID
    assert system["timezone"] == "W. Europe Standard Time"
    assert system["install_date"] == windows.INSTALLED
    assert system["last_shutdown"] == windows.SHUT_DOWN
    assert system["windows_systemroot"] == "/WINDOWS"
    assert system["windows_current_control_set"] == "ControlSet002"
    users = {each["name"]: (each["uid"], each["locked"]) for each in system["users"]}
    assert users["Administrator"] == (f"{windows.SID}-500", True)
    assert users["alice"] == (f"{windows.SID}-1001", False)
    services = {each["name"]: each["start"] for each in system["services"]}
    assert services == {
        "disk": "boot",
        "Null": "system",
        "Schedule": "auto",
        "wuauserv": "delayed-auto",
    }
    assert [each["name"] for each in system["interfaces"]] == ["Ethernet", "WLAN ü"]
    assert [each["name"] for each in system["applications"]] == ["7-Zip", "{AAAA}"]


def test_drive_letters(run: Run) -> None:
    drives = systems(run, "disk0/p2")[0]["drive_mappings"]
    assert [(each["path"], each["source"], each["layer"]) for each in drives] == [
        ("C:", "diskid=0badcafe offset=17825792", "disk0/p2"),
        ("D:", f"guid={DATA}", "disk1/p1"),
        ("X:", "diskid=11111111 offset=1048576", None),
    ]


def test_a_second_windows_beside_it(run: Run) -> None:
    roots = [each["windows_systemroot"] for each in systems(run, "disk0/p2")]
    assert roots == ["/WINDOWS", "/winnt"]


def test_what_is_not_written_yet(run: Run) -> None:
    codes = [(severity, code) for severity, code, _ in findings(run, "disk0/p2")]
    assert sorted(codes) == [("info", "hibernation-image"), ("info", "registry-dirty")]


def test_hostile_hives_cost_only_themselves(run: Run) -> None:
    assert run.status == 1
    (system,) = systems(run, "disk1/p2")
    assert system["hostname"] == "WS-17"
    assert system["product_name"] == "Windows 10 Pro"
    found = list(findings(run, "disk1/p2"))
    assert {(severity, code) for severity, code, _ in found} == {("warning", "system-unreadable")}
    told = "\n".join(message for _, _, message in found)
    for name in ("config/SYSTEM: damaged", "config/SAM: not a registry", "hiberfil.sys: it does"):
        assert name in told


def test_windows_98_is_named(run: Run) -> None:
    (system,) = systems(run, "disk1/p3")
    assert system["product_name"] == "Microsoft Windows 98"
    assert system["build_id"] == "2222"


def test_no_hash_of_a_password(run: Run) -> None:
    text = run.stdout.decode()
    assert windows.SECRET.hex() not in text.lower()
    assert windows.SECRET.decode("utf-16-le", "ignore")[0] not in text


def test_logs_are_replayed_in_the_recovered_view(disks: list[Path]) -> None:
    run = inspect("--os", "--view", "recovered", disks[0])
    system = systems(run, "disk0/p2")[0]
    names = [each["name"] for each in system["applications"]]
    assert names == ["7-Zip", "New", "{AAAA}"]
    assert any("laid over" in message for _, _, message in findings(run, "disk0/p2"))
