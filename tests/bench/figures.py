"""What is measured, as numbers, and the targets that they have to meet."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

MIB = 1 << 20

WALL_RATIO = 0.1
REPLY_SECONDS = 1.5
FIRST_USE_SECONDS = 240.0
BOOT_AND_SAVE_SECONDS = 40.0
BOOTSTRAP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes of repeated measurements."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of at least one value."""
        measured = list(values)
        return cls(statistics.median(measured), min(measured), max(measured), len(measured))


@dataclass(slots=True)
class Side:
    """One command's wall times in seconds and peak memories in bytes, a value per run."""

    name: str
    seconds: list[float] = field(default_factory=list)
    foreign: list[float] = field(default_factory=list)
    """Processors that something else kept busy just before each of these runs."""
    memory: list[int] = field(default_factory=list)
    parts: dict[str, int] = field(default_factory=dict)
    """Memory by program at the highest peak."""


@dataclass(slots=True)
class FirstUse:
    """Seconds: all of `appliance build` in an empty cache, and the phases that it kept."""

    total: float
    build: float
    boot: float
    save: float


@dataclass(slots=True)
class Figures:
    """All results of one run of the benchmark."""

    ours: Side
    theirs: Side
    phases: list[dict[str, float]] = field(default_factory=list)
    bootstrap: list[float] = field(default_factory=list)
    """`./forensic --version`, seconds per run."""
    installed: list[float] = field(default_factory=list)
    """The installed `forensic --version`."""
    first_use: FirstUse | None = None

    def phase_medians(self) -> dict[str, Spread]:
        """By phase, in the order in which they happen; then the rest of the wall time."""
        names = dict.fromkeys(name for run in self.phases for name in run)
        spreads = {
            name: Spread.of(run[name] for run in self.phases if name in run) for name in names
        }
        rest = [
            wall - sum(seconds for name, seconds in run.items() if "." not in name)
            for wall, run in zip(self.ours.seconds, self.phases, strict=True)
        ]
        return {**spreads, "outside the phases": Spread.of(rest)}

    def first_reply(self) -> Spread:
        """From the start of the restore to the agent's first answer."""
        return Spread.of(run["restore"] + run["session"] for run in self.phases)


@dataclass(frozen=True, slots=True)
class Target:
    """A promise and what was measured, both in `unit`."""

    name: str
    measured: float
    limit: float
    unit: str

    @property
    def is_met(self) -> bool:
        """Whether the measured value keeps within the limit."""
        return self.measured <= self.limit


def targets(figures: Figures) -> list[Target]:
    """The targets that this run has measured, with what came out."""
    ours, theirs = Spread.of(figures.ours.seconds), Spread.of(figures.theirs.seconds)
    found = [
        Target("wall time, ratio", ours.median / theirs.median, WALL_RATIO, ""),
        Target(
            "peak memory, not above libguestfs",
            max(figures.ours.memory) / MIB,
            max(figures.theirs.memory) / MIB,
            "MiB",
        ),
        Target("restore to first reply", figures.first_reply().median, REPLY_SECONDS, "s"),
        Target(
            "bootstrap, on top",
            Spread.of(figures.bootstrap).median - Spread.of(figures.installed).median,
            BOOTSTRAP_SECONDS,
            "s",
        ),
    ]
    if figures.first_use:
        first = figures.first_use
        found += [
            Target("first use", first.total, FIRST_USE_SECONDS, "s"),
            Target("boot and save", first.boot + first.save, BOOT_AND_SAVE_SECONDS, "s"),
        ]
    return found
