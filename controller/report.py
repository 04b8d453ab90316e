"""An inspection for people to read.

Whatever comes from evidence passes through `Page.show` (controller/page.py).
"""

from __future__ import annotations

from typing import TextIO

from appliance.layer import Finding, Kind, Layer, Severity, Status
from controller import image_list
from controller.columns import GAP, Fit, cut, fit, pack, padded
from controller.layer_rows import COLUMNS, Note, Surroundings, notes_of, values_of
from controller.layer_tree import Branch, arrange
from controller.page import Line, Page, page_for, room, short, styled, takes_colours, wrapped
from controller.results import LEFT_OUT, Evidence, EvidenceHeader, Inspection
from controller.sizes import count, human
from controller.system_report import describe_systems

_SEVERITIES = (
    (Severity.ERROR, "Errors", "red"),
    (Severity.WARNING, "Warnings", "yellow"),
    (Severity.INFO, "Notes", "cyan"),
)
_STATUS_STYLES = {
    Status.LOCKED: "yellow",
    Status.UNSUPPORTED: "yellow",
    Status.DAMAGED: "red",
    Status.LIMIT: "red",
}
_MAX_NAMED = 8
_MAX_HASHES = 8
"""Files of an image whose hashes are printed without -v; all are in the JSON."""


def render(  # noqa: PLR0913 - the report's switches
    inspection: Inspection,
    *,
    file: TextIO,
    colour: bool | None = None,
    verbose: bool = False,
    evidence_line: str,
    notice: str = "",
    only_systems: bool = False,
) -> None:
    """Print what was found to `file`.

    `colour` None means: where `file` is a terminal that takes them and NO_COLOR is not set. A
    terminal gets lines that fit it, anything else gets long lines. `evidence_line` says whether
    the evidence is unchanged, `notice` what else the user should know. `only_systems` leaves out
    the layers.
    """
    page = page_for(file, verbose=verbose)
    lines = [
        *([] if only_systems else _layers(inspection, page)),
        *describe_systems(inspection.systems, page),
        *findings_of(inspection.findings, page),
        *_summary(inspection, page),
        *_closing(evidence_line, notice, page),
        *(_versions(inspection, page) if verbose else []),
    ]
    file.write(styled(lines, colour=takes_colours(file) if colour is None else colour))


def _layers(inspection: Inspection, page: Page) -> list[Line]:
    return [
        *_trees(inspection, page),
        *_detached(inspection.headers, page),
        *_images(inspection, page),
    ]


def _trees(inspection: Inspection, page: Page) -> list[Line]:
    """Each image with its layers, then layers of which it is not clear where they are."""
    around = Surroundings.of(inspection.layers)
    trees = arrange(inspection.layers)
    lines: list[Line] = []
    for index, evidence in enumerate(inspection.evidence):
        own = [tree for tree in trees if tree[0].layer.address == f"disk{index}"]
        trees = [tree for tree in trees if tree not in own]
        lines += _header(evidence, own[0][0].layer if own else None, page)
        lines += _table([branch for tree in own for branch in tree], around, page)
    if trees:
        lines += [[("Other layers", "bold")]]
        lines += _table([branch for tree in trees for branch in tree], around, page)
    return lines


def _detached(headers: list[EvidenceHeader], page: Page) -> list[Line]:
    lines: list[Line] = []
    for header in headers:
        digest = [f"SHA-256 {header.sha256}"] if header.sha256 else []
        facts = [f"LUKS header of {page.show(header.layer)}", f"{header.size} bytes", *digest]
        lines.append([(short(page.show(header.path), page), "bold")])
        lines += [[(f"  {text}", "")] for text in pack(facts, ", ", room(page, 2))]
    return lines


def _header(evidence: Evidence, disk: Layer | None, page: Page) -> list[Line]:
    facts = [
        page.show(evidence.format),
        f"{human(evidence.virtual_size)} ({evidence.virtual_size} bytes)",
        count(len(evidence.files), "file"),
    ]
    if disk and disk.table:
        facts.append(f"sectors of {disk.table.sector_size} bytes")
    lines: list[Line] = [[(short(page.show(evidence.path), page), "bold")]]
    lines += [[(f"  {text}", "")] for text in pack(facts, ", ", room(page, 2))]
    for link in evidence.chain:
        kind = f"on {page.show(link.format)} "
        lines.append([(f"  {kind}{short(page.show(link.path), page, len(kind) + 2)}", "")])
    for words in _hashes(evidence, page):
        lines += [[(f"  {text}", "")] for text in pack(words, "  ", room(page, 2))]
    if page.verbose:
        for file in evidence.files:
            size = f"{file.size} bytes  "
            lines.append([(f"  {size}{short(page.show(file.path), page, len(size) + 2)}", "dim")])
    return lines


def _hashes(evidence: Evidence, page: Page) -> list[list[str]]:
    """A line for the only file, or for each with its name, and one for the disk."""
    files = [file for file in evidence.files if file.sha256]
    if len(files) > _MAX_HASHES and not page.verbose:
        files = []
    alone = len(evidence.files) == 1
    lines = [
        [f"SHA-256 {each.sha256}", *([] if alone else [page.show(each.path)])] for each in files
    ]
    if evidence.sha256:
        lines.append([f"SHA-256 {evidence.sha256}", "(content of the disk)"])
    return lines


def _table(branches: list[Branch], around: Surroundings, page: Page) -> list[Line]:
    rows = [values_of(each.layer, around, page.show, exact=page.verbose) for each in branches]
    for branch, row in zip(branches, rows, strict=True):
        row[0] = branch.before(page.guides) + row[0]
    chosen = fit(COLUMNS, rows, page.width)
    lines = [_row([column.name for column in COLUMNS], chosen, page, "dim")] if rows else []
    for branch, row in zip(branches, rows, strict=True):
        lines.append(_row([value or "-" for value in row], chosen, page, _style(branch.layer)))
        moved = [f"{COLUMNS[each].caption} {row[each]}" for each in chosen.moved if row[each]]
        notes = notes_of(branch.layer, around, page.show, verbose=page.verbose)
        before = branch.below(page.guides) + "  "
        lines += _below(before, [Note(moved), *notes], page)
    return [*lines, []]


def _images(inspection: Inspection, page: Page) -> list[Line]:
    title, *rows = image_list.lines(inspection.nested_images, page.show, page.show_own) or [""]
    return [[(title, "bold")], *([(row, "")] for row in rows), []] if title else []


def _style(layer: Layer) -> str:
    if layer.status in _STATUS_STYLES:
        return _STATUS_STYLES[layer.status]
    return {Kind.GAP: "dim", Kind.DISK: "bold"}.get(layer.kind, "")


def _row(values: list[str], chosen: Fit, page: Page, style: str) -> Line:
    parts = []
    for index, width in chosen.shown:
        value = values[index]
        if page.width is not None:
            value = cut(value, width, page.mark)
        parts.append(padded(value, width, right=COLUMNS[index].is_number))
    return [((" " * GAP).join(parts), style)]


def _below(before: str, notes: list[Note], page: Page) -> list[Line]:
    return [
        [(before, "dim"), (text, "dim")]
        for note in notes
        for text in pack(note.items, note.separator, room(page, len(before)))
    ]


def findings_of(findings: list[Finding], page: Page) -> list[Line]:
    """Lines of the findings, by severity."""
    lines: list[Line] = []
    for severity, title, style in _SEVERITIES:
        chosen = [finding for finding in findings if finding.severity is severity]
        if chosen:
            lines.append([(f"{title} ({len(chosen)})", style)])
            lines += [line for finding in chosen for line in _finding(finding, page)]
    return [*lines, []] if lines else []


def _finding(finding: Finding, page: Page) -> list[Line]:
    where = f"{page.show(finding.layer)}: " if finding.layer else ""
    words = (where + page.show(finding.message) + f" [{page.show(finding.code)}]").split(" ")
    texts = pack(words, " ", room(page, 4))
    return [[("  " if index == 0 else "    ", ""), (text, "")] for index, text in enumerate(texts)]


def _summary(inspection: Inspection, page: Page) -> list[Line]:
    if inspection.complete:
        return wrapped(
            "Complete: nothing was left out, and nothing was found wrong.", page, "green"
        )
    parts = [
        count(number, severity.value)
        for severity in (Severity.ERROR, Severity.WARNING)
        if (number := sum(finding.severity is severity for finding in inspection.findings))
    ]
    left_out = [layer for layer in inspection.layers if layer.status in LEFT_OUT]
    if left_out:
        names = [f"{page.show(each.address)} ({each.status.value})" for each in left_out]
        rest = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        parts.append(f"not or not fully read: {', '.join(names[:_MAX_NAMED])}{rest}")
    return wrapped(f"Incomplete: {'; '.join(parts) or 'see above'}.", page, "yellow")


def _closing(evidence_line: str, notice: str, page: Page) -> list[Line]:
    return [
        line
        for text in (evidence_line, notice)
        for each in text.splitlines()
        for line in wrapped(page.show_own(each), page, "")
    ]


def _versions(inspection: Inspection, page: Page) -> list[Line]:
    tools = [f"{page.show(name)} {page.show(each)}" for name, each in inspection.tools.items()]
    timings = [f"{page.show(name)} {each:.3f} s" for name, each in inspection.timings.items()]
    return [
        [(text, "dim")]
        for title, items in (("tools: ", tools), ("timings: ", timings))
        if items
        for text in pack([title + items[0], *items[1:]], ", ", page.width)
    ]
