"""The entry point: what an evidence file is, and everything that the exporter needs of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from images import compressed, ewf_set, flat, qcow1, qcow2, qed, vdi, vhd, vhdx, vmdk
from images.chain import Chain, Link, Opener
from images.detect import Format, detect
from images.errors import Unsupported
from images.evidence import EvidenceFile, opened
from images.graph import Plan
from images.quoting import shown
from images.reference import Reach

_OPENERS: dict[Format, Opener] = {
    Format.RAW: flat.open_link,
    Format.QCOW2: qcow2.open_link,
    Format.VMDK: vmdk.open_link,
    Format.VHD: vhd.open_link,
    Format.VHDX: vhdx.open_link,
    Format.VDI: vdi.open_link,
    Format.QED: qed.open_link,
    Format.QCOW1: qcow1.open_link,
    Format.EWF: ewf_set.open_link,
    Format.GZIP: compressed.open_gzip,
    Format.XZ: compressed.open_xz,
}
_WITH_SNAPSHOTS = (Format.QCOW2,)


@dataclass(frozen=True, slots=True)
class Image:
    """An image that may be exported; `chain` is its links, the one that the user named first.

    `files` is everything that belongs to it, in the order of finding; they are open as long as
    the stack that was given to `open_image`. `notes` are findings to be shown.
    """

    files: tuple[EvidenceFile, ...]
    chain: tuple[Link, ...]
    notes: tuple[str, ...]

    @property
    def path(self) -> Path:
        """As the user named it."""
        return self.chain[0].path

    @property
    def format(self) -> Format:
        """The format of the file that the user named."""
        return self.chain[0].format

    @property
    def virtual_size(self) -> int | None:
        """The size of the disk in bytes, None where it is only known when all was unpacked."""
        return self.chain[0].virtual_size

    @property
    def plan(self) -> Plan:
        """How to export it."""
        return Plan(self.path, self.virtual_size, self.files, self.chain[0].node)


def open_image(
    path: Path,
    *,
    stack: ExitStack,
    declared: Format | None = None,
    reach: Reach | None = None,
    snapshot: str | None = None,
) -> Image:
    """Open the image and check it; only ImageErrors come out, whatever the file holds.

    `declared` overrides the detection: a disk declared raw is served byte for byte, whatever
    its first bytes look like. References are followed inside the image's folder and `reach`.
    `snapshot` is the name or ID of an internal snapshot to be shown instead of the current state.
    """
    file = stack.enter_context(opened(path))
    return image_of(file, stack=stack, declared=declared, reach=reach, snapshot=snapshot)


def image_of(
    file: EvidenceFile,
    *,
    stack: ExitStack,
    declared: Format | None = None,
    reach: Reach | None = None,
    snapshot: str | None = None,
) -> Image:
    """The same for a file that is open already."""
    form = declared or detect(file)
    if snapshot is not None and form not in _WITH_SNAPSHOTS:
        raise Unsupported(
            f"is an image in the format {form}, which has no internal snapshots",
            path=file.path,
            hint="leave --snapshot out; for a chain of snapshot files name the last file",
        )
    chain = Chain(_OPENERS, stack, reach or Reach(), snapshot)
    top = chain.open(file, form)
    links = top.below
    return Image(files=chain.files, chain=links, notes=tuple(_notes(links)))


def _notes(links: tuple[Link, ...]) -> list[str]:
    """Those of the links below the first name the file that they are about."""
    notes = list(links[0].notes)
    for link in links[1:]:
        notes += [f"{shown(str(link.path))}: {note}" for note in link.notes]
    return notes
