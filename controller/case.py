"""A case: some images, one guest that looks into them, and the proof that they are unchanged.

The one way in for the command line, scripts and batch runs:

    with Case(["disk.qcow2"]) as case:
        result = case.inspect()
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from appliance.layer import Finding, Severity
from controller import state
from controller.cell import cell
from controller.errors import EvidenceChanged, EvidenceRefused, ForensicError, UsageError
from controller.provide import Provided, provide
from controller.results import SCHEMA, Evidence, EvidenceFile, Inspection, is_complete
from controller.settings import Settings
from controller.store import read_manifest
from controller.wire import Inspect, Link, OpenCase, Step, pack_image
from images.errors import ImageError
from images.image import Image, open_image
from images.quoting import shown

MAX_IMAGES = 64


class Case:
    """Images in a disposable guest. Use it as a context manager.

    Entering opens the images, restores a guest (building the appliance at first use), and
    attaches them read-only. Leaving destroys the guest and compares the files with what they
    were; EvidenceChanged is raised then if they differ. `watch` is called with every step.
    All methods raise ForensicError (controller/errors.py).
    """

    def __init__(
        self,
        images: Sequence[str | Path],
        settings: Settings | None = None,
        watch: Callable[[Step], None] = lambda _step: None,
    ) -> None:
        if not images:
            raise UsageError("no image was given", hint="name at least one image file")
        if len(images) > MAX_IMAGES:
            raise UsageError(f"{len(images)} images are more than {MAX_IMAGES}")
        self._paths = [Path(image) for image in images]
        self._settings = settings or Settings()
        self._watch = watch
        self._stack = ExitStack()
        self._cell = ExitStack()
        self._images: list[Image] = []
        self._console = b""
        self._session: dict[str, str] = {}
        self._timings: dict[str, float] = {}
        self._tools: dict[str, str] = {"forensic": importlib.metadata.version("forensic-appliance")}

    def __enter__(self) -> Case:
        self._begin = time.monotonic()
        try:
            self._open_images()
            self._appliance = provide(self._settings, self._show)
            self._tools |= read_manifest(self._appliance.state).tools
            self._enter_cell(self._appliance)
        except BaseException as error:
            with self._stack:
                self._cell.close()
                self._check_unchanged(error)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:  # the descriptors of the evidence stay open until they were compared
            self._cell.close()
            self._check_unchanged(value)

    def _check_unchanged(self, failure: BaseException | None) -> None:
        """Raise EvidenceChanged where a file differs; it says what else failed, if anything did.

        An interruption stays one: whoever pressed Ctrl-C has no result that could be void.
        """
        changes = self.changes()
        if not changes or not (failure is None or isinstance(failure, ForensicError)):
            return
        besides = f"\nand the run failed: {failure.message}" if failure else ""
        error = EvidenceChanged(
            "the evidence changed during the run:\n" + "\n".join(changes) + besides,
            hint="find out what else writes to these files, and treat the result as void",
        )
        error.changes = changes
        if failure:
            error.console = failure.console
        raise error from failure

    @property
    def fallback(self) -> str:
        """Why the processor is emulated, "" with KVM."""
        return self._appliance.fallback

    @property
    def session(self) -> dict[str, str]:
        """What only this guest has: its SSH `host_key`, and `draw`, 16 random bytes (hex) of its
        kernel. Two guests restored from one state never share either."""
        return self._session

    @property
    def console(self) -> bytes:
        """What the guest wrote to its serial console, as of the last inspection."""
        return self._console

    def changes(self) -> list[str]:
        """What is different now about the files of the evidence, a line each; none is good."""
        return [
            f"{shown(str(file.path))}: {change}"
            for image in self._images
            for file in image.files
            for change in file.changes()
        ]

    def inspect(self) -> Inspection:
        """Map the layers of all images."""
        done = self._link.call(
            Inspect(self._settings.timeout), self._watch, seconds=self._settings.timeout
        )
        self._console = done.console
        findings = [*self._notes(), *done.findings]
        return Inspection(
            schema=SCHEMA,
            evidence=[_describe(image) for image in self._images],
            layers=done.layers,
            findings=findings,
            complete=is_complete(done.layers, findings),
            boundary="kvm" if self._appliance.variant.accelerator == "kvm" else "cell",
            tools=self._tools | done.tools,
            timings=self._timings | done.timings,
        )

    def _open_images(self) -> None:
        try:
            for path in self._paths:
                self._images.append(open_image(path, stack=self._stack))
        except ImageError as error:
            raise EvidenceRefused(str(error), hint=error.hint) from error

    def _enter_cell(self, appliance: Provided) -> None:
        descriptors = [file.fd for image in self._images for file in image.files]
        self._stack.enter_context(self._cell)
        self._link: Link = self._cell.enter_context(
            cell(state.binds_of(appliance.base, appliance.state, appliance.variant), descriptors)
        )
        order = OpenCase(
            state.appliance_of(appliance.base, appliance.state, appliance.variant),
            [pack_image(image) for image in self._images],
            self._settings.start_timeout,
        )
        self._timings["prepare"] = round(time.monotonic() - self._begin, 4)
        done = self._link.call(order, self._watch, seconds=self._settings.start_timeout)
        self._timings |= done.timings
        self._session = done.session

    def _show(self, operation: str) -> None:
        self._watch(Step(operation))

    def _notes(self) -> list[Finding]:
        return [
            Finding(Severity.INFO, f"disk{index}", "container", note)
            for index, image in enumerate(self._images)
            for note in image.notes
        ]


def _describe(image: Image) -> Evidence:
    return Evidence(
        path=_text(image.path),
        format=image.format,
        virtual_size=image.virtual_size,
        files=[EvidenceFile(_text(file.path), file.size) for file in image.files],
    )


def _text(path: Path) -> str:
    """A path for JSON: text where it is UTF-8, escaped where it is not."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return shown(str(path))
    return str(path)
