"""`python -m tests.bench`: measure, print, write JSON, and say whether the targets are met."""

import argparse
import sys
from pathlib import Path

from tests.bench import contenders, measure, report
from tests.bench.contenders import REPOSITORY
from tests.bench.figures import targets
from tests.bench.processes import BenchError, adopt_orphans
from tests.builders.command import ToolError

MISSED = 1
FAILED = 2


def main() -> int:
    """Exit status: 0 all targets met, 1 one missed, 2 it could not be measured."""
    arguments = _arguments()
    try:
        adopt_orphans()
        _say("looking for the image (built once)")
        image = contenders.bench_image()
        ours, theirs = contenders.forensic(image), contenders.libguestfs(image)
        first, _ = measure.warm_up([ours, theirs], _say)
        figures = measure.compare(
            ours,
            theirs,
            runs=arguments.runs,
            memory_runs=arguments.memory_runs,
            wait=arguments.settle,
            say=_say,
        )
        measure.bootstrap(figures, _say)
        if arguments.first_use:
            measure.first_use(figures, _say)
    except (BenchError, ToolError) as error:
        _say(f"error: {error}")
        return FAILED
    tools = contenders.tools_of(first.output) | {"libguestfs": contenders.libguestfs_version()}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(report.document(figures, tools))
    sys.stdout.write(report.table(figures, tools))
    is_met = all(target.is_met for target in targets(figures))
    return 0 if is_met or arguments.no_fail else MISSED


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=_count, default=5, help="timed runs of each side")
    parser.add_argument("--memory-runs", type=_count, default=2, help="sampled runs of each side")
    parser.add_argument(
        "--settle",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="before a timed run, wait at most so long until nothing else runs",
    )
    parser.add_argument(
        "--first-use", action="store_true", help="also build the appliance in an empty cache"
    )
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "build/bench.json", help="where JSON goes"
    )
    parser.add_argument("--no-fail", action="store_true", help="only report missed targets")
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
