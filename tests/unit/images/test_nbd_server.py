"""Our NBD server against clients that break the protocol: they lose their connection, no more."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.errors import ImageError
from images.reader import nbd_server

SIZE = 3 * 4096 + 100
"""Not a whole number of sectors."""
SERVED = 3 * 4096 + 512
BAD = 8192
DATA = bytes(range(256)) * (SIZE // 256 + 1)
STRUCTURED, GO, INFO, LIST, ABORT, CONTEXT = 8, 7, 6, 3, 2, 10
ACK, DESCRIPTION = 1, 3
UNSUPPORTED, POLICY, INVALID, UNKNOWN = ((1 << 31) + each for each in (1, 2, 3, 6))


class Disk:
    """Cannot be read where BAD lies."""

    size = SIZE

    def read(self, offset: int, length: int) -> bytes:
        if offset <= BAD < offset + length:
            raise ImageError("the chunk \x1b[31m is damaged", path=Path("x"))
        assert offset + length <= SIZE
        return DATA[offset : offset + length]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where one server listens for the whole module: a bad client must not harm the next."""
    path = tmp_path_factory.mktemp("nbd") / "socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    threading.Thread(
        target=nbd_server.serve, args=(listener.detach(), Disk(), "disk0"), daemon=True
    ).start()
    return str(path)


class Client:
    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(address)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            block = self.socket.recv(length - len(data))
            if not block:
                raise EOFError
            data += block
        return data

    def greet(self, flags: int = 3) -> Client:
        assert self.receive(18) == b"NBDMAGICIHAVEOPT\0\3"
        self.socket.sendall(struct.pack(">I", flags))
        return self

    def ask(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """All replies to one option."""
        self.socket.sendall(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)
        replies = []
        while not replies or replies[-1][0] == DESCRIPTION:
            magic, option, kind, length = struct.unpack(">QIII", self.receive(20))
            assert (magic, option) == (0x0003E889045565A9, number)
            replies.append((kind, self.receive(length)))
        return replies

    def go(self, name: str = "disk0") -> list[tuple[int, bytes]]:
        return self.ask(GO, struct.pack(">I", len(name)) + name.encode() + bytes(2))

    def opened(self) -> Client:
        self.greet()
        assert self.ask(STRUCTURED) == [(ACK, b"")]
        assert self.go()[-1] == (ACK, b"")
        return self

    def send(self, kind: int, offset: int, length: int, magic: int = 0x25609513) -> None:
        self.socket.sendall(struct.pack(">IHHQQI", magic, 0, kind, 7, offset, length))

    def reply(self) -> tuple[int, bytes]:
        """Kind and data of the one chunk that answers a request."""
        magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self.receive(20))
        assert (magic, flags, cookie) == (0x668E33EF, 1, 7)
        return kind, self.receive(length)

    def read(self, offset: int, length: int) -> tuple[int, bytes]:
        self.send(0, offset, length)
        return self.reply()

    def assert_closed(self) -> None:
        with pytest.raises((EOFError, ConnectionResetError)):
            self.receive(1)


@pytest.fixture
def client(address):
    with Client(address) as made:
        yield made


@pytest.fixture(autouse=True)
def next_client_is_served(address):
    yield
    with Client(address) as other:
        assert other.opened().read(0, 16) == (1, bytes(8) + DATA[:16])


def test_export_is_described(client):
    client.greet()
    client.ask(STRUCTURED)
    size, blocks, last = client.go()
    assert size[1] == struct.pack(">HQH", 0, SERVED, 0b1_1000_0011)
    assert blocks[1] == struct.pack(">HIII", 3, 1, 4096, nbd_server.MAX_REQUEST)
    assert last == (ACK, b"")


def test_info_does_not_begin_the_transmission(client):
    client.greet()
    client.ask(STRUCTURED)
    assert client.ask(INFO, struct.pack(">I5sH", 5, b"disk0", 0))[-1] == (ACK, b"")
    assert client.go()[-1] == (ACK, b"")


def test_end_is_filled_up_with_zeros(client):
    client.opened()
    kind, data = client.read(3 * 4096, 512)
    assert kind == 1
    assert data[8:] == DATA[3 * 4096 : SIZE].ljust(512, b"\0")
    assert client.read(SERVED - 1, 1) == (1, struct.pack(">Q", SERVED - 1) + b"\0")


def test_what_cannot_be_read_says_why_and_the_rest_goes_on(client):
    client.opened()
    kind, data = client.read(BAD, 512)
    number, length = struct.unpack_from(">IH", data)
    assert (kind, number) == (0x8001, errno.EIO)
    assert data[6:].decode() == r"the chunk \x1b[31m is damaged"
    assert length == len(data) - 6
    assert client.read(0, 16)[0] == 1


@pytest.mark.parametrize(
    ("kind", "offset", "length"),
    [
        (0, SERVED, 1),
        (0, 0, SERVED + 1),
        (0, (1 << 64) - 1, 1),
        (0, 0, 0),
        (0, 0, nbd_server.MAX_REQUEST + 1),
        (0, 0, (1 << 32) - 1),
        (3, 0, 0),
        (4, 0, 512),
        (6, 0, 512),
        (7, 0, 512),
        (0xFFFF, 0, 512),
    ],
)
def test_anything_but_a_read_within_the_disk_is_an_error(kind, offset, length, client):
    client.opened()
    client.send(kind, offset, length)
    found, data = client.reply()
    assert found == 0x8001
    assert int.from_bytes(data[:4], "big") == errno.EINVAL
    assert client.read(0, 1)[0] == 1


@pytest.mark.parametrize(
    ("kind", "magic"), [(1, 0x25609513), (2, 0x25609513), (0, 0x25609514), (0, 0)]
)
def test_write_disconnect_and_nonsense_end_the_connection(kind, magic, client):
    client.opened()
    client.send(kind, 0, 512, magic)
    client.assert_closed()


def test_requests_are_answered_beside_each_other(client):
    client.opened()
    for _ in range(50):
        client.send(0, 100, 10)
    expected = (1, struct.pack(">Q", 100) + DATA[100:110])
    assert [client.reply() for _ in range(50)] == [expected] * 50


def test_structured_replies_are_demanded(client):
    client.greet()
    assert client.go() == [(POLICY, b"")]
    client.ask(STRUCTURED)
    assert client.go()[-1] == (ACK, b"")


@pytest.mark.parametrize("name", ["", "disk", "disk00", "../disk0", "x" * 4096])
def test_other_exports_do_not_exist(name, client):
    client.greet()
    client.ask(STRUCTURED)
    assert client.go(name) == [(UNKNOWN, b"")]
    assert client.go()[-1] == (ACK, b"")


@pytest.mark.parametrize(
    ("number", "data", "answer"),
    [
        (LIST, b"", UNSUPPORTED),
        (1, b"disk0", UNSUPPORTED),
        (5, b"", UNSUPPORTED),
        (0xFFFFFFFF, b"x" * 8192, UNSUPPORTED),
        (STRUCTURED, b"x", INVALID),
        (CONTEXT, b"anything", ACK),
        (GO, b"", INVALID),
        (GO, b"\xff\xff\xff\xff\0\0", INVALID),
        (GO, b"\0\0\0\x05disk", INVALID),
    ],
)
def test_options_are_answered(number, data, answer, client):
    client.greet()
    assert client.ask(number, data) == [(answer, b"")]
    client.ask(STRUCTURED)
    assert client.go()[-1] == (ACK, b"")


def test_abort_ends_the_connection(client):
    client.greet()
    assert client.ask(ABORT) == [(ACK, b"")]
    client.assert_closed()


def test_unknown_client_flags_end_the_connection(client):
    client.greet(flags=4)
    client.assert_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"IHAVENOT" + struct.pack(">II", LIST, 0),
        b"IHAVEOPT" + struct.pack(">II", LIST, 8193),
        b"IHAVEOPT" + struct.pack(">II", LIST, 0xFFFFFFFF),
    ],
)
def test_broken_and_endless_options_end_the_connection(data, client):
    client.greet()
    client.socket.sendall(data)
    client.assert_closed()


def test_negotiation_is_bounded(client):
    client.greet()
    for _ in range(64):
        client.ask(LIST)
    client.assert_closed()


def test_ninth_client_is_turned_away(address):
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(address)).opened() for _ in range(8)]
        with Client(address) as ninth:
            ninth.assert_closed()
        assert all(each.read(0, 1)[0] == 1 for each in clients)


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=200), opened=st.booleans())
def test_noise_harms_nobody_else(noise, opened, address):
    with Client(address) as client:
        if opened:
            client.opened()
        else:
            client.greet()
        client.socket.sendall(noise)
        client.socket.shutdown(socket.SHUT_WR)
        try:
            while client.receive(1):
                pass
        except (EOFError, ConnectionResetError):
            pass
