"""KVM is tried once per host, and believed only as long as the host is the same."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from controller import accelerator, kvm
from controller.accelerator import Verdict, choose, remember, remembered, try_once
from controller.errors import CellFailed, EnvironmentFailed, GuestFailed, GuestHostile
from controller.store import Store


class Proof:
    """A boot with KVM that works or fails as told, and counts."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.error:
            raise self.error


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/kvm that nothing is wrong with, as far as its file tells."""
    path = tmp_path / "kvm"
    path.write_text("")
    monkeypatch.setattr(accelerator, "KVM", path)
    monkeypatch.setattr(accelerator, "obstacle", lambda: "")
    return path


def ask(
    store: Store, proof: Proof, choice: accelerator.Choice = "auto", *, require: bool = False
) -> tuple[str, str]:
    return choose(choice, store, proof, lambda _step: None, require_kvm=require)


@pytest.mark.usefixtures("device")
def test_kvm_that_works(store: Store) -> None:
    proof, shown = Proof(), []
    assert choose("auto", store, proof, shown.append, require_kvm=False) == ("kvm", "")
    assert shown == ["try KVM (once on this host)"]
    assert choose("auto", store, proof, shown.append, require_kvm=False) == ("kvm", "")
    assert (proof.calls, len(shown)) == (1, 1)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("error", [GuestFailed, GuestHostile, EnvironmentFailed])
def test_kvm_that_does_not_work(store: Store, error: type[GuestFailed]) -> None:
    proof = Proof(error("its kernel said nothing\nwithin 7 seconds"))
    expected = ("tcg", "no guest boots with KVM: its kernel said nothing")
    assert ask(store, proof) == expected
    assert ask(store, proof) == expected
    assert proof.calls == 1


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("error", [CellFailed("x"), ZeroDivisionError(), KeyboardInterrupt()])
def test_no_verdict(store: Store, error: Exception) -> None:
    """What says nothing about KVM is not remembered as if it did."""
    with pytest.raises(type(error)):
        ask(store, Proof(error))
    assert remembered(store) is None


@pytest.mark.usefixtures("device")
def test_tcg_is_not_tried(store: Store) -> None:
    proof = Proof()
    assert ask(store, proof, "tcg") == ("tcg", "it was asked for")
    assert proof.calls == 0


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("choice", "require"), [("kvm", False), ("auto", True), ("tcg", True), ("kvm", True)]
)
def test_kvm_is_required(store: Store, choice: accelerator.Choice, require: bool) -> None:
    with pytest.raises(EnvironmentFailed, match="KVM cannot be used: no guest boots") as caught:
        ask(store, Proof(GuestFailed("dead")), choice, require=require)
    assert "doctor" in caught.value.hint
    store.root.joinpath("kvm.json").unlink()
    assert ask(store, Proof(), choice, require=require) == ("kvm", "")


def test_obstacle(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "obstacle", lambda: "there is no /dev/kvm")
    proof = Proof()
    assert ask(store, proof) == ("tcg", "there is no /dev/kvm")
    with pytest.raises(EnvironmentFailed, match="there is no /dev/kvm"):
        ask(store, proof, "kvm")
    assert proof.calls == 0
    assert remembered(store) is None, "an obstacle may be gone tomorrow"


def test_verdict_is_written_down(store: Store, device: Path) -> None:
    verdict = try_once(store, Proof())
    assert verdict == remembered(store) == Verdict(True, "", accelerator._host())
    assert verdict.host["device"].startswith(str(device.stat().st_mode))


@pytest.mark.parametrize("change", ["kernel", "boot", "qemu", "mode", "group", "gone", "account"])
def test_another_host_is_tried_again(
    store: Store, device: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    ask(store, Proof(GuestFailed("dead")))
    assert remembered(store) is not None
    match change:
        case "kernel":
            monkeypatch.setattr(accelerator.platform, "release", lambda: "99.1")
        case "boot":
            boot_id = device.parent / "boot_id"
            boot_id.write_text("other\n")
            monkeypatch.setattr(accelerator, "Path", lambda _path: boot_id)
        case "qemu":
            monkeypatch.setattr(accelerator.state, "program_identity", lambda: "other")
        case "mode":
            device.chmod(0o600 if device.stat().st_mode & 0o777 != 0o600 else 0o660)
        case "group":
            if os.geteuid() != 0:
                pytest.skip("only root can give a file to another group")
            os.chown(device, -1, 12345)
        case "gone":
            device.unlink()
        case "account":
            monkeypatch.setattr(accelerator.os, "geteuid", lambda: 4711)
    assert remembered(store) is None
    proof = Proof()
    assert ask(store, proof) == ("kvm", "")
    assert proof.calls == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"usable":1}', b'{"usable":true,"reason":"","host":{}}']
)
def test_verdict_that_makes_no_sense(store: Store, content: bytes) -> None:
    (store.root / "kvm.json").write_bytes(content)
    assert remembered(store) is None


def test_verdict_that_is_not_utf8(store: Store) -> None:
    (store.root / "kvm.json").write_bytes(b'{"usable":true,"reason":"\xff","host":{}}')
    assert remembered(store) is None


@pytest.mark.usefixtures("device")
def test_later_verdict_replaces_the_earlier(store: Store) -> None:
    remember(store, usable=False, reason="no")
    remember(store, usable=True, reason="")
    verdict = remembered(store)
    assert verdict is not None
    assert verdict.usable


@pytest.mark.usefixtures("device")
def test_error_without_words(store: Store) -> None:
    assert ask(store, Proof(GuestFailed("failed"))) == ("tcg", "no guest boots with KVM: failed")


@pytest.mark.parametrize(
    ("mode", "group", "account", "expected"),
    [
        (0o666, 0, 0, ""),
        (0o660, 104, 0, ""),
        (0o660, 0, 0, "may not be opened"),
        (0o600, 104, 0, "may not be opened"),
        (0o640, 104, 0, "may not be opened"),
    ],
)
def test_device_for_the_cell_of_root(
    monkeypatch: pytest.MonkeyPatch, mode: int, group: int, account: int, expected: str
) -> None:
    """The cell's account gets the device's group if that is not root's, and nothing else."""
    status = os.stat_result((stat.S_IFCHR | mode, 1, 1, 1, 0, group, 0, 0, 0, 0))
    monkeypatch.setattr(kvm, "KVM", Device(status))
    monkeypatch.setattr(kvm.os, "geteuid", lambda: account)
    obstacle = kvm.obstacle()
    assert expected in obstacle
    assert bool(obstacle) == bool(expected)
    assert kvm.kvm_group() == (104 if mode == 0o660 and group else None)


class Device:
    """Stands in for the path of /dev/kvm."""

    def __init__(self, status: os.stat_result) -> None:
        self.status = status

    def stat(self) -> os.stat_result:
        return self.status


def test_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "KVM", tmp_path / "kvm")
    assert kvm.obstacle() == "there is no /dev/kvm"
    assert kvm.kvm_group() is None


def test_device_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kvm").write_text("")
    monkeypatch.setattr(kvm, "KVM", tmp_path / "kvm")
    assert kvm.obstacle() == "/dev/kvm is not a device"
