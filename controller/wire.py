"""What the command and the core in its cell say to each other: length-prefixed msgpack.

The core has listened to a hostile guest, so the command decodes strictly what comes from it.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from appliance.check import Check
from appliance.image import NestedImage
from appliance.layer import Finding, Layer
from appliance.protocol import LayerKey, Wanted
from appliance.repair import PathChange, Repair
from appliance.secret import wipe
from appliance.system import System
from controller.errors import BY_NAME, CellFailed, EnvironmentFailed, ForensicError
from images.graph import Plan

MAX_MESSAGE = 256 << 20


class Appliance(msgspec.Struct):
    """What to run: sha256 of every artifact by its path in the cell, and how to run it."""

    hashes: dict[str, str]
    accelerator: str
    memory: int
    processors: int


class MakeState(msgspec.Struct, tag=True):
    """Boot, warm and save a guest; `seconds` bounds the boot."""

    appliance: Appliance
    seconds: float


class ProveKvm(msgspec.Struct, tag=True):
    """Boot a kernel with KVM until it says so on the console, within `seconds`."""

    appliance: Appliance
    seconds: float


class Header(msgspec.Struct):
    """A detached LUKS header, for the layer at `address`."""

    address: str
    plan: Plan


class OpenCase(msgspec.Struct, tag=True):
    """Make the exports, restore a guest, open the session and attach them.

    The files' descriptors have the same numbers in the cell. `keys` are those to be tried on the
    image of the same index; `sector_size` is for all disks but the `headers`.
    """

    appliance: Appliance
    plans: list[Plan]
    keys: list[list[bytes]]
    seconds: float
    sector_size: int = 512
    headers: list[Header] = []


class Inspect(msgspec.Struct, tag=True):
    """Map the attached disks, with keys for their layers, and do what else is wanted."""

    seconds: float
    keys: list[LayerKey] = []
    wanted: Wanted = Wanted()


class Overlaid(msgspec.Struct):
    """An overlay for the disk with the index `disk`: a file that is open for reading and writing as
    `descriptor` and for reading as `readable`. It is made to hold `empty`, and may grow to `limit`
    bytes."""

    disk: int
    descriptor: int
    readable: int
    empty: bytes
    limit: int


class RepairDisks(msgspec.Struct, tag=True):
    """Replace the guest by one that has overlays over these disks, and do what is wanted."""

    seconds: float
    keys: list[LayerKey]
    wanted: Wanted
    overlays: list[Overlaid]


class WriteCopy(msgspec.Struct, tag=True):
    """Write a disk as it is with its overlay to the empty file `descriptor`, as `form` (raw or
    qcow2), within `seconds`."""

    overlay: Overlaid
    descriptor: int
    form: str
    seconds: float


class Delta(msgspec.Struct):
    """What the overlay of a disk holds: `allocated` bytes of clusters, of which `changed` bytes
    (whole blocks of 4 KiB) differ from what is underneath, in `count` ranges: (offset, length) in
    bytes of the disk, the first of them."""

    disk: int
    allocated: int
    changed: int
    count: int
    ranges: list[tuple[int, int]]


class Step(msgspec.Struct, tag=True):
    """Event: what is being done now, and where it is known how many bytes (or what else `unit`
    names) of how many are done."""

    operation: str
    detail: str = ""
    done: int | None = None
    total: int | None = None
    unit: str = "B"


class Done(msgspec.Struct, tag=True):
    """Last answer to an order. `session` tells this guest from every other one; `sizes` are those
    of the exported disks in bytes, `memory` what a guest needs (MiB) for what this one left out."""

    timings: dict[str, float] = {}
    tools: dict[str, str] = {}
    layers: list[Layer] = []
    findings: list[Finding] = []
    console: bytes = b""
    session: dict[str, str] = {}
    sizes: list[int] = []
    memory: int = 0
    nested_images: list[NestedImage] = []
    systems: list[System] = []
    checks: list[Check] = []
    repairs: list[Repair] = []
    paths: list[PathChange] = []
    deltas: list[Delta] = []


class Trouble(msgspec.Struct, tag=True):
    """Last answer to an order that failed; `name` is a class of controller.errors."""

    name: str
    message: str
    hint: str
    console: bytes
    timings: dict[str, float] = {}


Order = MakeState | ProveKvm | OpenCase | Inspect | RepairDisks | WriteCopy
Event = Step | Done | Trouble


def _encode_other(value: Any) -> Any:  # noqa: ANN401 - msgspec's hook
    if isinstance(value, Path):
        return os.fsencode(value)
    raise NotImplementedError(f"cannot encode {type(value)}")


def _decode_other(kind: type, value: Any) -> Any:  # noqa: ANN401 - msgspec's hook
    if issubclass(kind, Path):
        return Path(os.fsdecode(value))
    raise NotImplementedError(f"cannot decode {kind}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_other)


class Link:
    """One end of the connection between the command and the core."""

    def __init__(self, connection: socket.socket, last_words: Callable[[], str] = str) -> None:
        self._connection = connection
        self._last_words = last_words
        self._deadline = math.inf

    def send(self, message: Order | Event) -> None:
        """Send one message. Raises OSError where the other end is gone."""
        data = bytearray(4)
        _encoder.encode_into(message, data, 4)
        data[:4] = (len(data) - 4).to_bytes(4, "big")
        try:
            self._connection.sendall(data)
        finally:
            wipe(data)  # keys are in some of them

    def receive_order(self) -> Order | None:
        """The next order; None when the command has closed its end."""
        data = self._receive()
        if data is None:
            return None
        order: Order = msgspec.msgpack.Decoder(Order, dec_hook=_decode_other).decode(data)
        wipe(data)
        return order

    def call(self, order: Order, watch: Callable[[Step], None], *, seconds: float) -> Done:
        """Send an order and wait for its last answer, showing `watch` the steps.

        Raises what the core raised, or CellFailed where the core is gone or silent.
        """
        # The core keeps the deadline; this one is for a core that cannot.
        self._deadline = time.monotonic() + seconds + 15
        try:
            self._connection.settimeout(seconds + 15)
            self.send(order)
            while True:
                data = self._receive()
                if data is None:
                    raise CellFailed(_died(self._last_words()))
                event: Event = msgspec.msgpack.decode(data, type=Event)
                match event:
                    case Step():
                        watch(event)
                    case Trouble():
                        raise restore(event)
                    case Done():
                        return event
        except TimeoutError:
            raise CellFailed(f"the cell did not answer in {seconds:.0f} seconds") from None
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            words = self._last_words()
            raise CellFailed(f"{_died(words)} ({error})") from error

    def _receive(self) -> bytearray | None:
        head = self._exactly(4)
        if head is None:
            return None
        length = int.from_bytes(head, "big")
        if length > MAX_MESSAGE:
            raise CellFailed("the cell sent a message above the limit")
        return self._exactly(length)

    def _exactly(self, length: int) -> bytearray | None:
        data = bytearray()
        while len(data) < length:
            # Before every part: the core may be in the guest's hands, and trickle or flood.
            if (left := self._deadline - time.monotonic()) <= 0:
                raise TimeoutError
            self._connection.settimeout(left if left < math.inf else None)
            part = self._connection.recv(min(length - len(data), 1 << 20))
            if not part:
                return None
            data += part
        return data


def _died(words: str) -> str:
    return "the cell ended unexpectedly" + (f"; its last words:\n{words}" if words else "")


def restore(trouble: Trouble) -> ForensicError:
    """The core's error as an exception of the same class, with the console attached."""
    kind = BY_NAME.get(trouble.name, EnvironmentFailed)
    error = kind(trouble.message, hint=trouble.hint)
    error.console = trouble.console
    return error
