"""`python -m tests.bench.layers`: what each layer of a deep stack costs.

One image, partition → LUKS2 → LVM → ext4 → qcow2 → MBR → LVM → ext4, mapped in one command, next
to the same image without the qcow2: the deep stack may cost twice the time of its outermost level,
besides the derivation of the key. The seconds are those that the agent itself counts.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.bench.containers import Row
from tests.bench.contenders import REPOSITORY, forensic_program
from tests.bench.processes import BenchError, adopt_orphans, settle, timed
from tests.builders import nested

_RUNS = 5
_SETTLE = 20.0
_WORD = b"bench"
_IMAGE = "lvg1/lvroot:/images/os43.qcow2"
_INNERMOST = "guestvg/lvroot"
_TARGET = 2.0


def main() -> int:
    """Exit status: 0 the target is met, 1 it is missed, 2 it could not be measured."""
    try:
        adopt_orphans()
        with tempfile.TemporaryDirectory(prefix="bench-layers-") as name:
            rows = _measured(Path(name))
    except BenchError as error:
        sys.stderr.write(f"bench: error: {error}\n")
        return 2
    for row in rows:
        wanted = "" if row.limit is None else f"<= {row.limit:g}"
        verdict = "" if row.limit is None else ("met" if row.is_met else "MISSED")
        sys.stdout.write(f"{row.what:52} {row.value:10.3f} {row.unit:6} {wanted:10} {verdict}\n")
    output = REPOSITORY / "build/bench-layers.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0 if all(row.is_met for row in rows) else 1


def _measured(folder: Path) -> list[Row]:
    deep, shallow = nested.deep(folder, _WORD)
    key = folder / "key"
    key.write_bytes(_WORD + b"\n")
    common = [
        forensic_program(),
        "inspect",
        "--json",
        "--quiet",
        "--accel",
        "tcg",
        "--hash",
        "none",
    ]
    common += ["--key", f"disk0/p1:file:{key}"]
    sides = {
        "outermost level": [*common, str(shallow)],
        "deep stack": [*common, "--open", _IMAGE, str(deep)],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(_RUNS + 1):
        for name, argv in sides.items():
            settle(_SETTLE)
            result = json.loads(timed(argv).output)
            known = {layer["address"] for layer in result["layers"]}
            if not result["complete"] or (name == "deep stack" and _INNERMOST not in known):
                raise BenchError(f"the {name} was not mapped whole")
            if number:  # the first run builds what is kept
                found[name].append(result["timings"])
    rows = []
    for name, timings in found.items():
        phases = {phase for each in timings for phase in each if phase.startswith("map")}
        for phase in sorted(phases):
            seconds = statistics.median(each.get(phase, 0.0) for each in timings)
            rows.append(Row(f"{name}: {phase}", seconds, "s", None))
    outer, inner = (
        statistics.median(each["map"] - each["map.unlock"] for each in timings)
        for timings in found.values()
    )
    ratio = Row("deep stack, next to its outermost level", inner / outer, "", _TARGET)
    return [
        *rows,
        Row("outermost level", outer, "s", None),
        Row("deep stack", inner, "s", None),
        ratio,
    ]


if __name__ == "__main__":
    sys.exit(main())
