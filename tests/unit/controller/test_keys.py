"""Keys come from files, a terminal or standard input, and show up nowhere else."""

from __future__ import annotations

import io
import os
import pty
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from controller.errors import UsageError
from controller.headers import DetachedHeader
from controller.keys import (
    MAX_ALL,
    MAX_KEY,
    Key,
    astray,
    check_disks,
    forget,
    keys_for,
    layer_keys,
    read_keys,
)


def stdin_of(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("kind", "content", "secret"),
    [
        ("file", b"word\n", b"word"),
        ("file", b"word\n\n", b"word\n"),
        ("file", b"word", b"word"),
        ("file", b"a:b c\xff\n", b"a:b c\xff"),
        ("keyfile", b"word\n", b"word\n"),
        ("keyfile", b"\0\xff\n", b"\0\xff\n"),
    ],
)
def test_from_a_file(tmp_path: Path, kind: str, content: bytes, secret: bytes) -> None:
    path = tmp_path / "with:colon"
    path.write_bytes(content)
    is_keyfile = kind == "keyfile"
    keys = read_keys([f"disk0:{kind}:{path}"], from_stdin=False)
    assert keys == (Key("disk0", secret, is_keyfile),)
    (sent,) = layer_keys(keys)
    assert (sent.address, sent.secret, sent.keyfile) == ("disk0", secret, is_keyfile)


@pytest.mark.parametrize(
    ("word", "address", "pim"),
    [
        ("disk0/p1:pim=485:file:", "disk0/p1", 485),
        ("disk0/p1:pim=2147468:keyfile:", "disk0/p1", 2147468),
        ("vg/root:/images/a.qcow2/p1:file:", "vg/root:/images/a.qcow2/p1", None),
        ("vg/root:/images/a.qcow2:pim=1:file:", "vg/root:/images/a.qcow2", 1),
    ],
)
def test_iterations_of_veracrypt(tmp_path: Path, word: str, address: str, pim: int) -> None:
    (tmp_path / "key").write_bytes(b"word")
    (key,) = read_keys([f"{word}{tmp_path / 'key'}"], from_stdin=False)
    assert (key.address, key.pim) == (address, pim)


@pytest.mark.parametrize("pim", ["0", "2147469", "9999999"])
def test_impossible_iterations(tmp_path: Path, pim: str) -> None:
    (tmp_path / "key").write_bytes(b"word")
    with pytest.raises(UsageError, match="pim="):
        read_keys([f"disk0:pim={pim}:file:{tmp_path / 'key'}"], from_stdin=False)


def test_keys_are_wiped(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"word")
    keys = read_keys([f"disk0:file:{tmp_path / 'key'}"], from_stdin=False)
    forget(keys)
    assert keys[0].secret == bytes(4)


def test_keys_for_what_is_not_there() -> None:
    keys = [Key("all", b"a"), Key("disk1/p1", b"b"), Key("vg/root", b"c")]
    check_disks(keys, [DetachedHeader("vg/root", Path("h"))], 2)
    with pytest.raises(UsageError, match="disk1/p1"):
        check_disks(keys, [], 1)
    for address in ("disk2/p1", "all", "disk2"):
        with pytest.raises(UsageError, match="--header"):
            check_disks([], [DetachedHeader(address, Path("h"))], 2)
    unused = astray(keys, [DetachedHeader("vg/home", Path("h"))], {"disk1/p1"})
    assert [each.message.split(",")[0] for each in unused] == [
        "a key was given for vg/root",
        "a header was given for vg/home",
    ]


def test_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin_of(monkeypatch, b"one\n\ntwo\xff\nthree")
    keys = read_keys([], from_stdin=True)
    assert keys_for("anything", keys) == [b"one", b"two\xff", b"three"]


def test_own_keys_come_first() -> None:
    keys = [Key("all", b"a"), Key("disk0", b"b"), Key("disk1", b"c")]
    assert keys_for("disk0", keys) == [b"b", b"a"]
    assert keys_for("disk2", keys) == [b"a"]


@pytest.mark.parametrize(
    "word",
    [
        "",
        "secret",
        "disk0",
        "disk0:",
        "disk0:secret",
        "disk0:pass:secret",
        ":file:x",
        "disk0:file:",
    ],
)
def test_a_secret_given_by_mistake_is_not_repeated(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_keys([word], from_stdin=False)
    assert "secret" not in caught.value.message + caught.value.hint


def test_missing_empty_and_huge_files(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"\n")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_KEY + 1)
    for name in ("missing", "empty", "huge", "nul\0name"):
        with pytest.raises(UsageError, match="--key"):
            read_keys([f"all:file:{tmp_path / name}"], from_stdin=False)


def test_too_much_on_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin_of(monkeypatch, bytes(MAX_KEY + 1))
    with pytest.raises(UsageError, match="8 MiB"):
        read_keys([], from_stdin=True)
    stdin_of(monkeypatch, b"word\n" * (MAX_ALL // 4 + 1))
    with pytest.raises(UsageError, match="together"):
        read_keys([], from_stdin=True)


def test_prompt_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin_of(monkeypatch, b"word\n")
    with pytest.raises(UsageError, match="terminal"):
        read_keys(["disk0:prompt"], from_stdin=False)


def test_prompt_on_a_terminal() -> None:
    """The passphrase is asked for by name and is not echoed."""
    pid, terminal = pty.fork()
    if pid == 0:
        sys.stdin = os.fdopen(0)
        keys = read_keys(["disk0:prompt"], from_stdin=False)
        os._exit(0 if keys == (Key("disk0", b"word"),) else 1)
    seen = b""
    while b"disk0: " not in seen:
        seen += os.read(terminal, 100)
    os.write(terminal, b"word\n")
    with suppress(OSError):  # how a terminal says that nobody holds its other end
        while data := os.read(terminal, 100):
            seen += data
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert status == 0
    assert b"word" not in seen


def test_a_key_does_not_show_itself() -> None:
    assert "word" not in repr(Key("disk0", b"word"))
