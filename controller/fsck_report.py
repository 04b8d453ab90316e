"""Checks of file systems for people to read: a verdict each, and the checker's own words."""

from __future__ import annotations

from typing import TextIO

from appliance.check import Verdict
from controller.fsck_results import CheckResult, Fsck, RunResult
from controller.page import Line, Page, page_for, styled, takes_colours
from controller.repair_report import repair_lines
from controller.report import findings_of
from controller.sizes import human

_STYLES = {Verdict.CLEAN: "green", Verdict.ERRORS: "red", Verdict.UNDECIDED: "yellow"}
_LINES = 40
"""Of a checker's text that are shown without -v; all of it is in the JSON."""


def render(result: Fsck, file: TextIO, *, verbose: bool, closing: list[str]) -> None:
    """Print the checks, the findings, and the lines of `closing`."""
    page = page_for(file, verbose=verbose)
    lines: list[Line] = []
    for check in result.checks:
        lines += _check(check, page)
    if not result.checks:
        lines.append([("No file system was checked.", "yellow")])
    lines += repair_lines(result, page)
    lines += findings_of(result.findings, page)
    lines.append([(_summary(result), "green" if result.status == 0 else "yellow")])
    lines += [[(page.show_own(each), "")] for text in closing for each in text.splitlines()]
    file.write(styled(lines, colour=takes_colours(file)))


def _check(check: CheckResult, page: Page) -> list[Line]:
    head = f"{page.show(check.layer)} ({page.show(check.type)}): "
    lines: list[Line] = [
        [(head, "bold"), (check.verdict.value, _STYLES[check.verdict])],
        [(f"  {page.show(check.reason)}", "")],
    ]
    for run in check.runs:
        if page.verbose or check.verdict is not Verdict.CLEAN:
            lines += _run(run, page)
    return [*lines, []]


def _run(run: RunResult, page: Page) -> list[Line]:
    words = " ".join([run.tool, *run.arguments])
    memory = f", {human(run.memory)}" if run.memory is not None else ""
    ended = f"status {run.status}" if run.status is not None else run.ending.value
    head = f"  {page.show(words)}: {ended}, {run.seconds:.1f} s{memory}"
    texts = [line.rstrip("\r") for line in run.output.splitlines()]
    shown = texts if page.verbose else texts[:_LINES]
    lines: list[Line] = [[(head, "dim")]]
    lines += [[(f"    {page.show(text)}", "dim")] for text in shown]
    if len(shown) < len(texts):
        lines.append(
            [(f"    {page.mark} {len(texts) - len(shown)} more lines: -v shows them", "dim")]
        )
    return lines


def _summary(result: Fsck) -> str:
    counted = [
        f"{sum(check.verdict is verdict for check in result.checks)} {verdict.value}"
        for verdict in Verdict
    ]
    return f"Checked {len(result.checks)}: {', '.join(counted)}; exit status {result.status}."
