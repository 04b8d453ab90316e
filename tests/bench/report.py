"""Shows the figures: a table for people, a document for machines."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tests.bench.figures import MIB, Figures, Side, Spread, Target, targets


def table(figures: Figures, tools: Mapping[str, str]) -> str:
    """Everything that was measured, and what became of the targets."""
    ours, theirs = figures.ours, figures.theirs
    lines = [_machine(tools), ""]
    lines += [f"{'':28}{'median':>9}{'min':>9}{'max':>9}"]
    for side in (ours, theirs):
        lines.append(_row(f"{side.name}, wall s", Spread.of(side.seconds)))
    for side in (ours, theirs):
        memory = Spread.of(each / MIB for each in side.memory)
        lines.append(_row(f"{side.name}, PSS MiB", memory, digits=0))
    foreign = Spread.of([*ours.foreign, *theirs.foreign])
    lines.append(_row("processors busy elsewhere", foreign))
    ratio = Spread.of(ours.seconds).median / Spread.of(theirs.seconds).median
    best = min(ours.seconds) / min(theirs.seconds)
    lines += [f"{'ratio of the wall times':28}{ratio:9.3f}   (1/{1 / ratio:.1f})"]
    lines += [f"{'ratio of the best runs':28}{best:9.3f}   (1/{1 / best:.1f})", ""]
    lines += ["phases of forensic inspect, s"]
    for name, spread in figures.phase_medians().items():
        lines.append(_row(("    " if "." in name else "  ") + name, spread, digits=3))
    lines += [_row("restore to first reply", figures.first_reply(), digits=3), ""]
    lines += ["memory at the peak, MiB"]
    lines += [f"  {side.name}: {_parts(side)}" for side in (ours, theirs)]
    lines += ["", "forensic --version, s"]
    lines += [_row("  ./forensic", Spread.of(figures.bootstrap), digits=3)]
    lines += [_row("  installed", Spread.of(figures.installed), digits=3)]
    if figures.first_use:
        first = figures.first_use
        steps = f"build {first.build:.1f}, boot and warm {first.boot:.1f}, save {first.save:.1f}"
        lines += ["", f"first use: {first.total:.1f} s ({steps})"]
    lines += ["", "targets"]
    lines += [_verdict(target) for target in targets(figures)]
    return "\n".join(lines) + "\n"


def document(figures: Figures, tools: Mapping[str, str]) -> str:
    """The same as JSON, with every single measurement."""
    content: dict[str, Any] = {
        "schema": "forensic.bench/1",
        "machine": {"processors": len(os.sched_getaffinity(0)), "kernel": platform.release()},
        "tools": dict(tools),
        **asdict(figures),
        "phase_medians": {name: spread.median for name, spread in figures.phase_medians().items()},
        "targets": [{**asdict(each), "met": each.is_met} for each in targets(figures)],
    }
    return json.dumps(content, indent=2) + "\n"


def _machine(tools: Mapping[str, str]) -> str:
    versions = ", ".join(
        f"{name} {tools[name]}" for name in ("qemu", "libvirt", "libguestfs") if name in tools
    )
    return f"{len(os.sched_getaffinity(0))} processors, TCG on both sides; {versions}"


def _row(name: str, spread: Spread, digits: int = 2) -> str:
    cells = (f"{value:9.{digits}f}" for value in (spread.median, spread.low, spread.high))
    return f"{name:28}" + "".join(cells)


def _parts(side: Side) -> str:
    ordered = sorted(side.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {size / MIB:.0f}" for name, size in ordered)


def _verdict(target: Target) -> str:
    word = "met   " if target.is_met else "MISSED"
    digits = 0 if target.unit == "MiB" else 3
    measured, limit = (f"{value:.{digits}f}" for value in (target.measured, target.limit))
    return f"  {word}  {target.name}: {measured} of at most {limit} {target.unit}".rstrip()
