"""`forensic fsck`: checks the file systems on images, and prints what came of it."""

from __future__ import annotations

import sys
from pathlib import Path

from controller import fsck_report
from controller.case import Case
from controller.errors import EvidenceChanged, UsageError
from controller.fsck_results import result_of
from controller.inspection import Inspecting, evidence_line, inspected, notice
from controller.repair_results import Repaired
from controller.repairs import RepairOptions, Repairs
from controller.results import Inspection
from controller.settings import MAX_TIMEOUT

_MAPPING_SECONDS = 300.0
_RUNS = 32
"""Whole runs of a checker for which there is time; each has its own limit."""


def whole_time(seconds: float) -> float:
    """The time limit of everything, where one run of a checker may take `seconds`."""
    return min(_MAPPING_SECONDS + _RUNS * seconds, float(MAX_TIMEOUT))


def options(  # noqa: PLR0913 - as the command line has them
    save_overlay: Path | None,
    output: Path | None,
    overlay_size: str | None,
    seconds: float,
    *,
    zero_log: bool,
    repair: bool,
) -> RepairOptions | None:
    """What --repair asks for, None without it. Raises UsageError."""
    if repair:
        return RepairOptions(save_overlay, output, overlay_size, zero_log, seconds)
    if save_overlay or output or overlay_size is not None or zero_log:
        raise UsageError(
            "--save-overlay, --output, --overlay-size and --force-log-zeroing are for --repair"
        )
    return None


def run(order: Inspecting, repair: RepairOptions | None = None) -> int:
    """Check, repair where that is asked for, print, and return the exit status.

    Raises ForensicError.
    """
    if repair is None:
        inspection, case, changed = inspected(order)
        return _finish(order, inspection, case, changed, Repaired())
    with Repairs(repair, order.images, order.allowed) as repairs:
        inspection, case, changed = inspected(order, repairs.work, repairs.lent)
        if not changed:
            repairs.keep(case)
        return _finish(order, inspection, case, changed, repairs.outcome)


def _finish(
    order: Inspecting,
    inspection: Inspection,
    case: Case,
    changed: EvidenceChanged | None,
    repaired: Repaired,
) -> int:
    result = result_of(inspection, case.checks, repaired, changed=changed is not None)
    if order.json:
        sys.stdout.buffer.write(result.to_json())
        sys.stdout.buffer.flush()
    else:
        line = evidence_line(inspection, order, changed)
        fsck_report.render(result, sys.stdout, verbose=order.verbose, closing=[line, notice(case)])
    if changed:
        raise changed
    return result.status
