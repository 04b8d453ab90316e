"""The appliances' folder: whole or not there, one builder at a time, nothing altered unnoticed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller.cell import owner
from controller.errors import ApplianceInvalid, EnvironmentFailed
from controller.store import (
    MANIFEST,
    Store,
    damaged_files,
    finish,
    key_of,
    read_manifest,
    remove,
    size_of,
)

MADE_FROM = {"suite": "trixie", "recipe": "abc"}
FILES = {"vmlinux": b"kernel" * 1000, "rootfs.erofs": b"\0" * 5000, "sub/folder/file": b"x"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache" / "forensic")


def fill(folder: Path) -> None:
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def built(store: Store) -> Path:
    target = store.folder("base", MADE_FROM)
    with store.lock(), store.building(target) as folder:
        fill(folder)
        finish(folder, MADE_FROM, {"qemu": "7"}, {"build": 1.5})
    return target


def test_key_is_of_the_content_not_of_the_order() -> None:
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})
    keys = {key_of(each) for each in ({}, {"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": '1","b":"2'})}
    assert len(keys) == 5
    assert all(len(key) == 16 for key in keys)


def test_build(store: Store) -> None:
    target = built(store)
    assert target.name == f"base-{key_of(MADE_FROM)}"
    assert store.folders("base") == [target]
    assert store.folders("state") == []
    manifest = read_manifest(target)
    assert set(manifest.hashes) == set(FILES)
    assert (manifest.made_from, manifest.tools) == (MADE_FROM, {"qemu": "7"})
    assert manifest.timings == {"build": 1.5}
    assert damaged_files(target) == []
    assert sum(map(len, FILES.values())) <= size_of(target) < 100_000


def test_modes(store: Store) -> None:
    """Nobody else reads the saved state, and nobody writes what has been built."""
    target = built(store)
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    for name in FILES:
        status = (target / name).stat()
        assert stat.S_IMODE(status.st_mode) == 0o400
        assert status.st_uid == owner()


def test_folder_that_was_open_to_others_is_closed(store: Store) -> None:
    store.root.mkdir(parents=True)
    store.root.chmod(0o777)
    with store.lock():
        assert stat.S_IMODE(store.root.stat().st_mode) == 0o700


def fail_to_build(store: Store, target: Path) -> None:
    with store.lock(), store.building(target) as folder:
        assert folder != target
        assert list(folder.iterdir()) == []
        fill(folder)
        raise ZeroDivisionError


def test_failed_build_leaves_nothing(store: Store) -> None:
    target = store.folder("base", MADE_FROM)
    with pytest.raises(ZeroDivisionError):
        fail_to_build(store, target)
    assert [path.name for path in store.root.iterdir()] == ["lock"]


def test_failed_build_leaves_the_old_one(store: Store) -> None:
    target = built(store)
    with pytest.raises(ZeroDivisionError):
        fail_to_build(store, target)
    assert damaged_files(target) == []


def test_build_takes_the_place_of_the_old_one(store: Store) -> None:
    target = built(store)
    (target / "vmlinux").chmod(0o600)
    (target / "vmlinux").write_bytes(b"damaged")
    assert built(store) == target
    assert damaged_files(target) == []


def test_unfinished_folder_counts_as_none(store: Store) -> None:
    with store.lock():
        store.folder("base", MADE_FROM).mkdir()
    assert store.folders("base") == []


def test_leftovers_are_removed(store: Store) -> None:
    """SIGKILL during a build: the next build takes the remains away."""
    with store.lock():
        left = store.root / "building-left"
        (left / "sub").mkdir(parents=True)
        (left / "sub" / "file").write_bytes(b"x")
        (left / "sub" / "file").chmod(0o400)
    built(store)
    assert not left.exists()


BUILDER = """
import sys, time
from pathlib import Path
from controller.store import Store
store = Store(Path(sys.argv[1]))
with store.lock():
    begin = time.monotonic()
    with store.building(store.root / "base-x") as folder:
        (folder / sys.argv[2]).write_text("")
        print("in", flush=True)
        time.sleep(float(sys.argv[3]))
    print(begin, time.monotonic(), flush=True)
"""


def builder(store: Store, name: str, seconds: float) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", BUILDER, str(store.root), name, str(seconds)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_lock_serialises_two_processes(store: Store) -> None:
    both = [builder(store, name, 0.3) for name in ("a", "b")]
    spans = []
    for process in both:
        output, _ = process.communicate(timeout=20)
        begin, end = output.split()[1:]
        spans.append((float(begin), float(end)))
    spans.sort()
    assert spans[0][1] <= spans[1][0]
    assert len(list((store.root / "base-x").iterdir())) == 1


def test_lock_of_a_killed_process_is_free(store: Store) -> None:
    process = builder(store, "a", 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    begin = time.monotonic()
    built(store)
    assert time.monotonic() - begin < 5
    assert sorted(path.name for path in store.root.iterdir()) == [
        f"base-{key_of(MADE_FROM)}",
        "lock",
    ]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_flipped_bit_is_found(store: Store, name: str, where: float) -> None:
    target = built(store)
    path = target / name
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    assert damaged_files(target) == [name]


@pytest.mark.parametrize("change", ["append", "truncate", "remove", "empty", "folder", "swap"])
def test_changed_file_is_found(store: Store, change: str) -> None:
    target = built(store)
    path = target / "vmlinux"
    path.chmod(0o600)
    match change:
        case "append":
            path.write_bytes(FILES["vmlinux"] + b"\0" * 4096)
        case "truncate":
            os.truncate(path, len(FILES["vmlinux"]) - 1)
        case "remove":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.unlink()
            path.mkdir()
        case "swap":
            path.write_bytes(FILES["rootfs.erofs"])
    assert damaged_files(target) == ["vmlinux"]


def test_every_bit_flip_in_the_hashes_is_found(store: Store) -> None:
    """Whatever part of the manifest names or hashes a file: it is unreadable, or does not fit."""
    target = built(store)
    path = target / MANIFEST
    good = path.read_bytes()
    end = good.index(b"}")
    for position in range(0, end, 3):
        for bit in (0, 5, 6):
            content = bytearray(good)
            content[position] ^= 1 << bit
            path.write_bytes(content)
            try:
                damaged = damaged_files(target)
            except ApplianceInvalid:
                continue
            same = json.loads(content)["hashes"] == json.loads(good)["hashes"]
            assert damaged or same, (position, bit)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"hashes":[]}', b"[" * 100_000]
)
def test_manifest_that_cannot_be_read(store: Store, content: bytes) -> None:
    target = built(store)
    (target / MANIFEST).write_bytes(content)
    with pytest.raises(ApplianceInvalid) as caught:
        read_manifest(target)
    assert "build --force" in caught.value.hint


def test_manifest_that_is_not_utf8(store: Store) -> None:
    target = built(store)
    path = target / MANIFEST
    path.write_bytes(path.read_bytes().replace(b"vmlinux", b"vmlin\xff\xff"))
    with pytest.raises(ApplianceInvalid):
        read_manifest(target)


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(ApplianceInvalid):
        read_manifest(tmp_path)


def test_folder_of_another_account(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user who owns the folder could put a kernel of his own into it."""
    store.root.mkdir(parents=True)
    other = os.geteuid() + 1
    monkeypatch.setattr("controller.store.os.geteuid", lambda: other)
    with pytest.raises(EnvironmentFailed, match="belongs to another account"), store.lock():
        pytest.fail("it was locked")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folder_given_away(store: Store) -> None:
    store.root.mkdir(parents=True)
    os.chown(store.root, 65534, 65534)
    with pytest.raises(EnvironmentFailed, match="another account") as caught, store.lock():
        pytest.fail("it was locked")
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailed, match="cannot be made") as caught:  # noqa: SIM117
        with Store(tmp_path / "file" / "forensic").lock():
            pytest.fail("it was locked")
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "forensic").write_text("")
    with pytest.raises(EnvironmentFailed), Store(tmp_path / "forensic").lock():
        pytest.fail("it was locked")


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Store().root == tmp_path / "forensic"


def test_remove_what_is_not_there(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")


def test_remove_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    remove(folder)
    assert (outside / "file").exists()
