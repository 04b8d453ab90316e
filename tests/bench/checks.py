"""`python -m tests.bench.checks`: `forensic fsck`, next to libguestfs and to e2fsck itself.

Two questions, each answered as a ratio within one run: how long until there is a verdict on an
ext4 on LVM in a qcow2, next to `guestfish … e2fsck forceall:true`; and what a check of a large file
system costs above what e2fsck takes in the same guest without anything else.
"""

import json
import re
import statistics
import sys
from dataclasses import asdict, replace
from pathlib import Path

from appliance import __file__ as appliance_file
from controller.provide import provide
from controller.settings import Settings
from tests.bench import contenders
from tests.bench.containers import Row
from tests.bench.contenders import REPOSITORY, Contender, cache_folder
from tests.bench.processes import BenchError, adopt_orphans, sampled, settle, timed
from tests.builders.command import run
from tests.builders.in_guest import run_in_guest
from tests.builders.sparse import make_sparse

_RUNS = 3
_SETTLE = 20.0
_LARGE = 20 << 30
_FILES = 200_000
_VOLUME = "lvg1/lvroot"


def main() -> int:
    """Exit status: 0 all targets met, 1 one missed, 2 it could not be measured."""
    try:
        adopt_orphans()
        rows = [*_compared(contenders.bench_image()), *_large()]
    except BenchError as error:
        sys.stderr.write(f"bench: error: {error}\n")
        return 2
    for row in rows:
        wanted = "" if row.limit is None else f"<= {row.limit:.3f}"
        verdict = "" if row.limit is None else ("met" if row.is_met else "MISSED")
        sys.stdout.write(f"{row.what:52} {row.value:10.3f} {row.unit:6} {wanted:10} {verdict}\n")
    output = REPOSITORY / "build/bench-checks.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0 if all(row.is_met for row in rows) else 1


def _compared(image: Path) -> list[Row]:
    program = contenders.forensic_program()
    ours = (program, "fsck", "--json", "--quiet", "--accel", "tcg", str(image))
    peer = contenders.libguestfs(image)
    argv = ("guestfish", "--ro", "-a", str(image), "run", ":", "e2fsck", f"/dev/{_VOLUME}")
    sides = {
        "forensic fsck --no-trial": Contender("quick", (*ours, "--no-trial"), _is_clean),
        "forensic fsck": Contender("whole", ours, _is_clean),
        "guestfish e2fsck forceall": replace(peer, argv=(*argv, "forceall:true"), check=_nothing),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(_RUNS + 1):
        for name, side in sides.items():
            settle(_SETTLE)
            result = timed(side.argv, side.env)
            side.check(result.output)
            if number:  # the first run of each builds what it keeps
                seconds[name].append(result.seconds)
            sys.stderr.write(f"bench: {name}: {result.seconds:.2f} s\n")
    memory = {name: sampled(side.argv, side.env).peak_pss >> 20 for name, side in sides.items()}
    quick, whole, theirs = (statistics.median(each) for each in seconds.values())
    return [
        *(
            Row(f"{name}, wall", statistics.median(each), "s", None)
            for name, each in seconds.items()
        ),
        *(Row(f"{name}, peak PSS", float(each), "MiB", None) for name, each in memory.items()),
        Row("without the trial, next to guestfish", quick / theirs, "", 1 / 7),
        Row("with the trial, next to guestfish", whole / theirs, "", 1 / 5),
    ]


def _is_clean(output: bytes) -> None:
    result = json.loads(output)
    verdicts = {each["layer"]: each["verdict"] for each in result["checks"]}
    if verdicts != {_VOLUME: "clean"} or result["status"] != 0:
        raise BenchError(f"forensic fsck says {verdicts}, status {result['status']}")


def _nothing(_output: bytes) -> None:
    """guestfish says nothing and ends with 0 where e2fsck found nothing."""


def _large() -> list[Row]:
    """20 GiB, sparse, 200,000 files: the whole command, and e2fsck in a plain guest."""
    image = _large_image()
    program = contenders.forensic_program()
    argv = (program, "fsck", "--json", "--quiet", "--accel", "tcg", "--no-trial", "--hash", "none")
    settle(_SETTLE)
    ours = timed((*argv, str(image)))
    (check,) = json.loads(ours.output)["checks"]
    provided = provide(Settings(accelerator="tcg"), lambda _step: None)
    recipe = Path(appliance_file).resolve().parent / "recipe"
    script = "cat /proc/uptime\ne2fsck -fn /dev/sda > /dev/null\ncat /proc/uptime\necho end\n"
    settle(_SETTLE)
    drive = f"file={image},format=raw"
    text = run_in_guest(provided.base, recipe, script, [], image.parent, [drive])
    begin, end = (
        float(each) for each in re.findall(r"^([0-9]+\.[0-9]+) [0-9.]+\s*$", text, re.MULTILINE)
    )
    return [
        Row("20 GiB, 200,000 files: forensic fsck, wall", ours.seconds, "s", None),
        Row("  of which e2fsck", check["runs"][0]["seconds"], "s", None),
        Row("  e2fsck alone in a guest", end - begin, "s", None),
        Row("  the whole command, next to that", ours.seconds / (end - begin), "", 1.3),
    ]


def _large_image() -> Path:
    path = cache_folder() / "large.ext4"
    if not path.exists():
        tree = path.with_suffix(".tree")
        for number in range(_FILES // 1000):
            folder = tree / f"part{number}"
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(1000):
                (folder / f"file{index}").write_bytes(b"x" * (index % 7))
        new = path.with_suffix(".new")
        make_sparse(new, _LARGE)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, new)
        run("rm", "-rf", tree)
        new.rename(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
