"""The link between the command and the core: what goes in comes out, and nothing else gets far."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.layer import Finding, Kind, Layer, Severity, Status
from controller import wire
from controller.errors import BY_NAME, CellFailed, EnvironmentFailed, EvidenceRefused, ForensicError
from controller.wire import (
    MAX_MESSAGE,
    Appliance,
    Done,
    Inspect,
    Link,
    MakeState,
    OpenCase,
    ProveKvm,
    Step,
    Trouble,
)
from images.graph import Plan
from images.image import open_image

MIB = 1 << 20
APPLIANCE = Appliance({"/appliance/vmlinux": "ab" * 32}, "tcg", 512, 2)
LAYER = Layer("disk0", Kind.DISK, [], None, 2**63 - 1, Status.MAPPED)
FINDING = Finding(Severity.ERROR, None, "code", "\x1b[31m\0ü")
EXTRA = 15
"""Seconds that `call` waits longer than the core is given."""
Core = Callable[[socket.socket], None]


@contextmanager
def core(play: Core, *, words: str = "") -> Iterator[Link]:
    """A link whose other end plays a core in a thread; it ends when the link is closed."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs, suppress(OSError):
            play(theirs)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield Link(ours, lambda: words)
    finally:
        ours.close()
        thread.join(5)
        assert not thread.is_alive()


def call(link: Link, seconds: float = 5.0, steps: list[Step] | None = None) -> Done:
    return link.call(Inspect(1.0), (steps if steps is not None else []).append, seconds=seconds)


def answering(*messages: bytes) -> Core:
    """Reads the order, then sends the messages, each with its length."""

    def play(peer: socket.socket) -> None:
        peer.recv(65536)
        for message in messages:
            peer.sendall(len(message).to_bytes(4, "big") + message)
        while peer.recv(65536):
            pass

    return play


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


DONE = packed(Done())

ORDERS = [
    MakeState(APPLIANCE, 240.0),
    ProveKvm(APPLIANCE, 7.0),
    OpenCase(APPLIANCE, [], [], 60.0),
    OpenCase(APPLIANCE, [], [], 60.0, 4096),
    Inspect(300.0),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)
def test_order_round_trip(order: wire.Order) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Link(ours).send(order)
        assert Link(theirs).receive_order() == order


def test_no_more_orders() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        assert Link(theirs).receive_order() is None


def test_order_cut_off() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(b"\0\0\1\0half")
        ours.close()
        assert Link(theirs).receive_order() is None


def test_answer_round_trip() -> None:
    done = Done({"map": 0.5}, {"qemu": "7"}, [LAYER], [FINDING], b"\xff\0", {"draw": "00"})
    steps: list[Step] = []
    with core(answering(packed(Step("a", "b")), packed(Step("c")), packed(done))) as link:
        assert call(link, steps=steps) == done
    assert steps == [Step("a", "b"), Step("c")]


@pytest.mark.parametrize("name", BY_NAME)
def test_trouble_round_trip(name: str) -> None:
    trouble = Trouble(name, "message", "hint", b"\xffconsole")
    with core(answering(packed(trouble))) as link, pytest.raises(ForensicError) as caught:
        call(link)
    error = caught.value
    assert type(error) is BY_NAME[name]
    assert (error.message, error.hint, error.console) == ("message", "hint", b"\xffconsole")


@pytest.mark.parametrize("name", ["SystemExit", "", "object", "__class__"])
def test_trouble_of_an_unknown_kind(name: str) -> None:
    """A name only chooses among our own classes."""
    trouble = Trouble(name, "message", "", b"")
    with core(answering(packed(trouble))) as link, pytest.raises(EnvironmentFailed) as caught:
        call(link)
    assert caught.value.message == "message"


def done_with(name: str, content: bytes) -> bytes:
    """A Done with one more field, whose content need not be valid."""
    return b"\x82" + packed("type") + packed("Done") + packed(name) + content


BAD_LAYER = {**msgspec.to_builtins(LAYER), "size": -1}
GARBAGE = {
    "empty": b"",
    "no msgpack": b"\xc1",
    "JSON": b'{"type":"Done"}',
    "unknown tag": packed({"type": "Order"}),
    "no tag": packed({"timings": {}}),
    "an order": packed(Inspect(1.0)),
    "a list": packed([1, 2]),
    "trailing bytes": DONE + b"\0",
    "wrong type": packed({"type": "Step", "operation": 7}),
    "text that is not UTF-8": packed({"type": "Step"})[:1].replace(b"\x81", b"\x82")
    + packed({"type": "Step"})[1:]
    + packed("operation")
    + b"\xa1\xff",
    "layer with a negative size": done_with("layers", packed([BAD_LAYER])),
    "length lies in the content": done_with("console", b"\xc6\xff\xff\xff\xff"),
    "array of 4 billion": done_with("layers", b"\xdd\xff\xff\xff\xff"),
    "deep": done_with("more", b"\x91" * 200_000),
    "deep and whole": done_with("more", b"\x91" * 200_000 + b"\xc0"),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage(case: str) -> None:
    with core(answering(GARBAGE[case]), words="its words") as link:  # noqa: SIM117
        with pytest.raises(CellFailed) as caught:
            call(link)
    assert "its words" in caught.value.message


@given(st.binary(max_size=64) | st.binary(max_size=32).map(lambda tail: DONE[:-1] + tail))
@settings(max_examples=150, deadline=None)
def test_fuzz(message: bytes) -> None:
    def play(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(len(message).to_bytes(4, "big") + message)

    with core(play) as link, suppress(ForensicError):
        call(link)


def test_oversized_message_is_not_read() -> None:
    def play(peer: socket.socket) -> None:
        peer.sendall(struct.pack(">I", MAX_MESSAGE + 1))
        while True:
            peer.sendall(b"x" * 65536)

    with core(play) as link, pytest.raises(CellFailed, match="above the limit"):
        call(link)


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0\1\0", b"\0\0\1\0half"])
def test_core_that_dies(sent: bytes) -> None:
    def play(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(sent)

    with core(play, words="Traceback …") as link, pytest.raises(CellFailed) as caught:
        call(link)
    assert caught.value.message == ("the cell ended unexpectedly; its last words:\nTraceback …")


def test_core_that_is_dead_already() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(CellFailed, match="ended unexpectedly"):
        call(Link(ours))


def silent(peer: socket.socket) -> None:
    while peer.recv(65536):
        pass


def trickle(peer: socket.socket) -> None:
    peer.sendall(struct.pack(">I", 1000))
    while True:
        peer.sendall(b"x")
        time.sleep(0.02)


def steps_for_ever(peer: socket.socket) -> None:
    message = packed(Step("again"))
    while True:
        peer.sendall(len(message).to_bytes(4, "big") + message)


@pytest.mark.parametrize("play", [silent, trickle, steps_for_ever])
def test_core_that_never_answers(play: Core) -> None:
    """The core may be in the guest's hands: the time is for the whole call, not for each part."""
    begin = time.monotonic()
    with core(play) as link, pytest.raises(CellFailed, match="did not answer"):
        call(link, seconds=0.3 - EXTRA)
    assert time.monotonic() - begin < 2


def test_calls_in_a_row() -> None:
    """Each has its own time."""

    def play(peer: socket.socket) -> None:
        for _ in range(3):
            peer.recv(65536)
            time.sleep(0.2)
            peer.sendall(len(DONE).to_bytes(4, "big") + DONE)

    with core(play) as link:
        for _ in range(3):
            assert call(link, seconds=0.5 - EXTRA) == Done()


def make_image(folder: Path, form: str) -> Path:
    path = folder / "disk.img"
    kind, *options = form.split(":")
    if kind == "raw":
        path.write_bytes(b"x" * MIB + b"odd")
        return path
    command = ["qemu-img", "create", "-q", "-f", kind]
    command += [word for option in options for word in ("-o", option)]
    subprocess.run([*command, str(path), "4M"], check=True, capture_output=True)
    return path


FORMATS = [
    "raw",
    "qcow2",
    "qcow2:cluster_size=512,compat=0.10",
    "vmdk:subformat=monolithicSparse",
    "vmdk:subformat=monolithicFlat",
    "vmdk:subformat=twoGbMaxExtentSparse",
    "vmdk:subformat=twoGbMaxExtentFlat",
    "vmdk:subformat=streamOptimized",
]


@pytest.mark.parametrize("form", FORMATS)
def test_image_round_trip(tmp_path: Path, form: str) -> None:
    with ExitStack() as stack:
        image = open_image(make_image(tmp_path, form), stack=stack)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            Link(ours).send(OpenCase(APPLIANCE, [image.plan], [[b"secret"]], 1.0))
            order = Link(theirs).receive_order()
        assert isinstance(order, OpenCase)
        assert order.plans[0] == image.plan


def test_image_with_an_odd_name(tmp_path: Path) -> None:
    """A path is bytes: not UTF-8, with line ends and escape characters in it."""
    folder = os.fsencode(tmp_path) + b"/\xff\xfe \x1b[31m"
    Path(os.fsdecode(folder)).mkdir()
    path = Path(os.fsdecode(folder + b"/a\nb\xe9.img"))
    shutil.copy(make_image(tmp_path, "raw"), path)
    with ExitStack() as stack:
        image = open_image(path, stack=stack)
        message = msgspec.msgpack.decode(
            wire._encoder.encode(image.plan), type=Plan, dec_hook=wire._decode_other
        )
        assert message == image.plan


def test_refusal_in_the_cell() -> None:
    trouble = Trouble("EvidenceRefused", "a\\nb: no", "", b"")
    with core(answering(packed(trouble))) as link, pytest.raises(EvidenceRefused):
        call(link)
