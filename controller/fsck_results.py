"""What `forensic fsck` returns: the JSON that docs/reference/fsck.md describes, and its status."""

from __future__ import annotations

import base64

import msgspec

from appliance.check import Check, Ending, Verdict
from appliance.layer import Finding, Severity, Status
from controller.results import Evidence, Inspection

SCHEMA = "forensic.fsck/1"

CLEAN, CORRECTED, ERRORS_LEFT, OPERATIONAL, USAGE, CANCELLED = 0, 1, 4, 8, 16, 32
"""Bits of the exit status, as in fsck(8)."""

_BITS = {
    Verdict.CLEAN: CLEAN,
    Verdict.ERRORS: ERRORS_LEFT,
    Verdict.UNDECIDED: OPERATIONAL,
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

    def to_json(self) -> bytes:
        """The documented JSON document, indented, with a final newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def result_of(inspection: Inspection, checks: list[Check], *, changed: bool = False) -> Fsck:
    """Verdicts of all checks together; what was not looked at is no success."""
    status = CLEAN
    for check in checks:
        status |= _BITS[check.verdict]
    locked = any(layer.status is not Status.MAPPED for layer in inspection.layers)
    told = any(finding.severity is not Severity.INFO for finding in inspection.findings)
    if locked or told or changed or not checks:
        status |= OPERATIONAL
    return Fsck(
        schema=SCHEMA,
        status=status,
        evidence=inspection.evidence,
        checks=[_result(check) for check in checks],
        findings=inspection.findings,
        boundary=inspection.boundary,
        tools=inspection.tools,
        timings=inspection.timings,
    )


def _result(check: Check) -> CheckResult:
    runs = []
    for each in check.runs:
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
    return CheckResult(check.layer, check.type, check.verdict, check.reason, runs)
