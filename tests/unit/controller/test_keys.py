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
from controller.keys import MAX_KEY, Key, keys_for, read_keys


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
    assert read_keys([f"disk0:{kind}:{path}"], from_stdin=False) == (Key("disk0", secret),)


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
