"""The guest's console: bounded whatever it says, its first and last words kept."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.console import LIMIT, Console, connect

MIB = 1 << 20


@contextmanager
def guest(folder: Path) -> Iterator[tuple[Console, socket.socket]]:
    """A console, and the end that QEMU would write to."""
    path = folder / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        with Console(path) as console:
            peer, _ = listener.accept()
            with peer:
                yield console, peer


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_content(tmp_path: Path) -> None:
    with guest(tmp_path) as (console, peer):
        assert console.content() == b""
        peer.sendall(b"first\r\n")
        peer.sendall(b"second \x1b[31m\xff\r\n")
        until(lambda: console.content().count(b"\n") == 2)
        assert console.content() == b"first\r\nsecond \x1b[31m\xff\r\n"


@pytest.mark.parametrize("extra", [-1, 0])
def test_up_to_the_limit_nothing_is_left_out(tmp_path: Path, extra: int) -> None:
    data = bytes(range(256)) * (LIMIT // 256 + 1)
    with guest(tmp_path) as (console, peer):
        peer.sendall(data[: LIMIT + extra])
        until(lambda: len(console.content()) >= LIMIT + extra)
        assert console.content() == data[: LIMIT + extra]


def test_one_byte_above_the_limit(tmp_path: Path) -> None:
    data = b"a" * (LIMIT // 2) + b"b" + b"c" * (LIMIT // 2)
    with guest(tmp_path) as (console, peer):
        peer.sendall(data)
        until(lambda: len(console.content()) > LIMIT)
        mark = b"\n[1 bytes left out]\n"
        assert console.content() == b"a" * (LIMIT // 2) + mark + b"c" * (LIMIT // 2)


def test_flood_is_bounded(tmp_path: Path) -> None:
    """64 MiB: head and tail are kept, memory is not."""
    total, block = 64 * MIB, b"x" * 65535 + b"\n"
    with guest(tmp_path) as (console, peer):
        before = resident()
        peer.sendall(b"first words\n")
        for _ in range(total // len(block)):
            peer.sendall(block)
        peer.sendall(b"Kernel panic\n")
        until(lambda: console.content().endswith(b"Kernel panic\n"), 20)
        assert resident() - before < 16 * MIB
        content = console.content()
        assert content.startswith(b"first words\n")
        assert LIMIT <= len(content) < LIMIT + 100
        left_out = total + len(b"first words\nKernel panic\n") - LIMIT
        assert b"\n[%d bytes left out]\n" % left_out in content


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_last_lines_are_safe_to_print(tmp_path: Path) -> None:
    with guest(tmp_path) as (console, peer):
        peer.sendall(b"one\r\n\r\n   \ntwo \x1b]0;x\x07\xff\r\n" + b"y" * 5000 + b"\nend")
        until(lambda: console.content().endswith(b"end"))
        lines = console.last_lines(3)
        assert lines == ["two \\x1b]0;x\\x07\\xff", "y" * 300, "end"]
        assert console.last_lines(1) == ["end"]
        assert len(console.last_lines(99)) == 4


def test_end_of_the_guest(tmp_path: Path) -> None:
    with guest(tmp_path) as (console, peer):
        peer.sendall(b"bye")
        peer.close()
        until(lambda: console.content() == b"bye")


def consoles() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "console"]


def test_thread_ends_with_the_guest(tmp_path: Path) -> None:
    with guest(tmp_path) as (_console, peer):
        peer.close()
        until(lambda: not consoles())


def test_thread_ends_with_the_console(tmp_path: Path) -> None:
    """Also where QEMU lives on."""
    path = tmp_path / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        with Console(path):
            peer, _ = listener.accept()
            time.sleep(0.1)
        try:
            time.sleep(0.5)
            assert not consoles()
        finally:
            peer.close()
            until(lambda: not consoles())


def test_connect_waits_for_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "console"
    listener = socket.socket(socket.AF_UNIX)

    def appear() -> None:
        time.sleep(0.2)
        listener.bind(str(path))
        listener.listen(1)

    thread = threading.Thread(target=appear)
    thread.start()
    try:
        connect(path, timeout=5).close()
    finally:
        thread.join()
        listener.close()


def test_connect_gives_up(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(FileNotFoundError):
        connect(tmp_path / "console", timeout=0.2)
    assert 0.2 <= time.monotonic() - begin < 2
