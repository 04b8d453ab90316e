"""An agent that lies, floods, stalls or talks nonsense: a named error, in time, in bounds."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

import msgspec
import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.image import NestedImage
from appliance.layer import (
    MAX_BYTES,
    MAX_LIST,
    MAX_TEXT,
    Content,
    ExtState,
    Finding,
    GroupFacts,
    Kind,
    Layer,
    PartitionEntry,
    Severity,
    Status,
    Table,
    VolumeFacts,
)
from appliance.protocol import (
    MAX_FRAME,
    Disk,
    Failed,
    Mapped,
    Progress,
    ProtocolError,
    encode_reply,
    frame,
    parse_object,
    read_frame,
)
from controller import agent_client
from controller.agent_client import AgentClient, Mapping, check_graph, decode
from controller.errors import GuestFailed, GuestHostile

MIB = 1 << 20
DISKS = [Disk("disk0", "0123", MIB)]
SECONDS = 0.5
GRACE = 3.0
Script = Callable[[socket.socket], None]


class Meter:
    """Stands in for controller.metered.Metered, which has tests of its own."""

    def __init__(self) -> None:
        self.allowed: list[tuple[int, float]] = []
        self.broken = ""

    def allow(self, budget: int, seconds: float) -> None:
        self.allowed.append((budget, seconds))


@contextmanager
def agent(script: Script, *, hold: bool = False) -> Iterator[AgentClient]:
    """A client of an agent that plays `script` after it has read the request.

    With `hold` the agent keeps its end open afterwards, and says nothing more.
    """
    ours, theirs = socket.socketpair()

    def play() -> None:
        with theirs, suppress(OSError, ProtocolError):
            read_frame(theirs.recv)
            script(theirs)
            while hold and theirs.recv(4096):
                pass

    thread = threading.Thread(target=play, name="hostile agent")
    thread.start()
    try:
        yield AgentClient(ours, Meter())  # type: ignore[arg-type]
    finally:
        ours.close()
        thread.join(GRACE)
        assert not thread.is_alive()


def ask(client: AgentClient, disks: list[Disk] = DISKS, seconds: float = SECONDS) -> Mapping:
    return client.map(disks, [], seconds=seconds, watch=lambda _step: None)


def says(*parts: bytes) -> Script:
    return lambda peer: peer.sendall(b"".join(parts))


def raw(kind: str, body: str) -> bytes:
    return frame(f'{{"kind":"{kind}","body":{body}}}'.encode())


def layer(address: str = "disk0", **changes: Any) -> Layer:
    values: dict[str, Any] = {"kind": Kind.DISK, "parents": [], "offset": None, "size": MIB}
    return Layer(address, status=Status.MAPPED, **(values | changes))


def part(address: str = "disk0/p1", **changes: Any) -> Layer:
    values = {"kind": Kind.PARTITION, "parents": ["disk0"], "offset": 0, "size": 512}
    return layer(address, **(values | changes))


def layer_frame(**changes: str) -> bytes:
    """A layer whose fields hold the JSON text given, so that no encoder objects."""
    fields = {
        "address": '"disk0"',
        "kind": '"disk"',
        "parents": "[]",
        "offset": "null",
        "size": "1048576",
        "status": '"mapped"',
    } | changes
    return raw("layer", "{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}")


EXT = ExtState("clean", "Continue", 1, -1, 1, None, 3, 4, 0, "/", ["extent"], 9, 8, 7, 6, 256, 0)


def ext_frame(**changes: str) -> bytes:
    fields = {name: json.dumps(value) for name, value in asdict(EXT).items()} | changes
    ext = ",".join(f'"{name}":{text}' for name, text in fields.items())
    return layer_frame(content=f'{{"type":"ext4","ext":{{{ext}}}}}')


def group_frame(**changes: str) -> bytes:
    fields = asdict(GroupFacts("vg", "u", 1, 2, 3, 0))
    texts = {name: json.dumps(value) for name, value in fields.items()} | changes
    group = "{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}"
    return layer_frame(address='"vg"', kind='"volume-group"', group=group)


DONE = encode_reply(Mapped({"kernel": "6.12"}, {"recognise": 0.1}))
DISK = encode_reply(layer())
STEP = encode_reply(Progress("recognise", "disk0", 60))
NOTE = encode_reply(Finding(Severity.INFO, "disk0", "note", "text"))
TEXT = '{"operation":%s,"layer":"x","seconds":1}'
LONG = '"' + "x" * (MAX_TEXT + 1) + '"'

HOSTILE: dict[str, bytes] = {
    # frames
    "length of 4 GiB": b"\xff\xff\xff\xff",
    "length just above the limit": (MAX_FRAME + 1).to_bytes(4, "big") + b"x" * 64,
    "length above what follows": b"\0\0\1\0" + b'{"kind"',
    "length below what follows": (10).to_bytes(4, "big") + STEP[4:],
    "length cut off": b"\0\0",
    "frame without content": b"\0\0\0\0",
    # JSON
    "not JSON": frame(b"SSH-2.0-OpenSSH"),
    "not UTF-8": frame(b'{"kind":"\xff","body":1}'),
    "deep": raw("progress", "[" * 200_000),
    "deep in a field that is ignored": raw(
        "progress",
        '{"operation":"a","layer":"b","seconds":1,"more":' + "[" * 200_000 + "]" * 200_000 + "}",
    ),
    "a list": frame(b"[]"),
    "null": frame(b"null"),
    "two documents": frame(STEP[4:] + STEP[4:]),
    "lone surrogate": raw("progress", TEXT % r'"\ud800"'),
    "lone surrogate as bytes": frame(
        b'{"kind":"progress","body":{"operation":"\xed\xa0\x80","layer":"x","seconds":1}}'
    ),
    "raw control character": raw("progress", TEXT % '"\0"'),
    # envelope
    "unknown kind": raw("shell", "{}"),
    "kind of a request": frame(b'{"op":"map","disks":[]}'),
    "unknown field beside body": frame(STEP[4:-1] + b',"more":1}'),
    "no body": frame(b'{"kind":"progress"}'),
    "kind is a number": frame(b'{"kind":1,"body":{}}'),
    "kind with capitals": raw("Done", '{"tools":{},"timings":{}}'),
    # types
    "size is text": layer_frame(size='"1"'),
    "size is a float": layer_frame(size="1.5"),
    "size is a bool": layer_frame(size="true"),
    "size is null": layer_frame(size="null"),
    "size is missing": raw("layer", '{"address":"disk0","kind":"disk","parents":[]}'),
    "kind of layer unknown": layer_frame(kind='"printer"'),
    "status unknown": layer_frame(status='"fine"'),
    "parents are text": layer_frame(parents='"disk0"'),
    "parents hold null": layer_frame(parents="[null]"),
    "body is a list": raw("layer", "[]"),
    "severity unknown": raw(
        "finding", '{"severity":"fatal","layer":null,"code":"a","message":"b"}'
    ),
    "timing is text": raw("done", '{"tools":{},"timings":{"a":"1"}}'),
    # numbers
    "NaN": raw("done", '{"tools":{},"timings":{"a":NaN}}'),
    "Infinity": raw("done", '{"tools":{},"timings":{"a":Infinity}}'),
    "a float that is infinite": raw("done", '{"tools":{},"timings":{"a":1e400}}'),
    "NaN as size": layer_frame(size="NaN"),
    "a million digits": layer_frame(size="1" * 1_000_000),
    "a thousand digits": layer_frame(size="1" * 1000),
    "negative size": layer_frame(size="-1"),
    "negative offset": layer_frame(offset="-512"),
    "2^63": layer_frame(size=str(MAX_BYTES + 1)),
    "negative block size": layer_frame(content='{"type":"ext4","block_size":-4096}'),
    "a thousand digits in a superblock": ext_frame(mount_count="1" * 1000),
    "65 bits in a superblock": ext_frame(block_count=str(2**64)),
    "65 bits in a time": ext_frame(last_written=str(-(2**63) - 1)),
    "negative count of volumes": group_frame(physical_volumes="-1"),
    "negative count of missing volumes": group_frame(missing_physical_volumes="-1"),
    # limits
    "address above the limit": layer_frame(address=LONG),
    "parent's name above the limit": layer_frame(parents=f"[{LONG}]"),
    "label above the limit": layer_frame(content=f'{{"type":"a","label":{LONG}}}'),
    "message above the limit": raw(
        "finding", f'{{"severity":"info","layer":null,"code":"a","message":{LONG}}}'
    ),
    "too many parents": layer_frame(parents=json.dumps(["a"] * (MAX_LIST + 1))),
    "too many features": ext_frame(features=json.dumps(["a"] * (MAX_LIST + 1))),
    "too many tools": raw(
        "done", json.dumps({"tools": {str(n): "" for n in range(MAX_LIST + 1)}, "timings": {}})
    ),
    "too many timings": raw(
        "done", json.dumps({"tools": {}, "timings": {str(n): 0 for n in range(MAX_LIST + 1)}})
    ),
    # order and graph
    "done without layers": DONE,
    "findings but no layer": NOTE + DONE,
    "a disk that was not attached": DISK + encode_reply(layer("disk1")) + DONE,
    "a partition without a parent": DISK + encode_reply(part(parents=[], offset=None)) + DONE,
    "address twice": DISK + DISK + DONE,
    "parent after child": encode_reply(part()) + DISK + DONE,
    "its own parent": encode_reply(layer(parents=["disk0"])) + DONE,
    "parent that never comes": DISK + encode_reply(part(parents=["disk7"])) + DONE,
    "offset outside the parent": DISK + encode_reply(part(offset=2 * MIB)) + DONE,
    "end outside the parent": DISK + encode_reply(part(offset=MIB - 1)) + DONE,
    "sum above 2^63": DISK + encode_reply(part(offset=MAX_BYTES, size=MAX_BYTES)) + DONE,
    "offset with two parents": DISK
    + encode_reply(part())
    + encode_reply(part("x", parents=["disk0", "disk0/p1"]))
    + DONE,
    "offset without a parent": encode_reply(layer(offset=0)) + DONE,
    "one layer more than may be": DISK
    + b"".join(encode_reply(part(f"p{n}")) for n in range(agent_client.MAX_LAYERS)),
    "one finding more than may be": NOTE * (agent_client.MAX_FINDINGS + 1),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_reply(case: str) -> None:
    begin = time.monotonic()
    # A truncated frame is only known to be one at the end of the stream.
    hold = case not in {"length above what follows", "length cut off"}
    with agent(says(HOSTILE[case]), hold=hold) as client, pytest.raises(GuestHostile) as caught:
        ask(client, seconds=5.0)
    assert time.monotonic() - begin < 5.0
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


def test_second_disk_is_missing() -> None:
    disks = [*DISKS, Disk("disk1", "4567", MIB)]
    with agent(says(DISK + DONE)) as client, pytest.raises(GuestHostile, match="nothing about"):
        ask(client, disks)


@pytest.mark.parametrize("begin", [b"", STEP, DISK + NOTE])
def test_stream_ends_early(begin: bytes) -> None:
    with agent(says(begin)) as client, pytest.raises(GuestFailed, match="ended the session"):
        ask(client)


@pytest.mark.parametrize("begin", [b"", STEP, DISK[:3], DISK[:40], DISK + NOTE + DONE[:-1]])
def test_silence(begin: bytes) -> None:
    start = time.monotonic()
    with (
        agent(says(begin), hold=True) as client,
        pytest.raises(GuestFailed, match="did not finish"),
    ):
        ask(client)
    assert time.monotonic() - start < SECONDS + 1


@pytest.mark.parametrize("data", [(1000).to_bytes(4, "big") + b" " * 1000, STEP * 30])
def test_one_byte_per_interval(data: bytes) -> None:
    """Every byte comes before its own wait is over; the deadline counts all the same."""

    def trickle(peer: socket.socket) -> None:
        for byte in data:
            peer.sendall(bytes([byte]))
            time.sleep(SECONDS / 10)

    start = time.monotonic()
    with agent(trickle) as client, pytest.raises(GuestFailed, match="did not finish"):
        ask(client)
    assert time.monotonic() - start < SECONDS + 1


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("reply", [STEP, raw("progress", TEXT % ('"' + "x" * 4096 + '"'))])
def test_endless_progress(reply: bytes) -> None:
    """Progress is not kept, so only the deadline (and the meter's budget) ends it."""

    def flood(peer: socket.socket) -> None:
        while True:
            peer.sendall(reply * 16)

    before, start = resident(), time.monotonic()
    with agent(flood) as client, pytest.raises(GuestFailed, match="did not finish"):
        ask(client)
    assert time.monotonic() - start < SECONDS + 1
    assert resident() - before < 64 * MIB


@pytest.mark.parametrize("kind", ["layer", "finding"])
def test_endless_replies_that_are_kept(kind: str) -> None:
    def flood(peer: socket.socket) -> None:
        peer.sendall(DISK)
        number = 0
        while True:
            number += 1
            peer.sendall(encode_reply(part(f"disk0/p{number}")) if kind == "layer" else NOTE)

    with agent(flood) as client, pytest.raises(GuestHostile, match="more layers than it may"):
        ask(client, seconds=30)


def test_memory_of_what_one_request_may_bring_back() -> None:
    """Lists of tiny strings cost most per byte; the budget of the meter has to suit that."""
    # Not of one character, and not ASCII: neither Python nor msgspec keeps such strings for reuse.
    reply = layer_frame(parents=json.dumps(["éa"] * MAX_LIST, ensure_ascii=False, separators=",:"))
    payload = reply[4:]
    tracemalloc.start()
    try:
        decoded = [decode(payload) for _ in range(50)]
        amplification = tracemalloc.get_traced_memory()[0] / (len(payload) * len(decoded))
    finally:
        tracemalloc.stop()
    with agent(says(DISK + DONE)) as client:
        ask(client)
        ((budget, seconds),) = client._meter.allowed  # type: ignore[attr-defined]
    assert seconds == SECONDS
    assert amplification * budget < 768 * MIB, "the core itself has 1 GiB (controller.core)"


def test_big_frame_is_not_read_before_its_length_is_checked() -> None:
    asked: list[int] = []

    def receive(size: int) -> bytes:
        asked.append(size)
        return b"\xff" * size

    with pytest.raises(ProtocolError):
        read_frame(receive)
    assert asked == [4]


def test_failed_is_escaped() -> None:
    message = "no \x1b]0;owned\x07 \r\n\u202e\u0000\u200b\\ end"
    with agent(says(encode_reply(Failed("refused", message)))) as client:  # noqa: SIM117
        with pytest.raises(GuestFailed, match="the agent gave up") as caught:
            ask(client)
    assert caught.value.message.isprintable()
    assert r"\x1b]0;owned\x07 \x0d\x0a\u{202e}\x00\u{200b}\\ end" in caught.value.message


def test_error_is_printable() -> None:
    """msgspec's messages quote the names of unknown fields."""
    evil = "\x1b[31mowned"
    bodies = [
        json.dumps({"kind": evil, "body": {}}),
        json.dumps({"kind": "progress", "body": {}, evil: 1}),
        json.dumps({"kind": "done", "body": {"tools": {evil: 1}, "timings": {}}}),
        json.dumps({"kind": "layer", "body": {"kind": evil}}),
    ]
    for body in bodies:
        with agent(says(frame(body.encode()))) as client, pytest.raises(GuestHostile) as caught:
            ask(client)
        assert caught.value.message.isprintable(), body


def test_error_is_short() -> None:
    body = json.dumps({"kind": "done", "body": {}, "x" * 500_000: 1})
    with agent(says(frame(body.encode()))) as client, pytest.raises(GuestHostile) as caught:
        ask(client)
    assert len(caught.value.message) < 400


def test_reply_to_nothing() -> None:
    """What came before the request was sent is taken for its answer, and judged like one."""
    for begin in (DISK, STEP, NOTE):
        with agent(says(begin + DONE)) as client, pytest.raises(GuestHostile, match="not belong"):
            client.ping(seconds=1)


def test_ping() -> None:
    with agent(says(DONE)) as client:
        client.ping(seconds=1)


def test_done_twice() -> None:
    """The second `done` would answer the next request; that has no layers and is refused."""

    def twice(peer: socket.socket) -> None:
        peer.sendall(DISK + DONE + DONE)
        read_frame(peer.recv)

    with agent(twice) as client:
        ask(client)
        with pytest.raises(GuestHostile, match="says nothing about"):
            ask(client)


def test_request_cannot_be_sent() -> None:
    """An agent that does not read: the request waits for the deadline at most."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        disks = [Disk(f"disk{n}", "x" * 16, MIB) for n in range(8000)]
        start = time.monotonic()
        with pytest.raises(GuestFailed, match="did not finish"):
            ask(AgentClient(ours, Meter()), disks)  # type: ignore[arg-type]
        assert time.monotonic() - start < SECONDS + 1


def test_connection_breaks() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(GuestFailed, match="connection to the guest broke"):
        ask(AgentClient(ours, Meter()))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [EOFError(), paramiko.SSHException("rekey"), OSError("gone")])
def test_channel_breaks_while_sending(error: Exception) -> None:
    """paramiko's write raises EOFError where it finds the transport closed."""

    class Channel:
        def settimeout(self, _seconds: float) -> None:
            pass

        def sendall(self, _data: bytes) -> None:
            raise error

    with pytest.raises(GuestFailed, match="connection to the guest broke"):
        ask(AgentClient(Channel(), Meter()))  # type: ignore[arg-type]


def test_meter_says_why_the_stream_ended() -> None:
    with agent(says(b"")) as client:
        client._meter.broken = "it sent more than was asked for"
        with pytest.raises(GuestFailed, match="cut off: it sent more than was asked for"):
            ask(client)


def test_good_mapping() -> None:
    extended = PartitionEntry(2, "0x05", None, None, None, False, True, False)
    outside = PartitionEntry(3, "0x83", None, None, None, False, False, False)
    layers = [
        layer(table=Table("dos", None, 512)),
        part(offset=0, size=MIB),
        # Only the container of logical partitions may reach beyond; it owns no bytes.
        part("disk0/p2", offset=512, size=2 * MIB, partition=extended),
        part("disk0/p3", offset=4 * MIB, size=0, partition=outside),
        layer("vg", kind=Kind.VOLUME_GROUP, parents=["disk0", "disk0/p1"], size=5 * MIB),
        layer(
            "vg/lv",
            kind=Kind.LOGICAL_VOLUME,
            parents=["vg"],
            volume=VolumeFacts("lv", "u", ["linear"], ["public"], None, None),
            content=Content("ext4", label="x" * MAX_TEXT, size=MAX_BYTES, ext=EXT),
        ),
        layer("lost", kind=Kind.VOLUME_GROUP),
    ]
    finding = Finding(Severity.ERROR, None, "code", "message")
    steps: list[Progress] = []
    frames = [encode_reply(body) for body in (*layers, finding)]
    with agent(says(STEP, *frames, DONE)) as client:
        found = client.map(DISKS, [], seconds=5, watch=steps.append)
        assert client.doing == Progress("recognise", "disk0", 60)
    assert found == Mapping(layers, [finding], tools={"kernel": "6.12"}, timings={"recognise": 0.1})
    assert steps == [Progress("recognise", "disk0", 60)]


def test_images_in_file_systems() -> None:
    image = NestedImage("disk0", "disk0:/a", "/a", None, "raw", "dos", MAX_BYTES, 1, 0)
    with agent(says(DISK + encode_reply(image) + DONE)) as client:
        assert ask(client).nested == [image]
    elsewhere = replace(image, layer="disk7")
    with (
        agent(says(DISK + encode_reply(elsewhere) + DONE)) as client,
        pytest.raises(GuestHostile, match="layer that it did not report"),
    ):
        ask(client)


def test_operation_that_outlasts_what_it_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.agent_client._GRACE", 0)
    start = time.monotonic()
    says_one_second = encode_reply(Progress("recognise", "disk0", 1))
    with (
        agent(says(says_one_second), hold=True) as client,
        pytest.raises(GuestFailed, match="said nothing for 1 seconds"),
    ):
        ask(client, seconds=30)
    assert 0.9 < time.monotonic() - start < 5
    assert client.doing == Progress("recognise", "disk0", 1)


def test_request_as_the_agent_reads_it() -> None:
    seen: list[dict[str, Any]] = []
    ours, theirs = socket.socketpair()

    def play() -> None:
        payload = read_frame(theirs.recv)
        assert payload is not None
        seen.append(parse_object(payload))
        theirs.sendall(DISK + DONE)

    thread = threading.Thread(target=play)
    with ours, theirs:
        thread.start()
        ask(AgentClient(ours, Meter()))  # type: ignore[arg-type]
        thread.join()
    disk = {"address": "disk0", "serial": "0123", "size": MIB, "writable": False}
    wanted: dict[str, Any] = {"view": "as-found", "nested": False, "open": [], "systems": False}
    wanted |= {"check": None, "repair": None}
    (request,) = seen
    assert request.pop("seconds") > 0
    nothing: dict[str, list[str]] = {"keys": [], "fatal": [], "headers": []}
    assert request == {"op": "map", "disks": [disk], "wanted": wanted, **nothing}


def test_whatever_is_decoded_can_be_sent_on() -> None:
    """The core encodes what it decoded; a number beyond 64 bits would end it there."""
    for reply in (ext_frame(block_count=str(2**64 - 1)), ext_frame(last_checked=str(-(2**63)))):
        msgspec.msgpack.encode(decode(reply[4:]))
        msgspec.json.encode(decode(reply[4:]))


FRAMES = [
    DISK,
    STEP,
    NOTE,
    DONE,
    ext_frame(),
    group_frame(),
    encode_reply(Failed("a", "b")),
    encode_reply(part(partition=PartitionEntry(1, "83", "L", "n", "u", True, False, True))),
]
TOKENS = st.sampled_from(
    [
        *(
            b'"',
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"-",
            b"1.0",
            b"1e999",
            b"NaN",
            b"null",
            b"true",
        ),
        *(b"\\u", b"\\ud800", b"\xff", b"\0", b"9" * 400, b"[" * 4000, b'"kind":"done",', b'{"a":'),
    ]
)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_fuzz_random_bytes(data: bytes) -> None:
    with suppress(ProtocolError):
        decode(data)


@given(st.data())
@settings(max_examples=800, deadline=None)
def test_fuzz_mutated_frames(data: st.DataObject) -> None:
    payload = bytearray(data.draw(st.sampled_from(FRAMES))[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(payload)))
        end = data.draw(st.integers(start, min(len(payload), start + 12)))
        payload[start:end] = data.draw(st.one_of(TOKENS, st.binary(max_size=4)))
    reason = "valid"
    try:
        body = decode(bytes(payload))
        msgspec.msgpack.encode(body)  # the core sends it on
        msgspec.json.encode(body)
    except ProtocolError as error:
        reason = str(error)
    assert reason.isprintable()
    assert len(reason) < 3000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.sampled_from(["layer", "finding", "progress", "done", "failed", "x"]), st.data())
@settings(max_examples=250, deadline=None)
def test_fuzz_values(kind: str, data: st.DataObject) -> None:
    valid = json.loads(next((each for each in FRAMES if f'"{kind}"'.encode() in each), DISK)[4:])
    body = valid["body"]
    for name in data.draw(st.lists(st.sampled_from(sorted(body)), max_size=3)):
        body[name] = data.draw(JSON)
    with suppress(ProtocolError):
        decode(json.dumps({"kind": kind, "body": body}).encode())


ADDRESSES = st.sampled_from(["disk0", "disk1", "a", "b", "c"])
LAYERS = st.builds(
    Layer,
    address=ADDRESSES,
    kind=st.sampled_from(Kind),
    parents=st.lists(ADDRESSES, max_size=2),
    offset=st.none() | st.integers(0, 8) | st.just(MAX_BYTES),
    size=st.integers(0, 8) | st.just(MAX_BYTES),
    status=st.just(Status.MAPPED),
)


@given(st.lists(LAYERS, max_size=6))
@settings(max_examples=250, deadline=None)
def test_graph_that_is_accepted_is_one(layers: list[Layer]) -> None:
    try:
        check_graph(layers, {"disk0"})
    except GuestHostile:
        return
    known: dict[str, Layer] = {}
    for each in layers:
        assert each.address not in known
        assert set(each.parents) <= set(known)
        if each.offset is not None:
            (parent,) = each.parents
            assert not each.size or each.offset + each.size <= known[parent].size
        known[each.address] = each
    assert "disk0" in known
