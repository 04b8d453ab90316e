"""controller.ssh.session against guests that keep to the rules, and against those that do not.

A guest here is a function that gets the other end of the port in a thread of its own.
"""

from __future__ import annotations

import base64
import io
import json
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance.agent.provision import make_key
from appliance.layer import Kind, Layer, Status
from appliance.protocol import (
    AGENT_ADDRESS,
    CIPHER,
    KEX,
    KEY,
    MAC,
    MAX_LINE,
    VERSION,
    Disk,
    Mapped,
    Provisioned,
    encode_reply,
    read_frame,
)
from controller import ssh
from controller.agent_client import AgentClient
from controller.errors import GuestFailed, GuestHostile
from controller.metered import Metered
from tests.builders.command import execute

MIB = 1 << 20
LIMIT = 1.0
"""Seconds that a session gets here."""
LATE = 2.0
"""How much later than its limit it may end on a busy machine."""

ENTERED = threading.Event()
"""Set when the client has its session: a guest that strikes earlier is met in `_open` already."""

Play = Callable[[socket.socket], None]


class Guest:
    """Listens like QEMU at the port's socket and plays one conversation."""

    def __init__(self, folder: Path, play: Play) -> None:
        self.path = folder / "port"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(1)
        self._play = play
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="guest")
        self.trouble: list[str] = []

    def _run(self) -> None:
        with self._listener:
            self._connection, _ = self._listener.accept()
        with self._connection, suppress(OSError, EOFError, paramiko.SSHException):
            self._play(self._connection)

    def __enter__(self) -> Guest:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No thread and no descriptor may outlive a session, however it ended."""
    threads, descriptors = set(threading.enumerate()), open_files()
    ENTERED.clear()
    yield
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if set(threading.enumerate()) <= threads and open_files() == descriptors:
            return
        time.sleep(0.02)
    assert set(threading.enumerate()) <= threads
    assert open_files() == descriptors


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def read_line(peer: socket.socket) -> dict[str, Any]:
    line = bytearray()
    while not line.endswith(b"\n"):
        line += peer.recv(1)
    order = json.loads(line)
    assert isinstance(order, dict)
    return order


def answer(peer: socket.socket, host_key: str, version: int = VERSION) -> None:
    body = {"version": version, "host_key": host_key, "draw": "00" * 16}
    peer.sendall(json.dumps(body).encode() + b"\n")


def as_server_key(private: bytes) -> paramiko.Ed25519Key:
    """Dropbear's form ends with the seed and the public half."""
    key = Ed25519PrivateKey.from_private_bytes(private[-64:-32])
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return paramiko.Ed25519Key(file_obj=io.StringIO(pem.decode()))


def provisioned(peer: socket.socket) -> tuple[paramiko.Ed25519Key, str]:
    """Play the first conversation well; return the host key and the session's public key."""
    order = read_line(peer)
    private, public = make_key()
    answer(peer, public)
    return as_server_key(private), order["client_key"]


class Rules(paramiko.ServerInterface):
    """What sshd in the appliance allows: root's session key, and one address to forward to."""

    def __init__(self, client_key: str) -> None:
        self.client_key = client_key
        self.addresses: list[tuple[str, int]] = []

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == "root" and f"{KEY} {key.get_base64()}" == self.client_key
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        self.addresses.append(destination)
        return paramiko.OPEN_SUCCEEDED


class Refusing(Rules):
    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_FAILED


class Undecided(Rules):
    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL


class Closed(Rules):
    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


Serve = Callable[[paramiko.Transport, paramiko.Channel], None]


def sshd(
    serve: Serve = lambda _transport, _channel: None,
    rules: type[Rules] = Rules,
    **algorithms: str,
) -> Play:
    """A guest that is provisioned well and then an SSH server, with only these algorithms."""

    def play(peer: socket.socket) -> None:
        host_key, client_key = provisioned(peer)
        run_server(peer, host_key, rules(client_key), serve, algorithms)

    return play


def run_server(
    peer: socket.socket,
    host_key: paramiko.PKey,
    rules: Rules,
    serve: Serve,
    algorithms: dict[str, str],
) -> None:
    transport = paramiko.Transport(peer)
    transport.add_server_key(host_key)
    options = transport.get_security_options()
    for name, value in ({"kex": KEX, "ciphers": CIPHER, "digests": MAC} | algorithms).items():
        if name != "key_types":
            setattr(options, name, [value])
    try:
        transport.start_server(server=rules)
        channel = transport.accept(LIMIT + LATE)
        if channel is not None:
            ENTERED.wait(LIMIT)
            serve(transport, channel)
        while transport.is_active():
            time.sleep(0.01)
    finally:
        peer.close()
        transport.close()
        transport.packetizer.complete_handshake()
        transport.join(5)


def reply_to_ping(_transport: paramiko.Transport, channel: paramiko.Channel) -> None:
    if read_frame(channel.recv) is not None:
        channel.sendall(encode_reply(Mapped({"kernel": "6.12"}, {})))


@contextmanager
def meeting(folder: Path, play: Play, seconds: float = LIMIT) -> Iterator[tuple[Any, Metered]]:
    with Guest(folder, play) as guest, ssh.session(guest.path, seconds=seconds) as session:
        ENTERED.set()
        yield session


def fails(folder: Path, play: Play, match: str | None = None) -> GuestFailed:
    """Meet a guest with which no session may come about; return the error."""
    begin = time.monotonic()
    with pytest.raises(GuestFailed, match=match) as caught, meeting(folder, play):
        pytest.fail("there is a session")
    assert time.monotonic() - begin < LIMIT + LATE
    assert caught.value.message.isprintable()
    return caught.value


# --- a guest that keeps to the rules ----------------------------------------------------------


def test_good_session(tmp_path: Path) -> None:
    orders: list[dict[str, Any]] = []
    notes: list[Provisioned] = []
    servers: list[Rules] = []

    def play(peer: socket.socket) -> None:
        orders.append(read_line(peer))
        private, public = make_key()
        answer(peer, public)
        servers.append(Rules(orders[0]["client_key"]))
        host_key = as_server_key(private)
        run_server(peer, host_key, servers[0], reply_to_ping, {})

    with Guest(tmp_path, play) as guest:  # noqa: SIM117
        with ssh.session(guest.path, seconds=5, note=notes.append) as (channel, meter):
            ENTERED.set()
            AgentClient(channel, meter).ping(seconds=5)
            assert 500 < meter.received < 4096
            transport = channel.get_transport()
            assert transport.remote_cipher == transport.local_cipher == CIPHER
            assert transport.host_key_type == KEY
            assert transport.agreed_on_strict_kex
    (order,) = orders
    assert set(order) == {"op", "entropy", "time_ns", "client_key"}
    assert len(base64.b64decode(order["entropy"], validate=True)) >= 32
    assert abs(order["time_ns"] - time.time_ns()) < 30e9
    assert notes[0].draw == "00" * 16
    assert servers[0].addresses == [AGENT_ADDRESS]


def test_every_session_has_a_key_and_entropy_of_its_own(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fails(tmp_path / name, lambda peer: seen.append(read_line(peer)), "before it answered")
    assert seen[0]["client_key"] != seen[1]["client_key"]
    assert seen[0]["entropy"] != seen[1]["entropy"]


def test_key_of_one_session_is_worth_nothing_in_the_next(tmp_path: Path) -> None:
    def play(peer: socket.socket) -> None:
        host_key, _ = provisioned(peer)
        run_server(peer, host_key, Rules(make_key()[1]), lambda *_: None, {})

    fails(tmp_path, play, "no SSH session")


# --- the line before SSH ----------------------------------------------------------------------

LINES: dict[str, bytes] = {
    "not JSON": b"hello\n",
    "empty": b"\n",
    "null": b"null\n",
    "a list": b"[]\n",
    "no host key": b'{"version":1,"draw":""}\n',
    "host key is a number": b'{"version":1,"host_key":1,"draw":""}\n',
    "host key is not base64": b'{"version":1,"host_key":"ssh-ed25519 !!!","draw":""}\n',
    "host key is not ASCII": '{"version":1,"host_key":"ssh-ed25519 ä","draw":""}\n'.encode(),
    "version is text": b'{"version":"1","host_key":"ssh-ed25519 AAAA","draw":""}\n',
    "version of a million digits": b'{"version":' + b"1" * 10_000 + b',"host_key":"a"}\n',
    "deep": b"[" * 8000 + b"\n",
    "not UTF-8": b'{"version":1,"host_key":"ssh-ed25519 AAAA","draw":"\xff"}\n',
}


@pytest.mark.parametrize("case", LINES)
def test_answer_that_makes_no_sense(tmp_path: Path, case: str) -> None:
    def play(peer: socket.socket) -> None:
        read_line(peer)
        peer.sendall(LINES[case])

    assert isinstance(fails(tmp_path, play, "makes no sense"), GuestHostile)


@pytest.mark.parametrize(
    "host_key",
    ["ssh-rsa AAAA", "ssh-ed25519-cert-v01@openssh.com AAAA", "AAAA", "", " AAAA", "\n"],
)
def test_other_kind_of_host_key(tmp_path: Path, host_key: str) -> None:
    def play(peer: socket.socket) -> None:
        read_line(peer)
        answer(peer, host_key)

    fails(tmp_path, play, "of another version")


@pytest.mark.parametrize("version", [0, VERSION + 1, -1, 2**63])
def test_other_version(tmp_path: Path, version: int) -> None:
    def play(peer: socket.socket) -> None:
        read_line(peer)
        answer(peer, make_key()[1], version)

    error = fails(tmp_path, play, "of another version")
    assert "appliance build" in error.hint


def test_endless_line(tmp_path: Path) -> None:
    sent = []

    def play(peer: socket.socket) -> None:
        read_line(peer)
        while True:
            sent.append(peer.send(b"x" * 4096))

    assert isinstance(fails(tmp_path, play, "too long"), GuestHostile)


def test_longest_line(tmp_path: Path) -> None:
    def play(peer: socket.socket) -> None:
        read_line(peer)
        peer.sendall(b"x" * (MAX_LINE - 1) + b"\n")

    fails(tmp_path, play, "makes no sense")


def test_silence(tmp_path: Path) -> None:
    def play(peer: socket.socket) -> None:
        while peer.recv(4096):
            pass

    fails(tmp_path, play, "did not answer within 1 seconds")


def test_slow_line(tmp_path: Path) -> None:
    def play(peer: socket.socket) -> None:
        read_line(peer)
        while True:
            peer.sendall(b" ")
            time.sleep(LIMIT / 20)

    fails(tmp_path, play, "did not answer within 1 seconds")


def test_end_before_the_answer(tmp_path: Path) -> None:
    fails(tmp_path, lambda _peer: None)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(GuestFailed), ssh.session(tmp_path / "port", seconds=0.2):
        pytest.fail("there is a session")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"code":"refused","message":"modprobe \\u001b[31m"}\n', r"modprobe \x1b[31m"),
        (b"nonsense\n", "its answer makes no sense"),
        (b"{}\n", "its answer makes no sense"),
        (b'{"code":"a","message":"\xff"}\n', "its answer makes no sense"),
        (b'{"tools":{"\xff":""},"timings":{}}\n', "its answer makes no sense"),
        (b"\xff\n", "its answer makes no sense"),
    ],
)
def test_guest_that_cannot_be_warmed(tmp_path: Path, line: bytes, words: str) -> None:
    def play(peer: socket.socket) -> None:
        assert read_line(peer) == {"op": "warm"}
        peer.sendall(line)

    with Guest(tmp_path, play) as guest, pytest.raises(GuestFailed) as caught:
        ssh.order_warm(guest.path, seconds=LIMIT)
    assert words in caught.value.message


def test_guest_that_is_warm(tmp_path: Path) -> None:
    def play(peer: socket.socket) -> None:
        read_line(peer)
        peer.sendall(b'{"tools":{"protocol":"1"},"timings":{}}\n')

    with Guest(tmp_path, play) as guest:
        ssh.order_warm(guest.path, seconds=LIMIT)


# --- SSH: keys and algorithms -----------------------------------------------------------------


def test_wrong_host_key(tmp_path: Path) -> None:
    """The key is compared before anything of ours is shown: no authentication takes place."""
    attempts: list[str] = []

    class Watching(Rules):
        def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
            attempts.append(username)
            return paramiko.AUTH_SUCCESSFUL

    def play(peer: socket.socket) -> None:
        _, client_key = provisioned(peer)
        other = as_server_key(make_key()[0])
        run_server(peer, other, Watching(client_key), lambda *_: None, {})

    assert isinstance(fails(tmp_path, play, "not the one that it announced"), GuestHostile)
    assert attempts == []


WEAK: list[dict[str, str]] = [
    {"kex": "diffie-hellman-group14-sha256"},
    {"kex": "diffie-hellman-group-exchange-sha256"},
    {"kex": "ecdh-sha2-nistp256"},
    {"ciphers": "3des-cbc"},
    {"ciphers": "aes128-cbc"},
    {"ciphers": "aes256-cbc"},
    {"ciphers": "aes128-ctr"},
    {"ciphers": "aes128-gcm@openssh.com"},
    {"ciphers": "aes256-gcm@openssh.com"},
    {"digests": "hmac-sha1"},
    {"digests": "hmac-sha2-512"},
    {"digests": "hmac-md5"},
]


@pytest.mark.parametrize("algorithms", WEAK, ids=lambda each: "".join(each.values()))
def test_weak_algorithm(tmp_path: Path, algorithms: dict[str, str]) -> None:
    fails(tmp_path, sshd(**algorithms), "no SSH session|key exchange")


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_host_key_algorithm(tmp_path: Path, kind: str) -> None:
    def play(peer: socket.socket) -> None:
        _, client_key = provisioned(peer)
        key = paramiko.RSAKey.generate(2048) if kind == "rsa" else paramiko.ECDSAKey.generate()
        run_server(peer, key, Rules(client_key), lambda *_: None, {})

    fails(tmp_path, play, "no SSH session|key exchange")


def test_compression_is_not_offered(tmp_path: Path) -> None:
    fails(tmp_path, sshd(compression="zlib@openssh.com"), "no SSH session|key exchange")


def test_what_the_client_offers(tmp_path: Path) -> None:
    """Read from the wire: one algorithm of each kind, strict key exchange, nothing else."""
    lists: list[list[str]] = []

    def play(peer: socket.socket) -> None:
        provisioned(peer)
        peer.sendall(b"SSH-2.0-test\r\n")
        stream = peer.makefile("rb")
        assert stream.readline().startswith(b"SSH-2.0-")
        stream.read(5 + 1 + 16)
        for _ in range(10):
            (length,) = struct.unpack(">I", stream.read(4))
            lists.append(stream.read(length).decode().split(","))
        stream.close()

    fails(tmp_path, play)
    kex, keys, *ciphers = lists[:4]
    assert set(kex) - {"ext-info-c"} == {KEX, "kex-strict-c-v00@openssh.com"}
    # paramiko adds the certificate; the key that comes is compared with the announced one.
    assert keys == [KEY, f"{KEY}-cert-v01@openssh.com"]
    assert ciphers == [[CIPHER], [CIPHER]]
    assert lists[4:6] == [[MAC], [MAC]]
    assert lists[6:8] == [["none"], ["none"]]


@pytest.mark.parametrize("rules", [Refusing, Undecided, Closed])
def test_server_refuses(tmp_path: Path, rules: type[Rules]) -> None:
    fails(tmp_path, sshd(rules=rules), "no SSH session")


# --- SSH: the wire ----------------------------------------------------------------------------


def raw(*parts: bytes, then: Play = lambda _peer: None) -> Play:
    """A guest that is provisioned well, sends `parts`, plays `then`, and waits for the end."""

    def play(peer: socket.socket) -> None:
        provisioned(peer)
        for part in parts:
            peer.sendall(part)
        then(peer)
        while peer.recv(65536):
            pass

    return play


def flood(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"\0" * 65536)


def loris(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"S")
        time.sleep(LIMIT / 20)


def banners(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"welcome to the guest\r\n" * 1000)


BANNER = b"SSH-2.0-OpenSSH_10.0\r\n"
RAW: dict[str, Play] = {
    "silence after provisioning": raw(),
    "end after provisioning": lambda peer: [provisioned(peer), None][1],
    "endless banner": raw(then=banners),
    "endless banner without a line end": raw(then=flood),
    "slow loris in the banner": raw(then=loris),
    "slow loris after the banner": raw(BANNER, then=loris),
    "SSH 1": raw(b"SSH-1.5-old\r\n"),
    "ESC in the banner": raw(b"SSH-\x1b]0;owned\x07\r\n"),
    "ESC as the version": raw(b"SSH-\x1b[31m-x\r\n"),
    "ESC instead of a banner": raw(b"\x1b[31mowned\r\n"),
    "HTTP": raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "banner that is not UTF-8": raw(b"SSH-2.0-\xff\xfe\x1b[31m\r\n"),
    "banner, then silence": raw(BANNER),
    "banner, then the end": lambda peer: [provisioned(peer), peer.sendall(BANNER)][1],
    "packet of 4 GiB, then silence": raw(BANNER + b"\xff\xff\xff\xf4\x04" + b"\0" * 64),
    "packet of 4 GiB, all of it": raw(BANNER + b"\xff\xff\xff\xf4\x04", then=flood),
    "packet of 0 bytes": raw(BANNER + b"\0" * 64),
    "packet of noise": raw(BANNER + b"\0\0\1\0" * 1000),
    "wrong block length": raw(BANNER + b"\0\0\0\x0d\x04" + b"\x14" * 64),
    "padding above the packet": raw(BANNER + b"\0\0\0\x0c\xff" + b"\x14" * 64),
    "authenticated before the exchange": raw(BANNER + b"\0\0\0\x0c\x0a\x34" + b"\0" * 10),
    "key exchange cut off": raw(BANNER + b"\0\0\0\x1c\x0a\x14" + b"\xff" * 26),
}


@pytest.mark.parametrize("case", RAW)
def test_raw_server(tmp_path: Path, case: str) -> None:
    before = resident()
    fails(tmp_path, RAW[case])
    assert resident() - before < 32 * MIB


# --- SSH: after the channel is open -----------------------------------------------------------


def test_server_ignores_the_window(tmp_path: Path) -> None:
    """paramiko buffers whatever comes; the meter bounds it (security.md, F4)."""

    def serve(_transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        channel.out_window_size = 1 << 62
        while True:
            channel.sendall(b"\0" * 32768)

    budget = 8 * MIB
    with meeting(tmp_path, sshd(serve)) as (channel, meter):
        before = resident()
        meter.allow(budget, 20)
        deadline = time.monotonic() + 20
        while not meter.broken and time.monotonic() < deadline:
            time.sleep(0.01)
        assert meter.broken == "it sent more than was asked for"
        assert meter.received < 2 * budget
        assert resident() - before < 4 * budget
        with pytest.raises(GuestFailed, match=r"cut off|broke"):
            AgentClient(channel, meter).ping(seconds=1)


def test_flood_in_the_handshake_budget(tmp_path: Path) -> None:
    """Before the first request nothing but the handshake may come."""

    def serve(_transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        channel.sendall(b"\0" * MIB)

    with meeting(tmp_path, sshd(serve)) as (_channel, meter):
        deadline = time.monotonic() + 10
        while not meter.broken and time.monotonic() < deadline:
            time.sleep(0.01)
        assert meter.received < 256 * 1024
        assert meter.broken


@pytest.mark.parametrize("kind", ["mute", "slow"])
def test_agent_that_stalls(tmp_path: Path, kind: str) -> None:
    def serve(_transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        read_frame(channel.recv)
        channel.sendall(b"\0\0\1\0")
        while kind == "slow":
            channel.sendall(b" ")
            time.sleep(0.05)

    with meeting(tmp_path, sshd(serve)) as (channel, meter):
        begin = time.monotonic()
        with pytest.raises(GuestFailed, match=r"did not finish|cut off"):
            AgentClient(channel, meter).ping(seconds=0.5)
        assert time.monotonic() - begin < 0.5 + LATE


def test_agent_that_closes(tmp_path: Path) -> None:
    closing = sshd(lambda _transport, channel: channel.close())
    with meeting(tmp_path, closing) as (channel, meter):  # noqa: SIM117
        with pytest.raises(GuestFailed, match=r"ended the session|broke"):
            AgentClient(channel, meter).ping(seconds=2)


def test_agent_that_writes_to_standard_error(tmp_path: Path) -> None:
    def serve(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        read_frame(channel.recv)
        channel.sendall_stderr(b"x" * 100_000)
        channel.sendall(encode_reply(Mapped({}, {})))

    with meeting(tmp_path, sshd(serve)) as (channel, meter):
        AgentClient(channel, meter).ping(seconds=5)


@pytest.mark.parametrize(
    "kind", ["session", "x11", "forwarded-tcpip", "direct-tcpip", "auth-agent@openssh.com", "\x1b"]
)
def test_server_opens_a_channel(tmp_path: Path, kind: str) -> None:
    outcomes: list[str] = []

    def serve(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        try:
            transport.open_channel(kind, ("127.0.0.1", 22), ("127.0.0.1", 22), timeout=2)
            outcomes.append("opened")
        except paramiko.SSHException as error:
            outcomes.append(type(error).__name__)
        reply_to_ping(transport, channel)

    with meeting(tmp_path, sshd(serve)) as (channel, meter):
        AgentClient(channel, meter).ping(seconds=5)
    assert outcomes == ["ChannelException"]


@pytest.mark.parametrize("kind", ["tcpip-forward", "hostkeys-00@openssh.com", "keepalive@x", ""])
def test_server_sends_a_global_request(tmp_path: Path, kind: str) -> None:
    outcomes: list[object] = []

    def serve(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        outcomes.append(transport.global_request(kind, ("127.0.0.1", 22), wait=True))
        reply_to_ping(transport, channel)

    with meeting(tmp_path, sshd(serve)) as (channel, meter):
        AgentClient(channel, meter).ping(seconds=5)
    assert outcomes == [None]


@pytest.mark.parametrize("kind", ["exec", "shell", "pty-req", "exit-status", "x11-req", "env"])
def test_server_sends_a_channel_request(tmp_path: Path, kind: str) -> None:
    """It must not do anything here, and a guest that sends nonsense only harms its session.

    paramiko's parser stops at some of them; that ends the session with one of our errors.
    """

    def serve(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        message = paramiko.Message()
        message.add_byte(b"\x62")
        message.add_int(channel.remote_chanid)
        message.add_string(kind)
        message.add_boolean(True)
        message.add_string("touch /tmp/owned; echo \x1b[31m")
        transport._send_user_message(message)
        reply_to_ping(transport, channel)

    with meeting(tmp_path, sshd(serve)) as (channel, meter), suppress(GuestFailed):
        AgentClient(channel, meter).ping(seconds=5)


def test_endless_requests_of_the_server(tmp_path: Path) -> None:
    """Every refusal costs us a packet; the budget and the deadline of the request end it."""

    def serve(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        while transport.is_active():
            transport.global_request("x" * 1000, wait=False)

    before, begin = resident(), time.monotonic()
    with meeting(tmp_path, sshd(serve)) as (channel, meter), pytest.raises(GuestFailed):
        AgentClient(channel, meter).ping(seconds=0.5)
    assert time.monotonic() - begin < 0.5 + LIMIT + LATE
    assert resident() - before < 64 * MIB


@pytest.mark.parametrize("after", [False, True])
def test_connection_is_lost_in_a_request(tmp_path: Path, after: bool) -> None:
    def serve(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        if after:
            read_frame(channel.recv)
        transport.sock.close()

    with meeting(tmp_path, sshd(serve)) as (channel, meter):
        time.sleep(0 if after else 0.3)
        with pytest.raises(GuestFailed, match=r"broke|ended the session"):
            AgentClient(channel, meter).ping(seconds=2)


def test_paramiko_prints_nothing() -> None:
    """What it logs, and how much, is up to the guest; the core's standard error is a pipe."""
    program = "import controller.ssh, logging; logging.getLogger('paramiko.transport').error('x')"
    done = execute(sys.executable, "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_disconnect_with_words(tmp_path: Path) -> None:
    def serve(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        read_frame(channel.recv)
        message = paramiko.Message()
        message.add_byte(b"\x01")
        message.add_int(11)
        message.add_string("\x1b[31mowned")
        message.add_string("")
        transport._send_message(message)

    with meeting(tmp_path, sshd(serve)) as (channel, meter):
        with pytest.raises(GuestFailed) as caught:
            AgentClient(channel, meter).ping(seconds=2)
        assert caught.value.message.isprintable()


def test_mapping_through_ssh(tmp_path: Path) -> None:
    layers = [Layer("disk0", Kind.DISK, [], None, MIB, Status.MAPPED)]
    layers += [
        Layer(f"disk0/p{n}", Kind.PARTITION, ["disk0"], n, 1, Status.MAPPED) for n in range(2000)
    ]

    def serve(_transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        read_frame(channel.recv)
        channel.sendall(b"".join(map(encode_reply, layers)) + encode_reply(Mapped({}, {})))

    with meeting(tmp_path, sshd(serve)) as (channel, meter):
        client = AgentClient(channel, meter)
        found = client.map([Disk("disk0", "s", MIB)], [], seconds=20, watch=lambda _step: None)
    assert found.layers == layers


# --- the meter alone --------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[Metered, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Metered(ours), theirs


def test_meter_counts(pair: tuple[Metered, socket.socket]) -> None:
    meter, peer = pair
    meter.allow(10, 5)
    peer.sendall(b"x" * 10)
    assert meter.recv(4) + meter.recv(100) == b"x" * 10
    assert (meter.received, meter.broken) == (10, "")
    peer.sendall(b"y")
    assert meter.recv(1) == b""
    assert meter.broken == "it sent more than was asked for"
    with pytest.raises(OSError, match="Bad file"):
        meter.recv(1)


def test_meter_takes_no_large_pieces(pair: tuple[Metered, socket.socket]) -> None:
    meter, peer = pair
    meter.allow(MIB, 5)
    peer.sendall(b"x" * 100_000)
    assert len(meter.recv(1 << 32)) <= 65536


def test_meter_without_a_phase_lets_nothing_in(pair: tuple[Metered, socket.socket]) -> None:
    meter, peer = pair
    peer.sendall(b"x")
    assert meter.recv(1) == b""
    assert meter.broken == "it did not finish in time"


def test_meter_deadline(pair: tuple[Metered, socket.socket]) -> None:
    meter, peer = pair
    meter.allow(10, 0.2)
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        meter.recv(1)
    peer.sendall(b"x")
    assert meter.recv(1) == b""
    assert 0.15 < time.monotonic() - begin < 1
    assert meter.broken == "it did not finish in time"


def test_meter_next_phase(pair: tuple[Metered, socket.socket]) -> None:
    """What was left of one budget is not added to the next."""
    meter, peer = pair
    meter.allow(1000, 5)
    meter.allow(1, 5)
    peer.sendall(b"xy")
    assert meter.recv(1) == b"x"
    assert meter.recv(1) == b""


def _send_for_ever(meter: Metered) -> None:
    while True:
        meter.send(b"x" * 65536)


def test_meter_sends_no_longer_than_the_deadline(pair: tuple[Metered, socket.socket]) -> None:
    meter, _peer = pair
    meter.allow(10, 0.3)
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        _send_for_ever(meter)
    assert time.monotonic() - begin < 1.5


def test_meter_wakes_for_a_short_wait(pair: tuple[Metered, socket.socket]) -> None:
    meter, _peer = pair
    meter.allow(10, 30)
    meter.settimeout(0.05)
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        meter.recv(1)
    assert time.monotonic() - begin < 1
