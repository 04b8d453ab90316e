"""What a mapping has found so far, sent to the host as it is found."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from appliance.check import Check
from appliance.image import NestedImage
from appliance.layer import MAX_TEXT, Finding, Layer, Severity
from appliance.protocol import Body, Deed, Progress, SystemPart
from appliance.repair import PathChange, Repair
from appliance.system import System

MAX_LAYERS = 4096
_FOR_OTHERS = 20.0
_SECONDS = 60
"""What an operation may take that only looks at metadata, on the slowest of machines."""


class LeftAlone(Exception):
    """The operation killed a guest before; the host reports it."""


class Outcome:
    """Sends layers, findings and progress through `emit` and adds up the time per phase.

    What is in `fatal` is not done. At `deadline` (of time.monotonic) the host loses patience.
    """

    def __init__(
        self,
        emit: Callable[[Body], None],
        fatal: Sequence[Deed] = (),
        deadline: float = math.inf,
    ) -> None:
        self._emit = emit
        self._fatal = set(fatal)
        self._deadline = deadline
        self._depths: dict[str, int] = {}
        self._running: list[Progress] = []
        self.layers: list[Layer] = []
        self.timings: dict[str, float] = {}
        self.memory = 0
        """MiB that a guest needs for what was left out in this one for want of memory."""

    @property
    def seconds_left(self) -> float:
        """How long one operation may still take, so that the others have time too."""
        return self._deadline - time.monotonic() - _FOR_OTHERS

    @property
    def is_full(self) -> bool:
        """So many layers that the rest is left out (and said to be)."""
        return len(self.layers) >= MAX_LAYERS

    def add(self, layer: Layer) -> None:
        """Report a layer."""
        self.layers.append(layer)
        above = max((self._depths.get(each, 0) for each in layer.parents), default=0)
        self._depths[layer.address] = above + (layer.image is not None)
        self._emit(layer)

    def has(self, address: str) -> bool:
        """Whether a layer of that address was reported."""
        return address in self._depths

    def depth(self, address: str) -> int:
        """How many images in file systems there are, one in the other, above and at a layer."""
        return self._depths.get(address, 0)

    def list_image(self, image: NestedImage) -> None:
        """Report a disk image that is a file."""
        self._emit(image)

    def find(self, severity: Severity, address: str | None, code: str, message: str) -> None:
        """Report something about the layer at `address`, None for the whole run."""
        self._emit(Finding(severity, address, code, message[:MAX_TEXT]))

    def report(self, part: System | SystemPart) -> None:
        """Report an operating system, or more of the one that was reported last."""
        self._emit(part)

    def add_check(self, check: Check) -> None:
        """Report what was found about a file system."""
        self._emit(check)

    def add_repair(self, repair: Repair, paths: Sequence[PathChange]) -> None:
        """Report what was done to a file system, after the paths that it changed."""
        for path in paths:
            self._emit(path)
        self._emit(repair)

    def advance(self, operation: str, address: str, share: int, seconds: int) -> None:
        """Say that `share` thousandths of an operation are done, and that it goes on."""
        self._emit(Progress(operation, address, seconds, share))

    def repeat(self, findings: list[Finding]) -> None:
        """Report findings that were made elsewhere."""
        for finding in findings:
            self._emit(finding)

    @contextmanager
    def phase(
        self, operation: str, address: str, phase: str, seconds: int = _SECONDS
    ) -> Iterator[None]:
        """Announce `operation` on a layer, so that the host can name it if the guest dies of it or
        says nothing for `seconds`, and count its time under `phase`. Raises LeftAlone.

        A phase within another one is announced in its place, and then that one again."""
        if Deed(operation, address) in self._fatal:
            raise LeftAlone(f"{operation} {address}")
        self._running.append(Progress(operation, address, seconds))
        self._emit(self._running[-1])
        begin = time.monotonic()
        try:
            yield
        finally:
            self._running.pop()
            if self._running:
                self._emit(self._running[-1])
            self.timings[phase] = self.timings.get(phase, 0.0) + time.monotonic() - begin
