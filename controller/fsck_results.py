"""What `forensic fsck` returns: the JSON that docs/reference/fsck.md describes, and its status."""

from __future__ import annotations

import base64

import msgspec

from appliance.check import Check, Ending, ToolRun, Verdict
from appliance.layer import Finding, Severity, Status
from appliance.repair import PathChange, Repair, Result
from controller.repair_results import DeltaResult, NewFileResult, Repaired
from controller.results import Evidence, Inspection

SCHEMA = "forensic.fsck/1"

CLEAN, CORRECTED, ERRORS_LEFT, OPERATIONAL, USAGE, CANCELLED = 0, 1, 4, 8, 16, 32
"""Bits of the exit status, as in fsck(8)."""

_BITS = {
    Verdict.CLEAN: CLEAN,
    Verdict.ERRORS: ERRORS_LEFT,
    Verdict.UNDECIDED: OPERATIONAL,
}


_REPAIR_BITS = {
    Result.CORRECTED: CORRECTED,
    Result.ERRORS_LEFT: ERRORS_LEFT,
    Result.UNDECIDED: ERRORS_LEFT | OPERATIONAL,
}


class RunResult(msgspec.Struct, frozen=True):
    """A checker's run as JSON: `output` is its text with U+FFFD for what is not UTF-8, and
    `output_base64` the bytes; both end early where `output_size` is larger."""

    purpose: str
    tool: str
    arguments: list[str]
    ending: Ending
    status: int | None
    output: str
    output_base64: str
    output_size: int
    seconds: float
    memory: int | None


class CheckResult(msgspec.Struct, frozen=True):
    """A file system's check as JSON."""

    layer: str
    type: str
    verdict: Verdict
    reason: str
    runs: list[RunResult]


class RepairResult(msgspec.Struct, frozen=True):
    """A file system's repair as JSON; `check` is the one of the result, None where there was
    none."""

    layer: str
    type: str
    result: Result
    reason: str
    runs: list[RunResult]
    check: CheckResult | None
    entries_before: int | None
    entries_after: int | None
    is_compared: bool
    paths: list[PathChange]


class Fsck(msgspec.Struct, frozen=True):
    """What `forensic fsck --json` prints; `status` is the command's exit status."""

    schema: str
    status: int
    evidence: list[Evidence]
    checks: list[CheckResult]
    findings: list[Finding]
    boundary: str
    tools: dict[str, str]
    timings: dict[str, float]
    repairs: list[RepairResult] = []
    deltas: list[DeltaResult] = []
    overlay: NewFileResult | None = None
    output: NewFileResult | None = None

    def to_json(self) -> bytes:
        """The documented JSON document, indented, with a final newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def result_of(
    inspection: Inspection,
    checks: list[Check],
    repaired: Repaired | None = None,
    *,
    changed: bool = False,
) -> Fsck:
    """Verdicts of all checks together; what was not looked at is no success, and what was repaired
    counts as what the repair came to."""
    repaired = repaired or Repaired()
    results = {each.layer: each.result for each in repaired.repairs}
    status = CLEAN
    for check in checks:
        result = results.get(check.layer)
        status |= _BITS[check.verdict] if result is None else _REPAIR_BITS[result]
    # What was said of a file system before its repair is no longer so.
    right = repaired.corrected()
    findings = [*inspection.findings, *repaired.findings]
    locked = any(
        layer.status is not Status.MAPPED and layer.address not in right
        for layer in inspection.layers
    )
    told = any(each.severity is not Severity.INFO and each.layer not in right for each in findings)
    if locked or told or changed or not checks:
        status |= OPERATIONAL
    return Fsck(
        schema=SCHEMA,
        status=status,
        evidence=inspection.evidence,
        checks=[_result(check) for check in checks],
        findings=findings,
        boundary=inspection.boundary,
        tools=inspection.tools,
        timings=inspection.timings,
        repairs=[_repair(each, repaired) for each in repaired.repairs],
        deltas=repaired.deltas,
        overlay=repaired.overlay,
        output=repaired.output,
    )


def _repair(repair: Repair, repaired: Repaired) -> RepairResult:
    second = repaired.checks.get(repair.layer)
    return RepairResult(
        layer=repair.layer,
        type=repair.type,
        result=repair.result,
        reason=repair.reason,
        runs=_runs(repair.runs),
        check=_result(second) if second else None,
        entries_before=repair.entries_before,
        entries_after=repair.entries_after,
        is_compared=repair.is_compared,
        paths=[each for each in repaired.paths if each.layer == repair.layer],
    )


def _result(check: Check) -> CheckResult:
    return CheckResult(check.layer, check.type, check.verdict, check.reason, _runs(check.runs))


def _runs(all_runs: list[ToolRun]) -> list[RunResult]:
    runs = []
    for each in all_runs:
        try:
            untrusted_output = base64.b64decode(each.output_base64, validate=True)
        except ValueError:
            untrusted_output = b""
        runs.append(
            RunResult(
                purpose=each.purpose,
                tool=each.tool,
                arguments=each.arguments,
                ending=each.ending,
                status=each.status,
                output=untrusted_output.decode("utf-8", "replace"),
                output_base64=each.output_base64,
                output_size=each.output_size,
                seconds=each.seconds,
                memory=each.memory,
            )
        )
    return runs
