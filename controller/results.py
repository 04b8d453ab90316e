"""What an inspection returns: the typed result, and the JSON that docs/reference describes."""

from __future__ import annotations

import msgspec

from appliance.image import NestedImage
from appliance.layer import Finding, Layer, Severity, Status
from appliance.system import System
from controller.errors import ExitCode

SCHEMA = "forensic.inspect/1"
SYSTEMS_SCHEMA = "forensic.os/1"
LEFT_OUT = {Status.LOCKED, Status.UNSUPPORTED, Status.DAMAGED, Status.LIMIT}


class EvidenceFile(msgspec.Struct, frozen=True):
    """A file that belongs to an image, its size in bytes, and its hash (None: not asked for, or
    not to be had; a finding says why)."""

    path: str
    size: int
    sha256: str | None = None


class EvidenceLink(msgspec.Struct, frozen=True):
    """An image that the one before it stands on; its size in bytes is None where it is not known
    without unpacking it."""

    path: str
    format: str
    virtual_size: int | None


class StoredHash(msgspec.Struct, frozen=True):
    """A hash of the disk that its image stores, and what the disk has (None: not to be had)."""

    algorithm: str
    stored: str
    actual: str | None


class Evidence(msgspec.Struct, frozen=True):
    """One image. `virtual_size` is the size in bytes of the disk that it holds, `sha256` the hash
    of that disk where it was asked for or needed for the `stored_hashes`. `chain` is what the image
    stands on, `writers` who else could write to it while it was read."""

    path: str
    format: str
    virtual_size: int
    files: list[EvidenceFile]
    chain: list[EvidenceLink] = []
    sha256: str | None = None
    stored_hashes: list[StoredHash] = []
    writers: list[str] = []


class EvidenceHeader(msgspec.Struct, frozen=True):
    """A file with the detached LUKS header of the layer at `layer`; see EvidenceFile."""

    layer: str
    path: str
    size: int
    sha256: str | None = None


class Inspection(msgspec.Struct, frozen=True):
    """What was found. `timings` are seconds per phase, `tools` versions by name.

    `boundary` is what kept the guest in: "kvm", or "cell" where QEMU emulated the processor and
    gives no promise of its own. `nested_images` are disk images in file systems (`--nested`).
    `systems` are the operating systems, None where nobody asked for them.
    """

    schema: str
    evidence: list[Evidence]
    layers: list[Layer]
    findings: list[Finding]
    complete: bool
    boundary: str
    tools: dict[str, str]
    timings: dict[str, float]
    headers: list[EvidenceHeader] = []
    nested_images: list[NestedImage] = []
    systems: list[System] | None = None

    @property
    def exit_code(self) -> ExitCode:
        """0 where everything was done and found in order, else 1."""
        return ExitCode.COMPLETE if self.complete else ExitCode.INCOMPLETE

    def to_json(self) -> bytes:
        """The documented JSON document, indented, with a final newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class Systems(msgspec.Struct, frozen=True):
    """What `forensic os --json` prints: an Inspection without its layers."""

    schema: str
    evidence: list[Evidence]
    systems: list[System]
    findings: list[Finding]
    complete: bool
    boundary: str
    tools: dict[str, str]
    timings: dict[str, float]

    @classmethod
    def of(cls, result: Inspection) -> Systems:
        """The systems of an inspection that has looked for them."""
        return cls(
            schema=SYSTEMS_SCHEMA,
            evidence=result.evidence,
            systems=result.systems or [],
            findings=result.findings,
            complete=result.complete,
            boundary=result.boundary,
            tools=result.tools,
            timings=result.timings,
        )

    def to_json(self) -> bytes:
        """The document of docs/reference/os.md, indented, with a final newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def is_complete(layers: list[Layer], findings: list[Finding]) -> bool:
    """Whether nothing was left out and nothing was found wrong."""
    return not any(layer.status in LEFT_OUT for layer in layers) and not any(
        finding.severity is not Severity.INFO for finding in findings
    )
