"""A repair for people to read: what was done, what changed, and what was written."""

from __future__ import annotations

from appliance.repair import Result
from controller.fsck_results import Fsck, RepairResult
from controller.page import Line, Page
from controller.sizes import count, human

_STYLES = {Result.CORRECTED: "green", Result.ERRORS_LEFT: "red", Result.UNDECIDED: "yellow"}
_PATHS = 20
_RANGES = 8


def repair_lines(result: Fsck, page: Page) -> list[Line]:
    """Nothing where no repair was asked for."""
    lines: list[Line] = []
    for repair in result.repairs:
        lines += _repair(repair, page)
    for delta in result.deltas:
        text = (
            f"{delta.disk}: {count(delta.changed_blocks, 'block')} of 4 KiB changed in "
            f"{count(delta.range_count, 'range')}; metadata or data: unknown"
        )
        lines.append([(text, "")])
        shown = delta.ranges if page.verbose else delta.ranges[:_RANGES]
        for each in shown:
            place = f"  {human(each.length)} at byte {each.offset} ({page.show(each.layer or '?')})"
            lines.append([(place, "dim")])
        if len(shown) < delta.range_count:
            more = count(delta.range_count - len(shown), "more range")
            lines.append([(f"  … {more}{'' if page.verbose else ': -v shows them'}", "dim")])
    for name, file in (("overlay", result.overlay), ("repaired copy", result.output)):
        if file:
            head = f"{name}: {page.show(file.path)} ({file.format}, {human(file.size)})"
            lines += [[(head, "bold")], [(f"  SHA-256 {file.sha256}", "")]]
    return [*lines, []] if lines else []


def _repair(repair: RepairResult, page: Page) -> list[Line]:
    head = f"{page.show(repair.layer)} ({page.show(repair.type)}) repaired on an overlay: "
    lines: list[Line] = [
        [(head, "bold"), (repair.result.value, _STYLES[repair.result])],
        [(f"  {page.show(repair.reason)}", "")],
    ]
    for run in repair.runs:
        words = page.show(" ".join([run.tool, *run.arguments]))
        ended = f"status {run.status}" if run.status is not None else run.ending.value
        lines.append([(f"  {words}: {ended}, {run.seconds:.1f} s", "dim")])
        lines += [[(f"    {page.show(line)}", "dim")] for line in run.output.splitlines()[:40]]
    shown = repair.paths if page.verbose else repair.paths[:_PATHS]
    for path in shown:
        what = f" ({', '.join(page.show(each) for each in path.what)})" if path.what else ""
        lines.append([(f"  {path.change.value} {page.show(path.path)}{what}", "")])
    if len(shown) < len(repair.paths):
        lines.append([(f"  … {len(repair.paths) - len(shown)} more paths: -v shows them", "")])
    if repair.entries_before is None or repair.entries_after is None:
        lines.append([("  its files were not compared: it could not be mounted", "yellow")])
    elif not repair.is_compared:
        lines.append(
            [
                (
                    "  not all files were compared: unreadable, too many, or too large",
                    "yellow",
                )
            ]
        )
    elif not repair.paths:
        lines.append([("  no file or folder differs", "")])
    return [*lines, []]
