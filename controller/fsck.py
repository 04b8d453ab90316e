"""`forensic fsck`: checks the file systems on images, and prints what came of it."""

from __future__ import annotations

import sys

from controller import fsck_report
from controller.fsck_results import result_of
from controller.inspection import Inspecting, evidence_line, inspected, notice
from controller.settings import MAX_TIMEOUT

_MAPPING_SECONDS = 300.0
_RUNS = 32
"""Whole runs of a checker for which there is time; each has its own limit."""


def whole_time(seconds: float) -> float:
    """The time limit of everything, where one run of a checker may take `seconds`."""
    return min(_MAPPING_SECONDS + _RUNS * seconds, float(MAX_TIMEOUT))


def run(order: Inspecting) -> int:
    """Check, print, and return the exit status. Raises ForensicError."""
    inspection, case, changed = inspected(order)
    result = result_of(inspection, case.checks, changed=changed is not None)
    if order.json:
        sys.stdout.buffer.write(result.to_json())
        sys.stdout.buffer.flush()
    else:
        line = evidence_line(inspection, order, changed)
        fsck_report.render(result, sys.stdout, verbose=order.verbose, closing=[line, notice(case)])
    if changed:
        raise changed
    return result.status
