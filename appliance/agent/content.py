"""What is on a volume: libblkid's answer, completed by the file system's own account."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

from appliance.agent.blkid import BlkidError, Signature, find_signature
from appliance.agent.filesystem.account import Usage
from appliance.agent.filesystem.usage import read_usage
from appliance.agent.lvm2.area import has_area
from appliance.agent.volume import Volume
from appliance.layer import Content, Finding, Kind, Severity, Status

_LUKS = "crypto_LUKS"


@dataclass(frozen=True, slots=True)
class Examined:
    """A volume's content, how far it could be read, and what is to be said about it."""

    content: Content | None
    status: Status
    findings: list[Finding]


def examine(volume: Volume) -> Examined:
    """Recognise the content of a volume without mounting anything."""
    try:
        found = find_signature((volume.padded or volume.device).fd, volume.start, volume.size)
    except BlkidError as error:
        message = f"a part of it that a signature could be in cannot be read ({error})"
        if volume.kind is Kind.LOGICAL_VOLUME:
            message += "; parts of it may lie on a physical volume that is missing"
        finding = Finding(Severity.ERROR, volume.address, "unreadable", message)
        return Examined(None, Status.DAMAGED, [finding])
    if isinstance(found, list):
        return _ambiguous(volume, found)
    if found is None or not found.text("TYPE"):
        return Examined(None, Status.UNSUPPORTED, [])
    return _recognised(volume, found)


def without_label(volume: Volume) -> Examined | None:
    """A physical volume of LVM2 whose label is gone and whose metadata is not, else None."""
    try:
        if not has_area(volume.read):
            return None
    except OSError:
        return None
    return Examined(Content("LVM2_member", usage="raid"), Status.DAMAGED, [])


def examine_header(volume: Volume, header: Volume) -> Examined:
    """The same for a volume whose LUKS header lies elsewhere, and of which only that is known."""
    found = examine(replace(header, address=volume.address))
    if found.content and found.content.type == _LUKS:
        return found
    message = "the header that was given for it is not one of LUKS; what is inside is not shown"
    finding = Finding(Severity.ERROR, volume.address, "bad-header", message)
    return Examined(None, Status.UNSUPPORTED, [finding])


def _ambiguous(volume: Volume, signatures: list[Signature]) -> Examined:
    types = ", ".join(sorted({signature.text("TYPE") or "?" for signature in signatures}))
    finding = Finding(
        Severity.WARNING,
        volume.address,
        "ambiguous",
        f"there are signatures of several things here ({types}); which one counts is not decided",
    )
    return Examined(None, Status.UNSUPPORTED, [finding])


def _recognised(volume: Volume, signature: Signature) -> Examined:
    kind = signature.text("TYPE") or ""
    usage = read_usage(kind, volume.read, volume.size) or Usage()
    label = signature.values.get("LABEL")
    content = Content(
        type=kind,
        usage=signature.text("USAGE"),
        version=signature.text("VERSION"),
        label=signature.text("LABEL"),
        label_base64=None if _is_text(label) else base64.b64encode(label or b"").decode(),
        uuid=signature.text("UUID"),
        block_size=_first(usage.block_size, signature.number("FSBLOCKSIZE")),
        size=_first(usage.size, signature.number("FSSIZE")),
        used=usage.used,
        free=usage.free,
        ext=usage.ext,
    )
    findings = [
        Finding(problem.severity, volume.address, problem.code, problem.message)
        for problem in usage.problems
    ]
    if signature.values.get("SBBADCSUM") == b"1":
        message = f"the checksum of the {kind} superblock does not fit its contents"
        findings.append(Finding(Severity.ERROR, volume.address, "bad-checksum", message))
        return Examined(content, Status.DAMAGED, findings)
    return Examined(content, Status.MAPPED, findings)


def _is_text(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _first(*numbers: int | None) -> int | None:
    return next((number for number in numbers if number is not None), None)
