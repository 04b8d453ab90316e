"""A repair: overlays for the disks, the order to the core, and the files that are kept of it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from appliance.layer import Finding, Severity
from appliance.protocol import Wanted
from appliance.repair import Repairing
from controller.case import Case
from controller.errors import EnvironmentFailed, EvidenceRefused, UsageError
from controller.new_files import NewFile, new_file, refuse_existing
from controller.repair_plan import Planned, planned
from controller.repair_results import NewFileResult, Repaired, delta_of
from controller.results import Inspection
from controller.settings import MAX_TIMEOUT
from controller.sizes import human, parsed
from controller.wire import Overlaid, WriteCopy
from images import qcow2_output
from images.detect import Format
from images.errors import ImageError
from images.image import Image, open_image
from images.quoting import shown
from images.reference import Reach

_DEFAULT_SIZE = 4 << 30
_LEAST_SIZE = 1 << 20
_RESERVE = 64 << 20
"""Bytes that an overlay leaves free on its file system."""

_HASHED = 4 << 20
_BY_ONE_NAME = {
    Format.RAW: "raw",
    Format.QCOW2: "qcow2",
    Format.VMDK: "vmdk",
    Format.VDI: "vdi",
    Format.QED: "qed",
    Format.QCOW1: "qcow",
}
"""What QEMU opens like this program does, and what it calls the format."""


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """What the command line asked for; `seconds` is for one run of a tool."""

    save_overlay: Path | None
    output: Path | None
    overlay_size: str | None
    zero_log: bool
    seconds: float

    def __post_init__(self) -> None:
        if self.overlay_size is not None:
            try:
                size = parsed(self.overlay_size)
            except ValueError:
                size = 0
            if size < _LEAST_SIZE:
                raise UsageError("--overlay-size is a size of at least 1M, as 512M or 4G")
        if self.output and self.output.suffix not in (".qcow2", ".raw"):
            raise UsageError("--output: the name ends in .qcow2 or .raw, which says the format")
        for option, path in (("--save-overlay", self.save_overlay), ("--output", self.output)):
            if path:
                refuse_existing(option, path)


class Repairs:
    """The files of a repair and what came of it. A context manager: files that were not kept are
    gone when it ends."""

    def __init__(self, options: RepairOptions, images: list[Path], allowed: list[Path]) -> None:
        if (options.save_overlay or options.output) and len(images) > 1:
            raise UsageError(
                "--save-overlay and --output are for one image",
                hint="leave them out to see what a repair would do",
            )
        self._options = options
        self._stack = ExitStack()
        self._output: NewFile | None = None
        self._overlays: list[NewFile] = []
        self._count = len(images)
        self.outcome = Repaired()
        if options.save_overlay:
            _refuse_without_name(images[0], allowed)

    def __enter__(self) -> Repairs:
        with self._stack as stack:
            save, output = self._options.save_overlay, self._options.output
            folder = save.parent if save else _temporary()
            name = save.name if save else ""
            for _ in range(self._count):
                self._overlays.append(stack.enter_context(new_file(folder, name)))
            if output:
                self._output = stack.enter_context(new_file(output.parent, output.name))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_failure: object) -> None:
        self._stack.close()

    @property
    def lent(self) -> list[int]:
        """Descriptors for the cell."""
        files = [*self._overlays, *([self._output] if self._output else [])]
        return [number for each in files for number in (each.descriptor, each.readable)]

    def work(self, case: Case, inspection: Inspection) -> None:
        """Repair what the inspection found errors in. Raises ForensicError."""
        plan = planned(inspection, case.checks, zero_log=self._options.zero_log)
        outcome = self.outcome
        outcome.findings += plan.findings
        if not plan.layers:
            return
        overlays = [self._overlay(disk, case) for disk in plan.disks]
        done = case.repair(self._wanted(plan), overlays)
        outcome.repairs = done.repairs
        outcome.checks = {check.layer: check for check in done.checks}
        outcome.paths = done.paths
        outcome.deltas = [delta_of(each, inspection.layers) for each in done.deltas]
        known = {(each.layer, each.code) for each in inspection.findings}
        outcome.findings += [each for each in done.findings if (each.layer, each.code) not in known]
        if self._output and self._options.output and outcome.is_whole:
            form = self._options.output.suffix.removeprefix(".")
            case.write_copy(
                WriteCopy(overlays[0], self._output.descriptor, form, float(MAX_TIMEOUT))
            )
            outcome.output = _described(self._output, self._options.output, form, case)

    def _wanted(self, plan: Planned) -> Wanted:
        options = self._options
        return Wanted(repair=Repairing(plan.layers, plan.path, options.seconds, options.zero_log))

    def _overlay(self, disk: int, case: Case) -> Overlaid:
        file = self._overlays[disk]
        image, size = case.images[disk], case.sizes[disk]
        backing = image.path.resolve() if self._options.save_overlay else None
        try:
            empty = qcow2_output.overlay(size, backing, _BY_ONE_NAME.get(image.format, ""))
        except ValueError as error:
            raise UsageError(f"--save-overlay: {error}") from error
        return Overlaid(disk, file.descriptor, file.readable, empty, self._limit(file))

    def _limit(self, file: NewFile) -> int:
        place = os.fstatvfs(file.descriptor)
        free = place.f_bavail * place.f_frsize - _RESERVE
        wanted = self._options.overlay_size
        limit = parsed(wanted) if wanted is not None else min(_DEFAULT_SIZE, free)
        if limit > free or limit < _LEAST_SIZE:
            raise EnvironmentFailed(
                f"there is no room for an overlay of {human(max(limit, _LEAST_SIZE))} "
                f"({human(max(free, 0))} can be used where it would lie)",
                hint="give a smaller --overlay-size, or set TMPDIR to another place",
            )
        return limit

    def keep(self, case: Case) -> None:
        """Give the files their names, once the evidence is known to be unchanged. What is not kept
        is said."""
        options, outcome = self._options, self.outcome
        wanted = [each for each in (options.save_overlay, options.output) if each]
        if not wanted:
            return
        if not outcome.is_whole:
            names = " and ".join(shown(str(each)) for each in wanted)
            why = "a repair did not end with a clean check" if outcome.repairs else ""
            severity = Severity.WARNING if why or outcome.findings else Severity.INFO
            message = f"{names} not written: {why or 'nothing was repaired'}"
            outcome.findings.append(Finding(severity, None, "not-saved", message))
            return
        if options.save_overlay:
            file = next(each for each in self._overlays)
            outcome.overlay = _described(file, options.save_overlay, "qcow2", case)
            file.keep(options.save_overlay)
        if options.output and self._output:
            self._output.keep(options.output)


def _described(file: NewFile, path: Path, form: str, case: Case) -> NewFileResult:
    size = os.fstat(file.readable).st_size
    digest = hashlib.sha256()
    at = 0
    while block := os.pread(file.readable, _HASHED, at):
        digest.update(block)
        at += len(block)
        case.show_bytes("hash the new file", at, size)
    return NewFileResult(str(path), form, size, digest.hexdigest())


def _temporary() -> Path:
    """Not /tmp by itself: that is memory on many systems, and an overlay can be large."""
    chosen = os.environ.get("TMPDIR")
    if chosen:
        return Path(chosen)
    lasting = Path("/var/tmp")  # noqa: S108 - the file never has a name there
    return lasting if lasting.is_dir() else Path(tempfile.gettempdir())


def _refuse_without_name(path: Path, allowed: list[Path]) -> None:
    """Raise UsageError where an overlay could not say by one name what it lies on."""
    with ExitStack() as stack:
        try:
            image = open_image(path, stack=stack, reach=Reach.into(allowed))
        except ImageError as error:
            raise EvidenceRefused(str(error), hint=error.hint) from error
        if reason := _nameless(image):
            raise UsageError(
                f"--save-overlay: {shown(str(path))} {reason}, so no overlay can name it",
                hint="use --output, which writes a whole copy",
            )


def _nameless(image: Image) -> str:
    if image.format not in _BY_ONE_NAME:
        return f"is read by this program's own reader ({image.format.value})"
    if image.format is Format.RAW and len(image.files) > 1:
        return "consists of several parts"
    return ""
