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
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from appliance.check import Check
from appliance.layer import Finding
from appliance.protocol import LayerKey, Wanted
from appliance.secret import wiped
from controller import growth, state
from controller.cell import cell
from controller.domain_xml import check_size
from controller.errors import EvidenceChanged, EvidenceRefused, ForensicError, UsageError
from controller.headers import OpenHeader, open_header
from controller.integrity import Integrity, check_writers
from controller.keys import astray, check_disks, keys_for, layer_keys
from controller.provenance import describe_header, described, notes
from controller.provide import Provided, provide
from controller.results import (
    SCHEMA,
    Inspection,
    is_complete,
)
from controller.settings import Settings
from controller.store import read_manifest
from controller.wire import (
    Done,
    Header,
    Inspect,
    Link,
    OpenCase,
    Overlaid,
    RepairDisks,
    Step,
    WriteCopy,
)
from images.errors import ImageError
from images.export import start_seconds
from images.image import Image, open_image
from images.quoting import shown
from images.reference import Reach

MAX_IMAGES = 64


class Case:
    """Images in a disposable guest. Use it as a context manager.

    Entering opens the images, restores a guest (building the appliance at first use), and
    attaches them read-only. Leaving destroys the guest and compares the files with what they
    were; EvidenceChanged is raised then if they differ. `watch` is called with every step.
    `lent` are open descriptors that the cell needs besides. All methods raise ForensicError
    (controller/errors.py).
    """

    def __init__(
        self,
        images: Sequence[str | Path],
        settings: Settings | None = None,
        watch: Callable[[Step], None] = lambda _step: None,
        lent: Sequence[int] = (),
    ) -> None:
        if not images:
            raise UsageError("no image was given", hint="name at least one image file")
        self._paths = [Path(image) for image in images]
        self._settings = settings or Settings()
        if (disks := len(images) + len(self._settings.headers)) > MAX_IMAGES:
            raise UsageError(f"{disks} images and headers are more than {MAX_IMAGES}")
        if self._settings.snapshot is not None and len(images) > 1:
            raise UsageError("--snapshot is for one image", hint="inspect the images one by one")
        self._watch = watch
        self._lent = lent
        self._stack = ExitStack()
        self._cell = ExitStack()
        self._images: list[Image] = []
        self._headers: list[OpenHeader] = []
        self._console = b""
        self._checks: list[Check] = []
        self._session: dict[str, str] = {}
        self._timings: dict[str, float] = {}
        self._tools: dict[str, str] = {"forensic": importlib.metadata.version("forensic-appliance")}

    def __enter__(self) -> Case:
        self._begin = time.monotonic()
        try:
            self._open_images()
            self._integrity = self._stack.enter_context(
                Integrity(
                    self._images,
                    self._settings,
                    self.show_bytes,
                    [header.file for header in self._headers],
                )
            )
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
        if failure is None and self._settings.verify:
            changes += self._integrity.differences()
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

    @property
    def checks(self) -> list[Check]:
        """Checks of file systems, as of the last inspection; `Settings.wanted` asks for them."""
        return self._checks

    def changes(self) -> list[str]:
        """What is different now about the files of the evidence, a line each; none is good."""
        files = [file for image in self._images for file in image.files]
        files += [header.file for header in self._headers]
        return [f"{shown(str(file.path))}: {change}" for file in files for change in file.changes()]

    def inspect(self) -> Inspection:
        """Map the layers of all images."""
        done, too_small = self._map()
        self._checks = done.checks
        evidence, failures = described(self._images, self._sizes, self._integrity, self._writers)
        given = self._settings.keys, self._settings.headers
        unused = astray(*given, {layer.address for layer in done.layers})
        findings = [*notes(self._images), *failures, *done.findings, *too_small, *unused]
        return Inspection(
            schema=SCHEMA,
            evidence=evidence,
            layers=done.layers,
            findings=findings,
            nested_images=done.nested_images,
            complete=is_complete(done.layers, findings),
            boundary="kvm" if self._appliance.variant.accelerator == "kvm" else "cell",
            tools=self._tools | done.tools,
            timings=self._timings | done.timings,
            headers=[
                describe_header(header.address, header.file, self._integrity.files())
                for header in self._headers
            ],
            systems=done.systems if self._settings.wanted.systems else None,
        )

    def _map(self) -> tuple[Done, list[Finding]]:
        """What the guest found; another with more memory is asked where a key needs that."""
        earlier = b""
        for guests in range(1, growth.MAX_GUESTS + 1):
            done = self._call(self._inspect)
            self._console = earlier + done.console
            free = growth.available()
            memory = growth.next_memory(done.memory, self._settings, free)
            if memory is None or guests == growth.MAX_GUESTS:
                break
            earlier = self._console
            self._cell.close()
            self._show(f"start a guest with {memory} MiB of memory")
            self._settings = replace(self._settings, memory=memory)
            self._appliance = provide(self._settings, self._show)
            self._enter_cell(self._appliance)
        return done, growth.why_not(done.memory, self._settings, free)

    def _inspect(self, keys: list[LayerKey]) -> Inspect:
        return Inspect(self._settings.timeout, keys, self._settings.wanted)

    def _call(self, order: Callable[[list[LayerKey]], Inspect | RepairDisks]) -> Done:
        """Send an order with all keys, and wipe its copy of them."""
        keys = layer_keys(self._settings.keys)
        with wiped([key.secret for key in keys]):
            return self._link.call(order(keys), self._watch, seconds=self._settings.timeout)

    @property
    def images(self) -> list[Image]:
        """As they were opened."""
        return self._images

    @property
    def sizes(self) -> list[int]:
        """Of the disks as the guest sees them, in bytes."""
        return self._sizes

    def repair(self, wanted: Wanted, overlays: list[Overlaid]) -> Done:
        """Repair file systems in another guest, which has overlays over the disks."""
        seconds = self._settings.timeout
        done = self._call(lambda keys: RepairDisks(seconds, keys, wanted, overlays))
        self._console += done.console
        self._timings |= done.timings
        return done

    def write_copy(self, order: WriteCopy) -> None:
        """Write a disk with its overlay to an open file."""
        self._link.call(order, self._watch, seconds=order.seconds)

    def _open_images(self) -> None:
        try:
            reach = Reach.into(self._settings.allowed)
            for path in self._paths:
                image = open_image(
                    path, stack=self._stack, reach=reach, snapshot=self._settings.snapshot
                )
                self._images.append(image)
                check_size(path, image.virtual_size, self._settings.sector_size)
            self._headers = [open_header(header, self._stack) for header in self._settings.headers]
            check_disks(self._settings.keys, self._settings.headers, len(self._images))
            files = [header.file for header in self._headers]
            self._writers = check_writers(self._images, files, live=self._settings.live)
        except ImageError as error:
            raise EvidenceRefused(str(error), hint=error.hint) from error

    def _enter_cell(self, appliance: Provided) -> None:
        descriptors = [file.fd for image in self._images for file in image.files]
        descriptors += [*(header.file.fd for header in self._headers), *self._lent]
        self._stack.enter_context(self._cell)
        self._link: Link = self._cell.enter_context(
            cell(state.binds_of(appliance.base, appliance.state, appliance.variant), descriptors)
        )
        seconds = self._settings.start_timeout + sum(
            start_seconds(image.plan) for image in self._images
        )
        order = OpenCase(
            state.appliance_of(appliance.base, appliance.state, appliance.variant),
            [image.plan for image in self._images],
            [keys_for(f"disk{index}", self._settings.keys) for index in range(len(self._images))],
            seconds,
            self._settings.sector_size,
            [Header(header.address, header.plan) for header in self._headers],
        )
        self._timings["prepare"] = round(time.monotonic() - self._begin, 4)
        done = self._link.call(order, self._watch, seconds=seconds)
        self._timings |= done.timings
        self._session = done.session
        self._sizes = done.sizes

    def _show(self, operation: str) -> None:
        self._watch(Step(operation))

    def show_bytes(self, operation: str, done: int, total: int) -> None:
        """Pass on how many bytes of how many are done."""
        self._watch(Step(operation, "", done, total))
