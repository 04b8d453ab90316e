"""Takes the measurements, the two sides in turn, so that drift of the machine hits both."""

import json
import os
import tempfile
from collections.abc import Callable

from tests.bench import contenders
from tests.bench.contenders import REPOSITORY, Contender
from tests.bench.figures import Figures, FirstUse, Side
from tests.bench.processes import BenchError, Run, sampled, settle, timed

BOOTSTRAP_RUNS = 10
Say = Callable[[str], None]


def warm_up(sides: list[Contender], say: Say) -> list[Run]:
    """Run each side once unmeasured: appliances are built, page caches filled."""
    runs = []
    for side in sides:
        say(f"{side.name}: warming up (builds its appliance at first use)")
        run = timed(side.argv, side.env)
        side.check(run.output)
        runs.append(run)
    return runs


def compare(
    ours: Contender, theirs: Contender, *, runs: int, memory_runs: int, wait: float, say: Say
) -> Figures:
    """Time both sides `runs` times, then sample the memory of both `memory_runs` times.

    Before every timed run the machine gets at most `wait` seconds to become quiet.
    """
    figures = Figures(Side(ours.name), Side(theirs.name))
    sides = [(ours, figures.ours), (theirs, figures.theirs)]
    for number in range(1, runs + 1):
        for contender, side in sides:
            side.foreign.append(settle(wait))
            run = timed(contender.argv, contender.env)
            contender.check(run.output)
            side.seconds.append(run.seconds)
            if side is figures.ours:
                figures.phases.append(contenders.timings_of(run.output))
            say(f"run {number}/{runs} {side.name}: {run.seconds:.2f} s")
    for number in range(1, memory_runs + 1):
        for contender, side in sides:
            run = sampled(contender.argv, contender.env)
            contender.check(run.output)
            if run.peak_pss > max(side.memory, default=0):
                side.parts = run.peak_parts or {}
            side.memory.append(run.peak_pss)
            say(f"memory {number}/{memory_runs} {side.name}: {run.peak_pss >> 20} MiB")
    return figures


def bootstrap(figures: Figures, say: Say) -> None:
    """Time `./forensic --version` and the installed command, in turn. Raises BenchError."""
    script = REPOSITORY / "forensic"
    installed = contenders.forensic_program()
    # Without its stamp the script would make the environment anew, with us running in it.
    if not (REPOSITORY / ".venv/.forensic-ready").exists():
        raise BenchError("this clone is not set up; run ./forensic --version once")
    for _ in range(BOOTSTRAP_RUNS):
        figures.bootstrap.append(timed([str(script), "--version"]).seconds)
        figures.installed.append(timed([installed, "--version"]).seconds)
    say("bootstrap measured")


def first_use(figures: Figures, say: Say) -> None:
    """Build everything in an empty cache, as the first inspection of a user would."""
    say("first use: building the appliance in an empty cache")
    program = contenders.forensic_program()
    with tempfile.TemporaryDirectory(prefix="first-use-", dir=contenders.cache_folder()) as cache:
        env = {"XDG_CACHE_HOME": cache, "HOME": os.environ.get("HOME", cache)}
        run = timed([program, "appliance", "build", "--quiet"], env)
        status = json.loads(timed([program, "appliance", "status", "--json"], env).output)
    timings = {entry["kind"]: entry["timings"] for entry in status["entries"] if entry["current"]}
    figures.first_use = FirstUse(
        run.seconds, timings["base"]["build"], timings["state"]["boot"], timings["state"]["save"]
    )
