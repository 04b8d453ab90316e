"""What host and agent say to each other, defined once.

Two conversations, one after the other:

1. On the virtio-serial port, lines of JSON: the host sends one order, the agent one answer.
   `warm` prepares a freshly booted guest for being saved; `provision` makes a restored one unique
   (entropy, time, the session's key) and turns the port into an SSH transport.
2. Through SSH, frames: 4 bytes of length (big endian), then one JSON object with a `kind`. The
   host sends a Request; the agent answers with any number of events and one `done` or `failed`.

The guest is hostile once evidence is attached. The host therefore decodes its frames strictly
(controller/agent_client.py) and the limits here bound what it reads at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from appliance.check import Check, Checking
from appliance.image import NestedImage
from appliance.layer import Finding, Layer, check_bytes, check_list, check_text
from appliance.repair import PathChange, Repair, Repairing
from appliance.system import Application, Interface, MountEntry, Service, System, User

VERSION = 6
"""Raised when either side would misunderstand the other; part of the saved state's key."""

PORT_NAME = "org.forensic.agent"
"""The name of the virtio-serial port, as in /sys/class/virtio-ports/*/name."""

AGENT_ADDRESS = ("127.0.0.1", 1)
"""Where the agent listens in the guest: the one address that its SSH server forwards to."""

KEX = "curve25519-sha256@libssh.org"
CIPHER = "aes256-ctr"
MAC = "hmac-sha2-256"
KEY = "ssh-ed25519"
"""The only algorithms of the channel. Debian's dropbear has no AES-GCM, paramiko no ChaCha20."""

MAX_LINE = 16 * 1024
MAX_FRAME = 1024 * 1024
MAX_DEPTH = 32
FRAME_HEAD = 4
"""Bytes of a frame's length, which stands before it."""


class ProtocolError(Exception):
    """The other side broke the rules of this page."""


@dataclass(frozen=True, slots=True)
class Provision:
    """Order: make this guest unlike any other restored from the same state.

    `entropy` is base64 of at least 32 random bytes; `time_ns` is the host's clock since the
    epoch; `client_key` an authorized_keys line.
    """

    entropy: str
    time_ns: int
    client_key: str


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Answer: the host key made after the reseed (`ssh-ed25519 BASE64`), and a proof of
    freshness: 16 bytes drawn from the kernel as hexadecimal text."""

    version: int
    host_key: str
    draw: str


@dataclass(frozen=True, slots=True)
class Disk:
    """One attached image: `address` is its layer's, `serial` what the SCSI disk reports.

    A `writable` one has an overlay of the host's under it that takes the writes.
    """

    address: str
    serial: str
    size: int
    writable: bool = False


@dataclass(frozen=True, slots=True)
class LayerKey:
    """A key for the layer at `address`, or for any where that is "all"; `secret` is base64 in JSON.

    TrueCrypt and VeraCrypt mix what is a `keyfile` into every passphrase; `pim` is VeraCrypt's
    number of iterations, None for its default.
    """

    address: str
    secret: bytearray = field(repr=False)
    keyfile: bool = False
    pim: int | None = None


@dataclass(frozen=True, slots=True)
class Deed:
    """An operation on a layer, in the words of a Progress."""

    operation: str
    layer: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a mapping is to do besides finding layers.

    `view` is "as-found" (nothing is replayed) or "recovered" (journals are replayed, on a
    throw-away overlay). `open` are addresses of disk images in file systems, as
    "LAYER:/path", `nested` asks for all that are there, and `systems` for what operating systems
    are installed. `check` asks for checks of the file systems, `repair` for repairs on disks that
    were attached writable.
    """

    view: str = "as-found"
    nested: bool = False
    open: list[str] = field(default_factory=list)
    systems: bool = False
    check: Checking | None = None
    repair: Repairing | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What the agent is to do with the disks that are attached.

    `headers` are disks that hold the detached LUKS header of the layer at their `address`;
    `seconds` is how long all of it may take.
    `fatal` is what other guests of this run died of: it is not tried again.
    """

    op: str
    disks: list[Disk] = field(default_factory=list)
    keys: list[LayerKey] = field(default_factory=list)
    fatal: list[Deed] = field(default_factory=list)
    wanted: Wanted = field(default_factory=Wanted)
    headers: list[Disk] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Event: what the agent is doing now, and on which layer. Shown, and named if it dies.

    It may take `seconds` without another word; then the guest is given up as one that hangs.
    `share` is how much of it is done, in thousandths, where that is known.
    """

    operation: str
    layer: str
    seconds: int
    share: int | None = None

    def __post_init__(self) -> None:
        check_text(self.operation, self.layer)
        check_bytes(self.seconds, self.share)


@dataclass(frozen=True, slots=True)
class SystemPart:
    """Event: more of the lists of the System that was sent last; each list goes on with these."""

    users: list[User] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    mountpoints: list[MountEntry] = field(default_factory=list)
    drive_mappings: list[MountEntry] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)
    applications: list[Application] = field(default_factory=list)

    def __post_init__(self) -> None:
        for each in (self.users, self.services, self.mountpoints, self.drive_mappings):
            check_list(each)
        for others in (self.interfaces, self.applications):
            check_list(others)


@dataclass(frozen=True, slots=True)
class Mapped:
    """Last reply to `map`: versions of the tools that were used, and seconds per phase.

    `memory` is how much a guest needs (MiB) for the key derivations that were not tried in this
    one, 0 where none was left out.
    """

    tools: dict[str, str]
    timings: dict[str, float]
    memory: int = 0

    def __post_init__(self) -> None:
        check_bytes(self.memory)
        check_list(list(self.tools))
        check_list(list(self.timings))
        check_text(*self.tools, *self.tools.values(), *self.timings)


@dataclass(frozen=True, slots=True)
class Failed:
    """Last reply to a request that the agent could not carry out."""

    code: str
    message: str

    def __post_init__(self) -> None:
        check_text(self.code, self.message)


_Found = Layer | Finding | NestedImage | Check | Repair | PathChange | System | SystemPart
Body = _Found | Progress | Mapped | Failed

BODIES: dict[str, type[Body]] = {
    "layer": Layer,
    "nested": NestedImage,
    "finding": Finding,
    "system": System,
    "system-part": SystemPart,
    "check": Check,
    "repair": Repair,
    "path": PathChange,
    "progress": Progress,
    "done": Mapped,
    "failed": Failed,
}
"""`kind` of a reply frame -> what its `body` is."""


def encode_reply(body: Body) -> bytes:
    """Return one frame for `body`; used by the agent."""
    kind = next(kind for kind, each in BODIES.items() if each is type(body))
    return frame(json.dumps({"kind": kind, "body": asdict(body)}).encode())


def frame(payload: bytes) -> bytes:
    """Put the length in front. Raises ProtocolError above MAX_FRAME."""
    return frame_head(len(payload)) + payload


def frame_head(length: int) -> bytes:
    """What stands before a payload of `length` bytes. Raises ProtocolError above MAX_FRAME."""
    if length > MAX_FRAME:
        raise ProtocolError(f"a frame of {length} bytes is above the limit of {MAX_FRAME}")
    return length.to_bytes(FRAME_HEAD, "big")


def read_frame(receive: Callable[[int], bytes]) -> bytes | None:
    """Read one frame with `receive(n)`, which returns at most n bytes and b"" at the end.

    Returns None where the stream ends between frames. Raises ProtocolError for a frame that is
    too long or cut off.
    """
    head = _read_exactly(receive, 4)
    if not head:
        return None
    length = int.from_bytes(head, "big")
    if len(head) < 4 or length > MAX_FRAME:
        raise ProtocolError("the length of a frame is cut off or above the limit")
    payload = _read_exactly(receive, length)
    if len(payload) < length:
        raise ProtocolError(f"a frame was cut off after {len(payload)} of {length} bytes")
    return payload


def _read_exactly(receive: Callable[[int], bytes], length: int) -> bytes:
    parts: list[bytes] = []
    missing = length
    while missing:
        part = receive(min(missing, 65536))
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def parse_object(payload: bytes) -> dict[str, Any]:
    """Decode one JSON object on the agent's side. Raises ProtocolError."""
    try:
        decoded = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not isinstance(decoded, dict):
        raise ProtocolError("not a JSON object")
    return decoded
