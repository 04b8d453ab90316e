"""The NBD client against servers that lie: one error, in bounded time, whatever they say."""

from __future__ import annotations

import hashlib
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import nbd_client, nbd_handshake
from images.errors import ExportFailed
from images.hashing import ReadFailed, digest_export
from images.nbd_wire import NbdError, NbdReadError, Wire
from images.read_ahead import BLOCK, Buffers, Cancelled

from .conftest import MIB

SIZE = 5 * MIB + 512
CONTENT = bytes(range(1, 251)) * (SIZE // 250 + 1)
CONTENT = CONTENT[: 2 * MIB] + bytes(MIB) + CONTENT[3 * MIB : SIZE]
OPTION = 0x0003E889045565A9
CHUNK = 0x668E33EF
DONE, NONE, DATA, HOLE, STATUS, ERROR, ERROR_AT = 1, 0, 1, 2, 5, 0x8001, 0x8002
GOOD_FLAGS = 1 | 2 | 1 << 7


@dataclass
class Request:
    flags: int
    command: int
    handle: int
    offset: int
    length: int


class Server:
    """An honest server; a test replaces the methods in which it lies."""

    size = SIZE
    flags = GOOD_FLAGS
    blocks = (1, 4096, 32 * MIB)
    context: int | None = 7

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            block = self.connection.recv(length - len(data))
            if not block:
                raise EOFError
            data += block
        return data

    def run(self) -> None:
        self.greet()
        self.receive(4)
        while True:
            _, option, length = struct.unpack(">8sII", self.receive(16))
            self.option(option, self.receive(length))
            if option == 7:
                break
        while True:
            request = Request(*struct.unpack(">4xHHQQI", self.receive(28)))
            if request.command == 2:
                return
            self.read(request) if request.command == 0 else self.status(request)

    def greet(self) -> None:
        self.send(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))

    def option(self, option: int, _data: bytes) -> None:
        if option == 7:
            self.info(struct.pack(">HQH", 0, self.size, self.flags))
            self.info(struct.pack(">HIII", 3, *self.blocks))
        if option == 10 and self.context is not None:
            self.answer(10, 4, struct.pack(">I", self.context) + b"base:allocation")
        self.answer(option, 1, b"")

    def info(self, data: bytes) -> None:
        self.answer(7, 3, data)

    def answer(self, option: int, kind: int, data: bytes) -> None:
        self.send(struct.pack(">QIII", OPTION, option, kind, len(data)) + data)

    def chunk(self, handle: int, kind: int, data: bytes, flags: int = DONE) -> None:
        self.send(struct.pack(">IHHQI", CHUNK, flags, kind, handle, len(data)) + data)

    def read(self, request: Request) -> None:
        data = CONTENT[request.offset : request.offset + request.length]
        self.chunk(request.handle, DATA, struct.pack(">Q", request.offset) + data)

    def status(self, request: Request) -> None:
        extents = [(2 * MIB, 0), (MIB, 3), (SIZE - 3 * MIB, 1)]
        self.extents(request, *extents)

    def extents(self, request: Request, *extents: tuple[int, int], context: int = 7) -> None:
        packed = b"".join(struct.pack(">II", *extent) for extent in extents)
        self.chunk(request.handle, STATUS, struct.pack(">I", context) + packed)


@contextmanager
def serving(folder: Path, make: Callable[[socket.socket], Server]) -> Iterator[Path]:
    path = folder / "nbd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            with suppress(OSError, EOFError):
                connection, _ = listener.accept()
                with connection:
                    make(connection).run()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()


def fetch(folder: Path, make: Callable[[socket.socket], Server], **options):
    with serving(folder, make) as path:
        return digest_export(
            path, "disk", SIZE, path=Path("/evidence/disk"), **{"timeout": 0.5, **options}
        )


def test_honest_server(run_folder):
    found = fetch(run_folder, Server)
    assert found.digests["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert found.holes == MIB


class NoStatus(Server):
    context = None


class InPieces(Server):
    """Holes and data by turns, as QEMU sends them where it may."""

    flags = 1 | 2

    def read(self, request: Request) -> None:
        assert request.flags == 0
        end = request.offset + request.length
        for offset in range(request.offset, end, 100_000):
            data = CONTENT[offset : min(end, offset + 100_000)]
            if any(data):
                self.chunk(request.handle, DATA, struct.pack(">Q", offset) + data, flags=0)
            else:
                self.chunk(request.handle, HOLE, struct.pack(">QI", offset, len(data)), flags=0)
        self.chunk(request.handle, NONE, b"")


class Unordered(NoStatus):
    """Answers the last question first."""

    def run(self) -> None:
        self.waiting: list[Request] = []
        super().run()

    def read(self, request: Request) -> None:
        self.waiting.append(request)
        if len(self.waiting) == -(-SIZE // MIB):
            for each in reversed(self.waiting):
                super().read(each)


class SmallExtents(Server):
    """Zeros too short to be skipped, status replies that end early, and one that goes too far."""

    def status(self, request: Request) -> None:
        if request.offset:
            self.extents(request, (SIZE, 0))
        else:
            self.extents(request, (2 * MIB, 0), (1000, 3), (1000, 2), (512, 0), (512, 2))


@pytest.mark.parametrize("kind", [NoStatus, InPieces, Unordered, SmallExtents])
def test_what_a_server_may_do(run_folder, kind):
    found = fetch(run_folder, kind)
    assert found.digests["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def reading(function: Callable[[Server, Request], None]) -> type[Server]:
    return type("Lying", (Server,), {"read": function})


def stating(function: Callable[[Server, Request], None]) -> type[Server]:
    return type("Lying", (Server,), {"status": function})


def saying(**attributes: object) -> type[Server]:
    return type("Lying", (Server,), attributes)


def at(offset: int, data: bytes) -> bytes:
    return struct.pack(">Q", offset) + data


def nothing(server: Server, *_anything: object) -> None:
    """Say no more, and wait until the client has gone."""
    while server.connection.recv(4096):
        continue
    raise EOFError


def raw(server: Server, *fields: int) -> None:
    server.send(struct.pack(">IHHQI", *fields))


LIES: dict[str, type[Server]] = {
    "no greeting": saying(greet=nothing),
    "other greeting": saying(greet=lambda self: self.send(b"HTTP/1.1 400 Bad Request\r\n")),
    "oldstyle": saying(greet=lambda self: self.send(b"NBDMAGICIHAVEOPT\0\0")),
    "closes at once": saying(greet=lambda self: self.connection.close()),
    "option is not answered": saying(option=nothing),
    "option answered wrongly": saying(
        option=lambda self, option, _data: self.answer(option + 1, 1, b"")
    ),
    "no magic in an answer": saying(option=lambda self, _option, _data: self.send(bytes(20))),
    "endless answers": saying(
        option=lambda self, option, _data: [
            self.answer(option, 3, struct.pack(">HI", 9, 0)) for _ in range(1000)
        ]
    ),
    "huge answer": saying(
        option=lambda self, option, _data: self.send(
            struct.pack(">QIII", OPTION, option, 3, 0xFFFFFFFF)
        )
    ),
    "refuses": saying(
        option=lambda self, option, _data: self.answer(option, (1 << 31) + 6, b"\x1b[31mno")
    ),
    "wrong size": saying(size=SIZE - 512),
    "size beyond all": saying(size=(1 << 64) - 1),
    "writable": saying(flags=1),
    "no flags": saying(flags=0),
    "no blocks": saying(blocks=(0, 0, 0)),
    "odd blocks": saying(blocks=(513, 4096, 32 * MIB)),
    "large blocks": saying(blocks=(128 << 10, 4096, 32 * MIB)),
    "small blocks": saying(blocks=(1, 4096, BLOCK - 1)),
    "short description": saying(info=lambda self, data: self.answer(7, 3, data[:-1])),
    "empty description": saying(info=lambda self, _data: self.answer(7, 3, b"")),
    "no description": saying(info=lambda self, _data: None),
    "two descriptions": saying(
        info=lambda self, data: [self.answer(7, 3, data) for _ in range(2)]
    ),
    "other context": saying(
        option=lambda self, option, _data: self.answer(option, 1, b"")
        if option != 10
        else self.answer(10, 4, bytes(4) + b"qemu:dirty")
    ),
    "never answers": reading(nothing),
    "never says what is zero": stating(nothing),
    "closes": reading(lambda self, _request: self.connection.close()),
    "no structured reply": reading(
        lambda self, request: self.send(struct.pack(">IIQ", 0x67446698, 0, request.handle) * 2)
    ),
    "wrong handle": reading(lambda self, request: self.chunk(request.handle ^ 1 << 40, NONE, b"")),
    "handle twice": reading(
        lambda self, request: [Server.read(self, request) for _ in range(2)]
    ),
    "unknown flags": reading(lambda self, request: raw(self, CHUNK, 3, NONE, request.handle, 0)),
    "unknown type": reading(lambda self, request: self.chunk(request.handle, 77, b"")),
    "status for a read": reading(lambda self, request: self.extents(request, (SIZE, 0))),
    "data for a status": stating(Server.read),
    "nothing for a read": reading(lambda self, request: self.chunk(request.handle, NONE, b"")),
    "nothing for a status": stating(lambda self, request: self.chunk(request.handle, NONE, b"")),
    "not the end": reading(lambda self, request: self.chunk(request.handle, NONE, b"", flags=0)),
    "nothing, with content": reading(lambda self, request: self.chunk(request.handle, NONE, b"x")),
    "short data": reading(
        lambda self, request: self.chunk(
            request.handle, DATA, at(request.offset, bytes(request.length - 1))
        )
    ),
    "long data": reading(
        lambda self, request: self.chunk(
            request.handle, DATA, at(request.offset, bytes(request.length + 1))
        )
    ),
    "oversized chunk": reading(
        lambda self, request: self.send(
            struct.pack(">IHHQIQ", CHUNK, 1, DATA, request.handle, 0xFFFFFFFF, request.offset)
        )
    ),
    "no data": reading(lambda self, request: self.chunk(request.handle, DATA, b"1234567")),
    "empty data": reading(
        lambda self, request: self.chunk(request.handle, DATA, at(request.offset, b""))
    ),
    "data of elsewhere": reading(
        lambda self, request: self.chunk(
            request.handle, DATA, at(request.offset + 1, bytes(request.length))
        )
    ),
    "data before": reading(
        lambda self, request: self.chunk(request.handle, DATA, at(0, bytes(request.length)))
        if request.offset
        else Server.read(self, request)
    ),
    "same data twice": reading(
        lambda self, request: [
            self.chunk(request.handle, DATA, at(request.offset, b"x" * 100), flags=0)
            for _ in range(2)
        ]
    ),
    "long hole": reading(
        lambda self, request: self.chunk(
            request.handle, HOLE, struct.pack(">QI", request.offset, 0xFFFFFFFF)
        )
    ),
    "empty hole": reading(
        lambda self, request: self.chunk(
            request.handle, HOLE, struct.pack(">QI", request.offset, 0), flags=0
        )
    ),
    "odd hole": reading(lambda self, request: self.chunk(request.handle, HOLE, bytes(13))),
    "huge status": stating(
        lambda self, request: raw(self, CHUNK, 1, STATUS, request.handle, 0xFFFFFFFC)
    ),
    "odd status": stating(lambda self, request: self.chunk(request.handle, STATUS, bytes(13))),
    "no range": stating(lambda self, request: self.chunk(request.handle, STATUS, bytes(4))),
    "status of another context": stating(
        lambda self, request: self.extents(request, (SIZE, 0), context=8)
    ),
    "empty range": stating(lambda self, request: self.extents(request, (0, 3), (SIZE, 0))),
    "surplus range": stating(lambda self, request: self.extents(request, (SIZE, 0), (1, 0))),
    "status twice": stating(
        lambda self, request: [self.extents(request, (SIZE, 0)) for _ in range(2)]
    ),
    "cannot say what is zero": stating(
        lambda self, request: self.chunk(request.handle, ERROR, struct.pack(">IH", 5, 0))
    ),
    "error that is none": reading(
        lambda self, request: self.chunk(request.handle, ERROR, struct.pack(">IH", 0, 0))
    ),
    "error too short": reading(lambda self, request: self.chunk(request.handle, ERROR, bytes(5))),
    "error too long": reading(
        lambda self, request: raw(self, CHUNK, 1, ERROR, request.handle, 1 << 20)
    ),
    "error of another length": reading(
        lambda self, request: self.chunk(request.handle, ERROR, struct.pack(">IH", 5, 9) + b"x")
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_lie_is_an_error_in_bounded_time(run_folder, lie):
    begin = time.monotonic()
    with serving(run_folder, LIES[lie]) as path:
        with pytest.raises(ExportFailed) as failure:
            digest_export(path, "disk", SIZE, path=Path("/evidence/disk"), timeout=0.5)
        assert time.monotonic() - begin < 2
    assert str(failure.value).startswith("/evidence/disk: ")
    assert "\x1b" not in str(failure.value)
    assert failure.value.hint


class Dripping(Server):
    """A byte at a time: each arrives in time, the answer never does."""

    def read(self, request: Request) -> None:
        self.send(struct.pack(">IHHQIQ", CHUNK, 1, DATA, request.handle, MIB + 8, request.offset))
        for _ in range(1000):
            self.send(b"x")
            time.sleep(0.05)


def test_dripping_does_not_extend_the_time(run_folder):
    begin = time.monotonic()
    with serving(run_folder, Dripping) as path, pytest.raises(ExportFailed, match=r"within 0\.5"):
        digest_export(path, "disk", SIZE, path=Path("/evidence/disk"), timeout=0.5)
    assert time.monotonic() - begin < 2


def test_silent_server_can_be_left_at_once(run_folder):
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with serving(run_folder, LIES["never answers"]) as path:
        begin = time.monotonic()
        with pytest.raises(Cancelled):
            digest_export(path, "disk", SIZE, path=Path("/evidence/disk"), timeout=60, stop=stop)
        assert time.monotonic() - begin < 0.4


def test_server_that_does_not_accept(run_folder):
    path = run_folder / "s"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(path))
        listener.listen(0)
        other.connect(str(path))
        with pytest.raises(ExportFailed, match=r"within 0\.3 seconds"):
            digest_export(path, "disk", SIZE, path=Path("/evidence/disk"), timeout=0.3)


@pytest.mark.parametrize(
    ("kind", "message", "reason"),
    [
        (ERROR, b"", "Input/output error"),
        (ERROR, b"bad\x1b[31m sector", r"bad\x1b[31m sector"),
        (ERROR_AT, b"bad", "bad"),
    ],
)
def test_read_error_names_the_range(run_folder, kind, message, reason):
    def read(self, request):
        if request.offset < 3 * MIB:
            return Server.read(self, request)
        extra = struct.pack(">Q", request.offset) if kind == ERROR_AT else b""
        packed = struct.pack(">IH", 5, len(message)) + message + extra
        return self.chunk(request.handle, kind, packed)

    with pytest.raises(ReadFailed) as failure:
        fetch(run_folder, reading(read))
    assert (failure.value.offset, failure.value.length) == (3 * MIB, MIB)
    assert reason in str(failure.value)


# --- any bytes at all ---------------------------------------------------------------------------


class Tape:
    """In the place of a socket: it plays bytes that were made before, and then has ended."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)

    def settimeout(self, _seconds: float) -> None:
        pass

    def send(self, data: bytes) -> int:
        return len(data)

    def recv_into(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self.data), 4096)
        buffer[:count] = self.data[:count]
        self.data = self.data[count:]
        return count


def wire(data: bytes) -> Wire:
    return Wire(Tape(data), lambda: False, 5)  # type: ignore[arg-type]


ANSWER = st.builds(
    lambda magic, option, kind, data, length: (
        struct.pack(">QIII", magic, option, kind, len(data) if length is None else length) + data
    ),
    st.sampled_from([OPTION] * 9 + [0]),
    st.sampled_from([7, 8, 10]),
    st.sampled_from([1, 3, 4, 1 << 31 | 1]),
    st.one_of(
        st.binary(max_size=20),
        st.just(struct.pack(">HQH", 0, SIZE, 3)),
        st.just(struct.pack(">HIII", 3, 1, 4096, 32 * MIB)),
        st.just(b""),
        st.just(bytes(4) + b"base:allocation"),
    ),
    st.one_of(st.none(), st.none(), st.integers(0, (1 << 32) - 1)),
)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=30), st.lists(ANSWER, max_size=8), st.booleans())
def test_any_handshake(noise, answers, greeted):
    greeting = b"NBDMAGICIHAVEOPT\0\3" if greeted else noise
    try:
        agreed = nbd_handshake.negotiate(wire(greeting + b"".join(answers) + noise), "disk", SIZE)
    except NbdError:
        return
    assert agreed.size == SIZE


HANDLES = 41 << 32
PAYLOAD = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 4096).map(lambda length: at(0, b"d" * length)),
    st.tuples(st.integers(0, 9000), st.integers(0, 9000)).map(lambda x: struct.pack(">QI", *x)),
    st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 3)), max_size=5).map(
        lambda extents: bytes(4) + b"".join(struct.pack(">II", *extent) for extent in extents)
    ),
)
REPLY = st.builds(
    lambda flags, kind, number, data, length: (
        struct.pack(
            ">IHHQI", CHUNK, flags, kind, HANDLES + number, len(data) if length is None else length
        )
        + data
    ),
    st.sampled_from([0, 1, 1, 1, 2]),
    st.sampled_from([NONE, DATA, DATA, HOLE, STATUS, STATUS, ERROR, ERROR_AT, 9]),
    st.integers(1, 4),
    PAYLOAD,
    st.one_of(st.none(), st.none(), st.none(), st.integers(0, (1 << 32) - 1)),
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(REPLY, max_size=10), st.sampled_from([None, 0]), st.integers(1, 9000))
def test_any_reply(replies, context, size):
    client = nbd_client.NbdClient(
        wire(b"".join(replies)), nbd_handshake.Agreed(size, context, in_one=True)
    )
    client._next_handle = HANDLES
    buffers = Buffers(3, lambda: False)
    total = 0
    failed: tuple[int, int] | None = None
    try:
        for piece in client.content(buffers):
            assert 0 < piece.length <= (size if piece.is_zero else BLOCK)
            total += piece.length
            buffers.give(piece.buffer)
    except NbdReadError as error:
        failed = error.offset, error.length
    except NbdError:
        return
    if failed:
        assert 0 <= failed[0] < sum(failed) <= size
    else:
        assert total == size


def test_nbdkit_is_understood(run_folder):
    path = run_folder / "nbd.sock"
    argv = ["nbdkit", "-f", "-r", "-U", path, "pattern", f"{9 * MIB + 512}"]
    expected = b"".join(struct.pack(">Q", n) for n in range(0, 9 * MIB + 512, 8))
    with subprocess.Popen(argv) as server:
        try:
            deadline = time.monotonic() + 10
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            found = digest_export(path, "", 9 * MIB + 512, path=path)
        finally:
            server.terminate()
    assert found.digests["sha256"] == hashlib.sha256(expected).hexdigest()
