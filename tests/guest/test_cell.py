"""What the guest and its cell can reach: measured from outside, while a case is open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import Case, Settings
from controller.cell import owner
from tests.guest.conftest import OFFICE, ROOT, command_of, descendants, left_over


@pytest.fixture(autouse=True)
def clean_host() -> None:
    """Not after each test here: the case stays open for all of them, and is checked at its end."""


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[int, str]]:
    """The processes of an open case: pid -> command line."""
    with Case([OFFICE], Settings(accelerator="tcg")):
        yield {pid: command_of(pid) for pid in descendants(os.getpid())}
    assert left_over() == []


def _status(pid: int) -> dict[str, str]:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (row.partition(":") for row in rows)}


def _qemu(processes: dict[int, str]) -> dict[int, str]:
    return {
        pid: command
        for pid, command in processes.items()
        if command.split(" ")[0].endswith("qemu-system-x86_64")
    }


def test_qemu_and_exporter_own_nothing(processes: dict[int, str]) -> None:
    found = _qemu(processes)
    assert len(found) == 2
    for pid in found:
        status = _status(pid)
        assert set(status["Uid"].split()) == {str(owner())}
        assert owner() != 0
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


def test_nothing_in_the_cell_has_a_network(processes: dict[int, str]) -> None:
    own = os.readlink("/proc/self/ns/net")  # noqa: PTH115
    for pid in _qemu(processes):
        assert os.readlink(f"/proc/{pid}/ns/net") != own  # noqa: PTH115
        devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        assert [row.split(":")[0].strip() for row in devices] == ["lo"]


def test_qemu_sees_no_host_files(processes: dict[int, str]) -> None:
    for pid in _qemu(processes):
        root = Path(f"/proc/{pid}/root")
        for path in ("etc/shadow", "etc/hostname", "var/lib", "boot", "srv"):
            assert not (root / path).exists()
        # Of the folders above this program's own, nothing else is visible, if they are at all.
        for parent in list(ROOT.parents)[:-1]:
            folder = root / parent.relative_to("/")
            visible = {each.name for each in folder.iterdir()} if folder.exists() else set()
            assert visible <= {ROOT.relative_to(parent).parts[0]}
        assert str(OFFICE) not in Path(f"/proc/{pid}/mountinfo").read_text()


def test_domain_has_only_what_it_needs(processes: dict[int, str]) -> None:
    (command,) = [c for c in _qemu(processes).values() if "guest=forensic" in c]
    for device in ("virtio-net", "e1000", "qxl", "VGA", "usb-", "balloon", "9p", "vhost", "vnc"):
        assert device not in command
    assert "-sandbox on" in command
    assert "vmgenid" in command


def test_memory_and_core_dumps_are_bounded(processes: dict[int, str]) -> None:
    for pid in _qemu(processes):
        limits = Path(f"/proc/{pid}/limits").read_text()
        rows = {row[:26].strip(): row[26:47].strip() for row in limits.splitlines()}
        assert rows["Max core file size"] == "0"
        assert rows["Max address space"] != "unlimited"


def test_saved_state_is_readable_by_its_account_alone() -> None:
    from controller.store import Store  # noqa: PLC0415

    store = Store()
    assert store.root.stat().st_mode & 0o077 == 0
    for folder in store.folders("state"):
        status = (folder / "state").stat()
        assert status.st_mode & 0o377 == 0
        assert status.st_uid == owner()
