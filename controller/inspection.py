"""`forensic inspect`: a case from beginning to end, and its result in the form asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, get_args

import msgspec

from appliance.layer import MAX_TEXT, Finding, Severity
from appliance.protocol import Wanted
from controller import logbook
from controller.accelerator import Choice
from controller.case import Case
from controller.errors import EvidenceChanged, ExitCode, ForensicError, UsageError
from controller.headers import read_words
from controller.keys import forget, read_keys
from controller.progress import Progress
from controller.results import Inspection, Systems
from controller.settings import DEFAULT_MEMORY, Hashes, Settings
from controller.sizes import count
from controller.wire import Step
from images.quoting import shown, unshown

T = TypeVar("T")
Further = Callable[[Case, Inspection], None]
"""What is done with a case besides, while it is open."""


@dataclass(frozen=True, slots=True)
class Inspecting:
    """What the command line asked for; see `forensic inspect --help`.

    `only_systems` prints the operating systems and nothing of the layers.
    """

    images: list[Path]
    allowed: list[Path]
    snapshot: str | None
    keys: list[str]
    keys_from_stdin: bool
    headers: list[str]
    hash: str
    verify: bool
    live: bool
    sector_size: int
    wanted: Wanted
    json: bool
    memory: int | None
    accelerator: str
    require_kvm: bool
    timeout: float
    keep_log: Path | None
    quiet: bool
    verbose: bool
    only_systems: bool = False


def run(order: Inspecting) -> ExitCode:
    """Inspect, print, and return the exit code. Raises ForensicError."""
    result, case, changed = inspected(order)
    _print(result, case, order, changed)
    if changed:
        raise changed
    return result.exit_code


def inspected(
    order: Inspecting,
    further: Further = lambda _case, _result: None,
    lent: Sequence[int] = (),
) -> tuple[Inspection, Case, EvidenceChanged | None]:
    """Inspect, go on with `further`, and show the progress. Raises ForensicError."""
    if order.keep_log and os.path.lexists(order.keep_log):
        raise UsageError(
            f"--keep-log: {shown(str(order.keep_log))} exists already",
            hint="name a file that does not exist yet; nothing is overwritten",
        )
    with Progress(quiet=order.quiet) as progress:
        return _inspect(order, progress, further, lent)


def _inspect(
    order: Inspecting, progress: Progress, further: Further, lent: Sequence[int]
) -> tuple[Inspection, Case, EvidenceChanged | None]:
    def watch(step: Step) -> None:
        # Layer by layer is for who watches a line change, or asked for it.
        if not step.detail or order.verbose or sys.stderr.isatty():
            progress.step(step.operation, step.detail, step.done, step.total, step.unit)

    settings = _settings(order)
    case = Case(order.images, settings, watch, lent)
    result: Inspection | None = None
    try:
        with case:
            result = case.inspect()
            further(case, result)
            if order.keep_log:
                logbook.write(order.keep_log, case.console)
    except EvidenceChanged as error:
        if result is None:
            raise
        return _void(result, error), case, error
    except ForensicError as error:
        if order.keep_log and error.console:
            logbook.write(order.keep_log, error.console)
        raise
    finally:
        forget(settings.keys)
    return result, case, None


def _settings(order: Inspecting) -> Settings:
    return Settings(
        memory=DEFAULT_MEMORY if order.memory is None else order.memory,
        memory_is_fixed=order.memory is not None,
        accelerator=_one_of("--accel", order.accelerator, get_args(Choice)),
        require_kvm=order.require_kvm,
        timeout=order.timeout,
        allowed=tuple(order.allowed),
        snapshot=order.snapshot,
        keys=read_keys(order.keys, from_stdin=order.keys_from_stdin),
        headers=read_words(order.headers, len(order.images)),
        hash=_one_of("--hash", order.hash, get_args(Hashes)),
        verify=order.verify,
        live=order.live,
        sector_size=order.sector_size,
        wanted=replace(order.wanted, open=[_as_address(each) for each in order.wanted.open]),
    )


def _as_address(word: str) -> str:
    """As layers are named: a file name that was typed as it is becomes escaped."""
    return shown(unshown(word))


def _one_of(option: str, word: str, choices: tuple[T, ...]) -> T:
    for choice in choices:
        if word == choice:
            return choice
    raise UsageError(f"{option} is one of {', '.join(map(str, choices))}")


def _void(result: Inspection, error: EvidenceChanged) -> Inspection:
    """The result, marked as made from evidence that did not stay the same."""
    findings = [
        Finding(Severity.ERROR, None, "evidence-changed", change[:MAX_TEXT])
        for change in error.changes
    ]
    return msgspec.structs.replace(result, findings=[*result.findings, *findings], complete=False)


def _print(
    result: Inspection, case: Case, order: Inspecting, changed: EvidenceChanged | None
) -> None:
    if order.json:
        document = Systems.of(result) if order.only_systems else result
        sys.stdout.buffer.write(document.to_json())
        sys.stdout.buffer.flush()
        return
    from controller import report  # noqa: PLC0415 - rich costs a tenth of a second

    report.render(
        result,
        file=sys.stdout,
        verbose=order.verbose,
        evidence_line=evidence_line(result, order, changed),
        notice=notice(case),
        only_systems=order.only_systems,
    )


def evidence_line(result: Inspection, order: Inspecting, changed: EvidenceChanged | None) -> str:
    """What the report says of the comparison of the evidence."""
    if changed:
        return "EVIDENCE CHANGED DURING THE RUN"
    compared = "size, mtime, ctime and inode" + (", and SHA-256" if order.verify else "")
    number = sum(len(evidence.files) for evidence in result.evidence) + len(result.headers)
    return f"evidence unchanged: {count(number, 'file')} compared by {compared}"


def notice(case: Case) -> str:
    """What the user should know of how the guest was run, "" for nothing."""
    if not case.fallback:
        return ""
    return (
        f"the guest's processor was emulated ({case.fallback}): "
        "the cell, not the hypervisor, is the boundary around the guest"
    )
