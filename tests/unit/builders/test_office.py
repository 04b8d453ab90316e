"""The documentation's sample disk: small, reproducible, and what the script says it is."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.builders.command import run

SAMPLES = Path(__file__).resolve().parents[3] / "docs" / "samples"


def make(target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the script as a user would."""
    monkeypatch.setattr(sys, "argv", ["make_office.py", str(target)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(SAMPLES / "make_office.py"), run_name="__main__")
    return target


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The committed sample as a raw disk."""
    disk = tmp_path / "office.raw"
    run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", SAMPLES / "office.vmdk", disk)
    return disk


def volume(raw: Path, start: int, size: int, target: Path) -> Path:
    """A slice of the disk, both in MiB."""
    run("dd", f"if={raw}", f"of={target}", "bs=1M", f"skip={start}", f"count={size}", "conv=sparse")
    return target


def test_sample_is_small() -> None:
    assert (SAMPLES / "office.vmdk").stat().st_size <= 300 * 1024


def test_made_twice_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = make(tmp_path / "a" / "office.vmdk", monkeypatch)
    second = make(tmp_path / "b" / "office.vmdk", monkeypatch)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("digits", [b"7", b"41ae9a2", b"b71273e6"])
def test_content_id_of_any_length(tmp_path: Path, digits: bytes) -> None:
    """qemu-img does not pad its random number: the descriptor must keep its size."""
    script = runpy.run_path(str(SAMPLES / "make_office.py"), run_name="sample")
    content = (SAMPLES / "office.vmdk").read_bytes()
    rest = content[512 : 21 * 512].rstrip(b"\0").replace(b"CID=0ff1ce12", b"CID=" + digits)
    image = tmp_path / "office.vmdk"
    image.write_bytes(content[:512] + rest.ljust(20 * 512, b"\0") + content[21 * 512 :])
    script["fix_content_id"](image)
    assert image.read_bytes() == content


def test_committed_sample_is_up_to_date(raw: Path) -> None:
    """The same files, through GRUB's readers; other versions of mke2fs may lay them out anew."""
    for path in (SAMPLES / "office").rglob("*"):
        if path.is_file():
            inside = f"(lvm/lvg1-lvroot)/{path.relative_to(SAMPLES / 'office')}"
            assert run("grub-fstest", raw, "cmp", inside, path) == b""


def test_file_systems_are_clean(raw: Path, tmp_path: Path) -> None:
    """lvroot's first extent is at MiB 17 + 1, lvbackup's 48 MiB later."""
    for start, size in ((18, 48), (66, 16)):
        run("e2fsck", "-f", "-n", volume(raw, start, size, tmp_path / "ext4"))


def test_rights(raw: Path, tmp_path: Path) -> None:
    root = volume(raw, 18, 48, tmp_path / "root")
    owners = {
        "/etc/passwd": ("0644", 0, 0),
        "/etc/shadow": ("0640", 0, 42),
        "/home/anna/.bash_history": ("0600", 1000, 1000),
        "/home/ben/.bash_history": ("0600", 1001, 1001),
        "/tmp": ("01777", 0, 0),
        "/usr/bin/ls": ("0755", 0, 0),
    }
    for path, (mode, uid, gid) in owners.items():
        stat = run("debugfs", "-R", f"stat {path}", root).decode()
        words = " ".join(stat.split())
        assert f"Mode: {mode} " in words
        assert f"User: {uid} Group: {gid} " in words
