"""The entry point: what an evidence file is, and everything that the exporter needs of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from images import qcow2, raw, vmdk
from images.detect import SUPPORTED, Format, detect, is_text_descriptor
from images.errors import Unsupported
from images.evidence import EvidenceFile, opened
from images.qcow2 import Qcow2Header
from images.raw import RawLayout
from images.vmdk import SingleFileVmdk, SplitVmdk

Details = RawLayout | Qcow2Header | SingleFileVmdk | SplitVmdk

_HEAD = 4096


@dataclass(frozen=True, slots=True)
class Image:
    """An image that may be exported. `virtual_size` is the size of its disk in bytes.

    `files` is everything that belongs to it, the file that the user named first; they are open
    as long as the stack that was given to `open_image`. `notes` are findings to be shown.
    """

    path: Path
    format: Format
    virtual_size: int
    files: tuple[EvidenceFile, ...]
    details: Details
    notes: tuple[str, ...]


def open_image(path: Path, *, stack: ExitStack, declared: Format | None = None) -> Image:
    """Open the image and check it; only ImageErrors come out, whatever the file holds.

    `declared` overrides the detection: a disk declared raw is served byte for byte, whatever
    its first bytes look like.
    """
    file = stack.enter_context(opened(path))
    form = declared or detect(file)
    if form not in SUPPORTED:
        raise Unsupported(
            f"is an image in the format {form}, which is not supported yet",
            path=file.path,
            hint="convert it to raw or qcow2 where it can be trusted",
        )
    details = _details(file, form, stack)
    companions = details.files if isinstance(details, SplitVmdk) else ()
    return Image(
        path=file.path,
        format=form,
        virtual_size=details.virtual_size,
        files=(file, *companions),
        details=details,
        notes=tuple(_notes(details)),
    )


def _details(file: EvidenceFile, form: Format, stack: ExitStack) -> Details:
    if form is Format.RAW:
        return raw.parse(file)
    if form is Format.QCOW2:
        return qcow2.parse(file)
    if is_text_descriptor(file.read(0, _HEAD)):
        return vmdk.open_split(file, stack)
    return vmdk.open_single(file)


def _notes(details: Details) -> list[str]:
    notes = []
    if isinstance(details, RawLayout) and details.padded:
        notes.append("the file size is not a multiple of 512; the last sector is filled with zeros")
    if isinstance(details, Qcow2Header):
        if details.corrupt:
            notes.append("the image is marked corrupt")
        if details.dirty:
            notes.append("the image was not closed cleanly (marked dirty)")
        if details.snapshots:
            notes.append(
                f"the image has {details.snapshots} internal snapshots; "
                "only its current state is shown"
            )
    return notes
