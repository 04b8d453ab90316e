"""Operating systems on one disk, several kinds of them, found and read by one inspection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.base import RECIPE, find
from controller.store import Store
from tests.builders import systems
from tests.builders.in_guest import run_in_guest
from tests.guest.conftest import OFFICE, Run, forensic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("systems")


@pytest.fixture(scope="module")
def disk(folder: Path) -> Path:
    base = find(Store())
    assert base
    made, archive, script = systems.make_systems_disk(folder)
    run_in_guest(base, RECIPE, script, [made, archive], folder)
    return made


@pytest.fixture(scope="module")
def run(disk: Path) -> Run:
    return forensic("os", "--json", "--accel", "tcg", "--timeout", "600", disk, timeout=900)


@pytest.fixture(scope="module")
def found(run: Run) -> dict[str, dict[str, Any]]:
    assert run.status == 1, run.stderr  # the hostile one
    return {each["root"]: each for each in run.json["systems"]}


def versions(system: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Name, whole version and architecture of each package."""
    return {
        (
            each["name"],
            (f"{each['epoch']}:" if each["epoch"] else "")
            + each["version"]
            + (f"-{each['release']}" if each["release"] else ""),
            each["arch"],
        )
        for each in system["applications"]
    }


def test_all_are_found(run: Run, found: dict[str, dict[str, Any]]) -> None:
    names = {
        root: (each["root_path"], each["distro"], each["version"])
        for root, each in found.items()
        if root != "disk0/p7"
    }
    assert names == {
        "disk0/p1": ("/", "debian", "12.5"),
        "disk0/p2": ("/root", "fedora", "40"),
        "disk0/p3": ("/", "alpinelinux", "3.19.1"),
        "disk0/p4": ("/", "archlinux", None),
        "disk0/p8": ("/@/.snapshots/1/snapshot", "opensuse", "15.6"),
        "srv-vg/root": ("/", "ubuntu", "22.04"),
    }
    assert run.json["schema"] == "forensic.os/1"
    assert {each["arch"] for root, each in found.items() if root != "disk0/p7"} == {"x86_64"}
    assert {each["layer"] for each in run.json["findings"]} == {"disk0/p7"}


def test_packages_as_the_tools_list_them(folder: Path, found: dict[str, dict[str, Any]]) -> None:
    trees = folder / "trees"
    expected = systems.dpkg_says(trees / "debian")
    assert versions(found["disk0/p1"]) == expected
    assert versions(found["srv-vg/root"]) == expected  # on a separate /var
    database = trees / "fedora/usr/lib/sysimage/rpm"
    for root in ("disk0/p2", "disk0/p8"):
        names = {f"{name}-{version}.{arch}" for name, version, arch in versions(found[root])}
        assert names == systems.rpm_says(database)
    assert [each["name"] for each in found["disk0/p3"]["applications"]] == ["musl", "busybox"]
    assert [each["name"] for each in found["disk0/p4"]["applications"]] == ["linux", "vim"]


def test_every_line_of_fstab_has_its_layer(found: dict[str, dict[str, Any]]) -> None:
    def layers(root: str) -> dict[str, str | None]:
        return {each["path"]: each["layer"] for each in found[root]["mountpoints"]}

    assert layers("srv-vg/root") == {
        "/": "srv-vg/root",
        "/boot": "disk0/p6",
        "/var": "srv-vg/var",
        "none": "srv-vg/swap",
        "/tmp": None,
    }
    assert layers("disk0/p1") == {
        "/": "disk0/p1",
        "/backup disk": "disk0/p6",
        "/nas": None,
        "/srv": None,
    }
    assert layers("disk0/p2") == {"/": "disk0/p2", "/home": "disk0/p2"}
    assert layers("disk0/p4") == {"/": "disk0/p4", "none": None}
    assert found["srv-vg/root"]["kernels"] == ["5.15.0-94-generic"]
    assert found["srv-vg/root"]["last_boot"] == systems.BOOT_TIME


def test_people_and_times(found: dict[str, dict[str, Any]]) -> None:
    debian = found["disk0/p1"]
    assert debian["install_date"] == systems.INSTALLED
    assert debian["last_shutdown"] == systems.SHUTDOWN_TIME
    logins = {each["name"]: each["last_login"] for each in debian["users"]}
    assert logins == {
        "root": systems.LOGIN_TIME - 100,
        "daemon": None,
        "anna": systems.LOGIN_TIME,
    }
    assert found["disk0/p2"]["timezone"] == "America/New_York"


def test_no_secret_is_told(run: Run, found: dict[str, dict[str, Any]]) -> None:
    for secret in (systems.SECRET, systems.HASH):
        assert secret not in run.stdout.decode()
    wireless = found["disk0/p2"]["interfaces"][0]
    assert (wireless["name"], wireless["addresses"]) == ("wlan0", ["198.51.100.7/24"])


def test_hostile_files_cost_only_themselves(run: Run, found: dict[str, dict[str, Any]]) -> None:
    hostile = found["disk0/p7"]
    assert len(hostile["users"]) == 4096
    assert hostile["machine_id"] is None
    messages = "\n".join(each["message"] for each in run.json["findings"])
    for words in (
        "etc/os-release: it is a FIFO",
        "etc/localtime: it is a device",
        "etc/shadow: its symbolic links lead in a circle",
        "var/log/wtmp: it has 1073741824 bytes",
    ):
        assert words in messages


def test_the_sample_for_people() -> None:
    run = forensic("os", "-q", "--accel", "tcg", OFFICE)
    assert run.status == 0, run.stderr
    text = run.stdout.decode()
    assert "1 operating system" in text
    assert "lvg1/lvroot" in text
    assert "disk0/gap0" not in text
