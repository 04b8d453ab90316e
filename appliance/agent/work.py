"""What one mapping has at hand, wherever in it one is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from appliance.agent.keyring import Keyring
from appliance.agent.outcome import Outcome
from appliance.agent.volume import Volume
from appliance.layer import ArrayFacts, Content, Encryption, Finding, Layer, Status
from appliance.protocol import Wanted


@dataclass(frozen=True, slots=True)
class Work:
    """`outcome` takes what is found, and `stack` undoes what is set up in the guest for it.

    `headers` are the detached LUKS headers, by the address of the layer that each is for.
    """

    outcome: Outcome
    stack: ExitStack
    keyring: Keyring = field(default_factory=Keyring)
    wanted: Wanted = field(default_factory=Wanted)
    headers: Mapping[str, Volume] = field(default_factory=dict)

    def may_write(self, address: str) -> bool:
        """Whether that layer is to be writable: it is on the way to what is repaired."""
        return self.wanted.repair is not None and address in self.wanted.repair.path

    @property
    def is_repair(self) -> bool:
        """Then nothing is looked into but what may be written to."""
        return self.wanted.repair is not None


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system that was found, and what it lies on. `wants_replay`: its journal holds changes
    that are not in place yet."""

    volume: Volume
    content: Content
    wants_replay: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """What came of looking into a volume.

    `status` is the volume's own; `volumes` are to be explored, `layers` have no content to look
    for, `file_systems` are those in the `layers` that can be mounted, and `findings` are told
    behind the volume's own layer.
    """

    status: Status = Status.MAPPED
    encryption: Encryption | None = None
    volumes: list[Volume] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    file_systems: list[FileSystem] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    array: ArrayFacts | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A part of something larger, with its UUID as libblkid read it."""

    volume: Volume
    uuid: str
