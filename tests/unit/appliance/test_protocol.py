"""Frames from a stream that comes in pieces, and what both sides refuse to say or to hear."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance import layer
from appliance.check import Check, Ending, ToolRun, Verdict
from appliance.image import NestedImage
from appliance.layer import (
    MAX_BYTES,
    MAX_LIST,
    MAX_TEXT,
    Content,
    Finding,
    Kind,
    Layer,
    PartitionEntry,
    Severity,
    Status,
    Table,
)
from appliance.protocol import (
    BODIES,
    MAX_FRAME,
    Failed,
    Mapped,
    Progress,
    ProtocolError,
    SystemPart,
    encode_reply,
    frame,
    parse_object,
    read_frame,
)
from appliance.repair import Change, PathChange, Repair, Result
from appliance.system import System


class Stream:
    """Bytes that arrive in pieces of the given lengths; never more than was asked for."""

    def __init__(self, data: bytes, pieces: list[int]) -> None:
        self.data = data
        self.pieces = pieces
        self.asked: list[int] = []

    def receive(self, size: int) -> bytes:
        self.asked.append(size)
        length = min(size, self.pieces.pop(0) if self.pieces else size)
        part, self.data = self.data[:length], self.data[length:]
        return part


PAYLOADS = st.lists(st.binary(max_size=300), max_size=6)
PIECES = st.lists(st.integers(1, 50), max_size=60)


@given(PAYLOADS, PIECES)
@settings(deadline=None)
def test_frames_in_pieces(payloads: list[bytes], pieces: list[int]) -> None:
    stream = Stream(b"".join(map(frame, payloads)), pieces)
    for payload in payloads:
        assert read_frame(stream.receive) == payload
    assert read_frame(stream.receive) is None


@given(st.binary(min_size=1, max_size=60), st.integers(1, 63), PIECES)
def test_frame_cut_off(payload: bytes, cut: int, pieces: list[int]) -> None:
    data = frame(payload)
    stream = Stream(data[: min(cut, len(data) - 1)], pieces)
    with pytest.raises(ProtocolError, match=r"cut off"):
        read_frame(stream.receive)


@given(st.binary(max_size=40), PIECES)
def test_any_bytes(data: bytes, pieces: list[int]) -> None:
    stream = Stream(data, pieces)
    try:
        while read_frame(stream.receive) is not None:
            pass
    except ProtocolError:
        pass
    assert all(size <= 65536 for size in stream.asked)


def test_largest_frame() -> None:
    payload = b"x" * MAX_FRAME
    assert read_frame(Stream(frame(payload), []).receive) == payload
    with pytest.raises(ProtocolError, match="above the limit"):
        frame(payload + b"x")
    with pytest.raises(ProtocolError, match="above the limit"):
        read_frame(Stream((MAX_FRAME + 1).to_bytes(4, "big"), []).receive)


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"[]", b"null", b"1", b'"a"', b"{", b"\xff", b"[" * 100_000),
        b'{"a":' + b"1" * 5000 + b"}",
    ],
)
def test_not_an_object(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_object(payload)


LAYER = Layer("disk0", Kind.DISK, [], None, 1, Status.MAPPED)
RUN = ToolRun("check", "e2fsck", ["-fn"], Ending.EXITED, 0, "", 0, 0.5, None)
REPLIES = [
    (LAYER, "layer"),
    (Finding(Severity.INFO, None, "a", "b"), "finding"),
    (NestedImage("disk0", "disk0:/a", "/a", None, "raw", "dos", 1, 2, 3), "nested"),
    (Progress("a", "b", 1), "progress"),
    (System("disk0", "/", "linux"), "system"),
    (SystemPart(), "system-part"),
    (Check("disk0", "ext4", Verdict.CLEAN, "c", [RUN]), "check"),
    (Repair("disk0", "ext4", Result.CORRECTED, "c", [RUN], 1, 2, is_compared=True), "repair"),
    (PathChange("disk0", "/a", Change.CHANGED, ["size"]), "path"),
    (Mapped({"a": "b"}, {"c": 1.5}), "done"),
    (Failed("a", "b"), "failed"),
]


@pytest.mark.parametrize(("body", "kind"), REPLIES)
def test_reply(body: Layer, kind: str) -> None:
    payload = read_frame(Stream(encode_reply(body), []).receive)
    assert payload is not None
    decoded = json.loads(payload)
    assert decoded["kind"] == kind
    assert set(decoded["body"]) == {each.name for each in fields(BODIES[kind])}


@given(st.text(max_size=50))
def test_text_survives(text: str) -> None:
    """Frames are ASCII whatever they say, so that no part of the way can break a character."""
    reply = encode_reply(Progress(text, "", 1))
    assert reply[4:].isascii()
    assert json.loads(reply[4:])["body"]["operation"] == text


def test_every_kind_of_reply_is_there() -> None:
    assert {kind for _, kind in REPLIES} == set(BODIES)


def ext(**changes: object) -> layer.ExtState:
    values = {
        "state": "", "errors_behavior": "", "mount_count": 0, "maximum_mount_count": -1,
        "created": None, "last_mounted": None, "last_written": None, "last_checked": None,
        "check_interval": 0, "last_mounted_on": "", "features": [], "block_count": 0,
        "free_blocks": 0, "inode_count": 0, "free_inodes": 0, "inode_size": 0, "error_count": 0,
    } | changes  # fmt: skip
    return layer.ExtState(**values)  # type: ignore[arg-type]


def group(**changes: object) -> layer.GroupFacts:
    values = {
        "name": "", "uuid": "", "extent_size": 0, "free": 0, "physical_volumes": 0,
        "missing_physical_volumes": 0,
    } | changes  # fmt: skip
    return layer.GroupFacts(**values)  # type: ignore[arg-type]


def whole(**changes: object) -> Layer:
    values = {"kind": Kind.DISK, "parents": [], "offset": None, "size": 0, "status": Status.MAPPED}
    return Layer("a", **(values | changes))  # type: ignore[arg-type]


LONG, MANY, HUGE = "x" * (MAX_TEXT + 1), ["x"] * (MAX_LIST + 1), MAX_BYTES + 1
BAD: dict[str, Callable[[], object]] = {
    "long address": lambda: Layer(LONG, Kind.DISK, [], None, 0, Status.MAPPED),
    "long parent": lambda: whole(parents=[LONG]),
    "many parents": lambda: whole(parents=MANY),
    "negative size": lambda: whole(size=-1),
    "huge size": lambda: whole(size=HUGE),
    "negative offset": lambda: whole(offset=-1),
    "long label": lambda: Content("ext4", label=LONG),
    "long label in base64": lambda: Content("ext4", label_base64=LONG),
    "negative free": lambda: Content("ext4", free=-1),
    "huge block size": lambda: Content("ext4", block_size=HUGE),
    "long table": lambda: Table("dos", LONG, 512),
    "negative sector": lambda: Table("dos", None, -512),
    "long partition name": lambda: PartitionEntry(1, "", None, LONG, None, False, False, False),
    "negative number": lambda: PartitionEntry(-1, "", None, None, None, False, False, False),
    "long feature": lambda: ext(features=[LONG]),
    "many features": lambda: ext(features=MANY),
    "65 bits": lambda: ext(block_count=2**64),
    "65 bits below": lambda: ext(created=-(2**63) - 1),
    "many layouts": lambda: layer.VolumeFacts("a", "b", MANY, [], None, None),
    "many roles": lambda: layer.VolumeFacts("a", "b", [], MANY, None, None),
    "long origin": lambda: layer.VolumeFacts("a", "b", [], [], LONG, None),
    "negative extent": lambda: group(extent_size=-1),
    "negative missing": lambda: group(missing_physical_volumes=-1),
    "long message": lambda: Finding(Severity.INFO, None, "a", LONG),
    "long operation": lambda: Progress(LONG, "", 1),
    "long tool": lambda: Mapped({LONG: ""}, {}),
    "long version": lambda: Mapped({"a": LONG}, {}),
    "long phase": lambda: Mapped({}, {LONG: 0}),
    "many tools": lambda: Mapped({str(n): "" for n in range(MAX_LIST + 1)}, {}),
    "many phases": lambda: Mapped({}, {str(n): 0 for n in range(MAX_LIST + 1)}),
    "long failure": lambda: Failed("", LONG),
}


@pytest.mark.parametrize("case", BAD)
def test_constructors_check_their_bounds(case: str) -> None:
    with pytest.raises(ValueError, match=r"longer|more|negative"):
        BAD[case]()


def test_the_bounds_themselves_are_fine() -> None:
    Layer("x" * MAX_TEXT, Kind.DISK, ["x"] * MAX_LIST, MAX_BYTES, MAX_BYTES, Status.MAPPED)
    ext(block_count=2**64 - 1, free_blocks=2**64 - 1, maximum_mount_count=-32768)
