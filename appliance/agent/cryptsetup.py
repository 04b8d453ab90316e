"""cryptsetup(8): one process for each try, with the key on its standard input and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

from appliance.agent.command import run
from appliance.agent.device import open_device
from appliance.agent.dm import node_by_name
from appliance.agent.memory import available
from appliance.agent.volume import Volume
from appliance.layer import Kind

DERIVATION_SECONDS = 600
"""What deriving the keys of one volume may take; Argon2 at its usual cost, emulated."""

_WRONG_KEY, _NO_MEMORY = 2, 3
"""Exit statuses of cryptsetup(8)."""

_numbers = count()


class CryptError(Exception):
    """cryptsetup refused for another reason than the key."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to open a device: cryptsetup's --type, its other options, and descriptors that it
    is to have. It opens read-only unless it is `writable`, for a repair."""

    kind: str
    options: Sequence[str] = ()
    inherited: Sequence[int] = ()
    writable: bool = False


def open_with(
    key: bytes | bytearray, node: str, attempt: Attempt, stack: ExitStack, *, seconds: float
) -> str | None:
    """The node of what is inside, None where the key does not fit; closed with the stack.

    `seconds` is what is left of this run. Raises CryptError and CommandError.
    """
    if seconds <= 0:
        raise CryptError("the time for this run is over (--timeout)")
    name = f"crypt{next(_numbers)}"
    mode = () if attempt.writable else ("--readonly",)
    done = run(
        [
            *("cryptsetup", "open", *mode, "--batch-mode", "--type", attempt.kind),
            *("--key-file", "-", *attempt.options, node, name),
        ],
        timeout=min(DERIVATION_SECONDS - 30, round(seconds)),
        stdin=key,
        inherited=attempt.inherited,
        # What a header asks for was looked at before; this is for one that has two faces.
        memory=available(),
    )
    if done.status == _WRONG_KEY:
        return None
    words = done.stderr.decode("utf-8", "replace").strip()[:1000]
    if done.status == _NO_MEMORY:
        raise CryptError(f"the guest has too little memory for its key derivation; {words}")
    if done.status != 0:
        raise CryptError(words or f"cryptsetup ended with status {done.status}")
    stack.callback(run, ["cryptsetup", "close", name], timeout=60)
    found = node_by_name(name)
    if found is None:
        raise CryptError("cryptsetup made no device")
    return found


def inside(
    volume: Volume, name: str, node: str, stack: ExitStack, *, writable: bool = False
) -> Volume:
    """What was opened at `node`, as the layer `name` of the volume. Raises DeviceError."""
    device = open_device(node, writable=writable)
    stack.callback(device.close)
    return Volume(
        address=f"{volume.address}/{name}",
        kind=Kind.CRYPT,
        parents=[volume.address],
        offset=None,
        size=device.size,
        device=device,
        start=0,
        node=node,
    )
