"""Typed calls to the agent. Everything that comes back is decoded strictly, or nothing is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec
import paramiko

from appliance.check import Check
from appliance.image import NestedImage
from appliance.layer import Finding, Layer
from appliance.protocol import (
    BODIES,
    FRAME_HEAD,
    MAX_FRAME,
    Body,
    Deed,
    Disk,
    Failed,
    LayerKey,
    Mapped,
    Progress,
    ProtocolError,
    Request,
    SystemPart,
    Wanted,
    frame_head,
    read_frame,
)
from appliance.repair import PathChange, Repair
from appliance.secret import wipe
from appliance.system import System
from controller.errors import GuestFailed, GuestHostile
from controller.metered import Metered
from controller.systems import Systems
from images.quoting import shown

MAX_LAYERS = 5000
MAX_FINDINGS = 20000
MAX_NESTED = 5000
_GRACE = 10
"""Seconds by which an operation may exceed what the agent said."""
_REPLY_BYTES = 32 << 20
"""Upper bound of everything that one request may bring back, with SSH's overhead; twice what the
agent can have to say, and lists of tiny strings need fourteen times their JSON as objects."""


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    body: msgspec.Raw


@dataclass(slots=True)
class Mapping:
    """What the agent found on the disks."""

    layers: list[Layer] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    systems: list[System] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    paths: list[PathChange] = field(default_factory=list)
    tools: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    nested: list[NestedImage] = field(default_factory=list)


class AgentClient:
    """One session with the agent; `doing` is what it said last that it was about to do."""

    def __init__(self, channel: paramiko.Channel, meter: Metered) -> None:
        self._channel = channel
        self._meter = meter
        self.doing: Progress | None = None
        self._silence = math.inf

    def ping(self, *, seconds: float) -> None:
        """Make sure that the agent answers."""
        self._call(Request("ping", []), seconds, _refuse)

    def map(  # noqa: PLR0913 - what is asked for, and how it is watched
        self,
        disks: list[Disk],
        keys: list[LayerKey],
        *,
        wanted: Wanted | None = None,
        headers: Sequence[Disk] = (),
        fatal: Sequence[Deed] = (),
        seconds: float,
        watch: Callable[[Progress], None],
    ) -> Mapping:
        """Have the agent map the disks and do what is wanted, without the deeds that are `fatal`.

        Raises GuestFailed, also where an operation takes longer than the agent said before it,
        or GuestHostile.
        """
        found = Mapping()
        systems = Systems()

        def take(body: Body) -> None:
            match body:
                case Layer():
                    found.layers.append(body)
                case Finding():
                    found.findings.append(body)
                case NestedImage():
                    found.nested.append(body)
                case System():
                    systems.add(body)
                case SystemPart():
                    systems.extend(body)
                case Check():
                    found.checks.append(body)
                case Repair():
                    found.repairs.append(body)
                case PathChange():
                    found.paths.append(body)
                case Progress():
                    self.doing = body
                    self._silence = time.monotonic() + body.seconds + _GRACE
                    watch(body)
                case _:
                    _refuse(body)
            if (
                len(found.layers) > MAX_LAYERS
                or len(found.findings) > MAX_FINDINGS
                or len(found.checks) > MAX_LAYERS
                or len(found.repairs) > MAX_LAYERS
                or len(found.paths) > MAX_FINDINGS
            ):
                raise GuestHostile("the agent reports more layers than it may")
            if len(found.nested) > MAX_NESTED:
                raise GuestHostile("the agent reports more images than it may")

        request = Request(
            "map", disks, keys, list(fatal), wanted or Wanted(), list(headers), seconds
        )
        done = self._call(request, seconds, take)
        found.tools, found.timings, found.memory = done.tools, done.timings, done.memory
        check_graph(found.layers, {disk.address for disk in disks})
        known = {layer.address for layer in found.layers}
        if any(image.layer not in known for image in found.nested):
            raise GuestHostile("the agent reports an image in a layer that it did not report")
        systems.check(found.layers)
        found.systems = systems.found
        return found

    def _call(self, request: Request, seconds: float, take: Callable[[Body], None]) -> Mapped:
        self._meter.allow(_REPLY_BYTES, seconds)
        deadline = time.monotonic() + seconds
        self._silence = math.inf

        def receive(size: int) -> bytes:
            # Before every part, so that neither a trickle nor a flood outlasts the deadline.
            if (left := min(deadline, self._silence) - time.monotonic()) <= 0:
                raise TimeoutError
            self._channel.settimeout(left)
            return self._channel.recv(size)

        try:
            self._channel.settimeout(seconds)
            self._send(request)
            while True:
                untrusted_frame = read_frame(receive)
                if untrusted_frame is None:
                    raise GuestFailed(self._ended())
                match body := decode(untrusted_frame):
                    case Mapped():
                        return body
                    case Failed():
                        raise GuestFailed(f"the agent gave up: {shown(body.message)}")
                    case _:
                        take(body)
        except TimeoutError:
            if self.doing and self._silence < deadline:
                raise GuestFailed(
                    f"the guest said nothing for {self.doing.seconds + _GRACE} seconds"
                ) from None
            raise GuestFailed(
                f"the guest did not finish within {seconds:g} seconds",
                hint="give it more time with --timeout; if that does not help, the evidence may "
                "hang the guest, which is a finding in itself",
            ) from None
        except ProtocolError as error:
            raise GuestHostile(f"the agent broke the protocol: {error}") from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise GuestFailed(f"the connection to the guest broke: {error}") from None

    def _send(self, request: Request) -> None:
        """The keys in it are base64 (msgspec's way with bytes), and wiped here once they are sent.

        Raises ProtocolError for more than a frame can hold.
        """
        data = bytearray(FRAME_HEAD)
        msgspec.json.Encoder().encode_into(request, data, FRAME_HEAD)
        try:
            data[:FRAME_HEAD] = frame_head(len(data) - FRAME_HEAD)
            self._channel.sendall(data)
        finally:
            wipe(data)

    def _ended(self) -> str:
        if self._meter.broken:
            return f"the guest was cut off: {self._meter.broken}"
        return "the guest ended the session before it was done"


def _refuse(_body: Body) -> NoReturn:
    raise GuestHostile("the agent sent a reply that does not belong here")


def decode(untrusted_frame: bytes) -> Body:
    """Decode one reply frame. Raises ProtocolError for anything but a valid one."""
    if len(untrusted_frame) > MAX_FRAME:
        raise ProtocolError("a frame is above the limit")
    try:
        envelope = msgspec.json.decode(untrusted_frame, type=_Envelope)
        kind: Any = BODIES.get(envelope.kind)
        if kind is None:
            raise ProtocolError("a reply of a kind that does not exist")
        decoded: Body = msgspec.json.decode(envelope.body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # msgspec quotes the names of unknown fields.
        reason = shown(str(error)[:200])
        raise ProtocolError(f"a reply that does not follow the protocol: {reason}") from None
    return decoded


def check_graph(layers: list[Layer], disks: set[str]) -> None:
    """Raise GuestHostile unless addresses are unique, parents come first, and slices fit."""
    known: dict[str, Layer] = {}
    for layer in layers:
        if layer.address in known:
            raise GuestHostile("the agent reports one address twice")
        if any(parent not in known for parent in layer.parents):
            raise GuestHostile("the agent reports a layer before what it lies on")
        if not layer.parents and layer.address not in disks and layer.kind != "volume-group":
            raise GuestHostile("the agent reports a disk that was not attached")
        if layer.offset is not None:
            _check_slice(layer, known)
        known[layer.address] = layer
    if not disks <= set(known):
        raise GuestHostile("the agent says nothing about one of the disks")


def _check_slice(layer: Layer, known: dict[str, Layer]) -> None:
    if len(layer.parents) != 1:
        raise GuestHostile("the agent reports an offset for a layer without one parent")
    parent = known[layer.parents[0]]
    is_outside = (layer.offset or 0) + layer.size > parent.size
    extended = layer.partition is not None and layer.partition.extended
    if is_outside and layer.size and not extended:
        raise GuestHostile("the agent reports a layer that ends beyond its parent")
