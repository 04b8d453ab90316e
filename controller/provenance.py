"""What the evidence was: its files, what it stands on, and hashes, as a result tells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance.layer import MAX_TEXT, Finding, Severity
from controller.integrity import Integrity, stored_hashes
from controller.results import (
    Evidence,
    EvidenceFile,
    EvidenceHeader,
    EvidenceLink,
    StoredHash,
)
from images.errors import ImageError
from images.evidence import EvidenceFile as OpenFile
from images.hashing import ExportHash, FileHash, ReadFailed
from images.image import Image
from images.quoting import shown


def described(
    images: Sequence[Image],
    sizes: Sequence[int],
    integrity: Integrity,
    writers: Sequence[list[str]],
) -> tuple[list[Evidence], list[Finding]]:
    """What the images are, with their hashes, and what is to be said of that.

    `sizes` are those of the disks in bytes, `writers` who else can write to each image.
    """
    files, disks = integrity.files(), integrity.disks()
    failures = [
        Finding(Severity.ERROR, None, "not-hashed", str(outcome)[:MAX_TEXT])
        for outcome in (*files.values(), *disks)
        if isinstance(outcome, ImageError)
    ]
    evidence = [
        describe(image, size, files, disk, sentences)
        for image, size, disk, sentences in zip(images, sizes, disks, writers, strict=True)
    ]
    agreement = [
        finding for index, each in enumerate(evidence) for finding in compared(index, each)
    ]
    live = [
        Finding(Severity.WARNING, None, "evidence-live", sentence[:MAX_TEXT])
        for sentences in writers
        for sentence in sentences
    ]
    return evidence, [*live, *failures, *agreement]


def notes(images: Sequence[Image]) -> list[Finding]:
    """What the containers' own readers have to say."""
    return [
        Finding(Severity.INFO, f"disk{index}", "container", note)
        for index, image in enumerate(images)
        for note in image.notes
    ]


def describe(
    image: Image,
    size: int,
    files: Mapping[int, FileHash | ReadFailed],
    disk: ExportHash | ImageError | None,
    sentences: list[str],
) -> Evidence:
    """One image: hashes by descriptor, the outcome for its disk, and who else can write."""
    return Evidence(
        path=_text(image.path),
        format=image.format,
        virtual_size=size,
        files=[
            EvidenceFile(_text(file.path), file.size, _sha256(files.get(file.fd)))
            for file in image.files
        ],
        chain=[
            EvidenceLink(_text(link.path), link.format, link.virtual_size)
            for link in image.chain[1:]
        ],
        sha256=disk.digests["sha256"] if isinstance(disk, ExportHash) else None,
        stored_hashes=[
            StoredHash(
                algorithm, stored, disk.digests[algorithm] if isinstance(disk, ExportHash) else None
            )
            for algorithm, stored in stored_hashes(image).items()
        ],
        writers=sentences,
    )


def describe_header(
    address: str, file: OpenFile, files: Mapping[int, FileHash | ReadFailed]
) -> EvidenceHeader:
    """A detached header, with its hash by descriptor."""
    return EvidenceHeader(address, _text(file.path), file.size, _sha256(files.get(file.fd)))


def compared(index: int, evidence: Evidence) -> list[Finding]:
    """What the image says of its own content, and whether that is so."""
    findings = []
    for each in evidence.stored_hashes:
        name = {"md5": "MD5", "sha1": "SHA-1"}[each.algorithm]
        if each.actual is None:
            severity, words = Severity.WARNING, f"{each.stored} was not compared"
        elif each.actual == each.stored:
            severity, words = Severity.INFO, f"{each.stored} is that of the disk"
        else:
            severity, words = (
                Severity.ERROR,
                f"{each.stored} is not that of the disk, {each.actual}",
            )
        message = f"the {name} stored in the image, {words}"
        findings.append(Finding(severity, f"disk{index}", "stored-hash", message))
    return findings


def _sha256(outcome: FileHash | ReadFailed | None) -> str | None:
    return outcome.sha256 if isinstance(outcome, FileHash) else None


def _text(path: Path) -> str:
    """A path for JSON: text where it is UTF-8, escaped where it is not."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return shown(str(path))
    return str(path)
