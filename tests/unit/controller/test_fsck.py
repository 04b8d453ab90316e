"""`forensic fsck`'s document, exit status and report."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from appliance.check import Check, Ending, ToolRun, Verdict
from appliance.layer import Finding, Severity
from controller import fsck_report, fsck_results
from controller.fsck import whole_time
from controller.fsck_results import CheckResult, Fsck, RunResult, result_of
from controller.settings import MAX_TIMEOUT
from tests.unit.controller.inspections import HOSTILE, office

REFERENCE = Path(__file__).parents[3] / "docs/reference"
DOCUMENT: dict[str, Any] = json.loads((REFERENCE / "fsck.schema.json").read_text())
PAGE = (REFERENCE / "fsck.md").read_text()


def check(verdict: Verdict, output: bytes = b"fine\n", layer: str = "lvg1/lvroot") -> Check:
    text = base64.b64encode(output).decode()
    run = ToolRun("check", "e2fsck", ["-fn"], Ending.EXITED, 0, text, len(output), 1.25, 1 << 20)
    return Check(layer, "ext4", verdict, "because", [run])


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([Verdict.CLEAN], 0),
        ([Verdict.CLEAN, Verdict.ERRORS], 4),
        ([Verdict.UNDECIDED], 8),
        ([Verdict.ERRORS, Verdict.UNDECIDED, Verdict.CLEAN], 12),
        ([], 8),
    ],
)
def test_bits_are_added_up(verdicts: list[Verdict], status: int) -> None:
    assert result_of(office(), [check(each) for each in verdicts]).status == status


def test_what_was_left_out_is_no_success() -> None:
    whole = office()
    finding = Finding(Severity.WARNING, "disk0/p9", "locked", "no key")
    locked = msgspec.structs.replace(whole, findings=[finding])
    assert result_of(locked, [check(Verdict.CLEAN)]).status == 8
    assert result_of(whole, [check(Verdict.CLEAN)], changed=True).status == 8


def test_schema_and_page_say_all() -> None:
    jsonschema.Draft202012Validator.check_schema(DOCUMENT)
    for name, kind in {"check": CheckResult, "run": RunResult, "": Fsck}.items():
        part = DOCUMENT["$defs"].get(name, DOCUMENT)
        fields = [field.name for field in msgspec.structs.fields(kind)]
        assert list(part["properties"]) == part["required"] == fields
        assert all(f"`{field}`" in PAGE for field in fields)
    verdicts = DOCUMENT["$defs"]["check"]["properties"]["verdict"]["enum"]
    assert verdicts == [each.value for each in Verdict]
    endings = DOCUMENT["$defs"]["run"]["properties"]["ending"]["enum"]
    assert endings == [each.value for each in Ending]
    assert DOCUMENT["properties"]["schema"]["const"] == fsck_results.SCHEMA


def test_document_follows_the_schema() -> None:
    result = result_of(office(), [check(Verdict.ERRORS, b"\xff\x00\x1b[2J")])
    document = json.loads(result.to_json())
    jsonschema.Draft202012Validator(DOCUMENT).validate(document)
    (run,) = document["checks"][0]["runs"]
    assert base64.b64decode(run["output_base64"]) == b"\xff\x00\x1b[2J"
    assert run["output"] == "\ufffd\x00\x1b[2J"


def report(checks: list[Check], *, verbose: bool = False) -> str:
    file = io.StringIO()
    fsck_report.render(result_of(office(), checks), file, verbose=verbose, closing=["unchanged"])
    return file.getvalue()


def test_report() -> None:
    text = report([check(Verdict.CLEAN), check(Verdict.ERRORS, b"Inode 7 is bad\n", "disk0/p1")])
    assert "lvg1/lvroot (ext4): clean" in text
    assert "fine" not in text, "what a checker says of a clean file system is for -v"
    assert "Inode 7 is bad" in text
    assert "1 clean, 1 errors, 0 undecided; exit status 4" in text
    assert "fine" in report([check(Verdict.CLEAN)], verbose=True)


def test_report_says_that_lines_are_missing() -> None:
    assert "60 more lines" in report([check(Verdict.ERRORS, b"x\n" * 100)])


def test_nothing_reaches_the_terminal_raw() -> None:
    untrusted_output = HOSTILE.encode("utf-8", "surrogatepass") + b"\x1b]0;x\x07\xff\n"
    for verbose in (False, True):
        text = report([check(Verdict.ERRORS, untrusted_output, HOSTILE)], verbose=verbose)
        assert all(each.isprintable() or each == "\n" for each in text)


def test_whole_time() -> None:
    assert whole_time(10) == 620
    assert whole_time(MAX_TIMEOUT) == MAX_TIMEOUT
