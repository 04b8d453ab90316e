"""What a mapping has found so far, sent to the host as it is found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from appliance.layer import MAX_TEXT, Finding, Layer, Severity
from appliance.protocol import Body, Progress

MAX_LAYERS = 4096


class Outcome:
    """Sends layers, findings and progress through `emit` and adds up the time per phase."""

    def __init__(self, emit: Callable[[Body], None]) -> None:
        self._emit = emit
        self._layers = 0
        self.timings: dict[str, float] = {}

    @property
    def is_full(self) -> bool:
        """So many layers that the rest is left out (and said to be)."""
        return self._layers >= MAX_LAYERS

    def add(self, layer: Layer) -> None:
        """Report a layer."""
        self._layers += 1
        self._emit(layer)

    def find(self, severity: Severity, address: str, code: str, message: str) -> None:
        """Report something about the layer at `address`."""
        self._emit(Finding(severity, address, code, message[:MAX_TEXT]))

    def repeat(self, findings: list[Finding]) -> None:
        """Report findings that were made elsewhere."""
        for finding in findings:
            self._emit(finding)

    @contextmanager
    def phase(self, operation: str, address: str, phase: str) -> Iterator[None]:
        """Announce `operation` on a layer, so that the host can name it if the guest dies of it,
        and count its seconds under `phase`."""
        self._emit(Progress(operation, address))
        begin = time.monotonic()
        try:
            yield
        finally:
            self.timings[phase] = self.timings.get(phase, 0.0) + time.monotonic() - begin
