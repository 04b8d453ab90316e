"""`python -m tests.bench.containers`: exports and hashes, next to what they are built on.

Three questions, each answered as a ratio within one run: how long until an export is ready; how
fast a guest reads through it, next to a QEMU that parses the image itself; how fast a file is
hashed, next to `openssl speed` on one core.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from appliance import __file__ as appliance_file
from controller.provide import provide
from controller.settings import Settings
from images.export import exported
from images.graph import Plan
from images.hashing import digest
from images.image import Image, open_image
from tests.bench.contenders import REPOSITORY
from tests.builders.in_guest import run_in_guest

MIB = 1 << 20
_SIZE = 512 * MIB
_RUNS = 5
_FORMATS = {
    "qcow2": ("-O", "qcow2"),
    "vmdk, split": ("-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"),
    "vhd": ("-O", "vpc", "-o", "force_size=on"),
}
_DRIVERS = {"qcow2": "qcow2", "vmdk, split": "vmdk", "vhd": "vpc"}
_UPTIME = re.compile(r"^([0-9]+\.[0-9]+) [0-9.]+\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One line of the table; `limit` is the target, None where there is none."""

    what: str
    value: float
    unit: str
    limit: float | None
    at_most: bool = True

    @property
    def is_met(self) -> bool:
        """Whether the target is reached, if there is one."""
        if self.limit is None:
            return True
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def main() -> int:
    """Exit status: 0 all targets met, 1 one missed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        images = _images(folder)
        rows = [*_ready(images, folder, stack), *_hashed(folder / "disk.raw", stack)]
        rows += _read(images, folder, stack)
    for row in rows:
        wanted = "" if row.limit is None else f"{'<=' if row.at_most else '>='} {row.limit:g}"
        verdict = "" if row.limit is None else ("met" if row.is_met else "MISSED")
        sys.stdout.write(f"{row.what:52} {row.value:10.3f} {row.unit:6} {wanted:10} {verdict}\n")
    output = REPOSITORY / "build/bench-containers.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0 if all(row.is_met for row in rows) else 1


def _images(folder: Path) -> dict[str, Path]:
    """The same half GiB without a hole in each format; data that nothing can compress."""
    raw = folder / "disk.raw"
    with raw.open("wb") as file:
        subprocess.run(["head", "-c", str(_SIZE), "/dev/urandom"], stdout=file, check=True)
    made = {}
    for form, options in _FORMATS.items():
        made[form] = folder / f"disk.{_DRIVERS[form]}"
        command = ["qemu-img", "convert", "-f", "raw", *options, str(raw), str(made[form])]
        subprocess.run(command, check=True)
    return made


def _opened(path: Path, stack: ExitStack) -> Image:
    return open_image(path, stack=stack)


def _ready(images: dict[str, Path], folder: Path, stack: ExitStack) -> list[Row]:
    rows = []
    for form, path in images.items():
        plan = _opened(path, stack).plan
        times = []
        for _ in range(10):
            begin = time.monotonic()
            with exported(plan, folder, name="ready"):
                times.append(time.monotonic() - begin)
        rows.append(Row(f"export ready, {form}", statistics.median(times), "s", 0.1))
    return rows


def _hashed(raw: Path, stack: ExitStack) -> list[Row]:
    """In turn, so that a slower moment of the machine meets both."""
    file = _opened(raw, stack).files[0]
    ours, theirs = [], []
    for _ in range(_RUNS):
        ours.append(file.size / digest(file, drop=False).seconds / 1e6)
        theirs.append(_openssl())
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return [
        Row("SHA-256 of a cached file", statistics.median(ours), "MB/s", None),
        Row("SHA-256 by openssl speed", statistics.median(theirs), "MB/s", None),
        Row("SHA-256, next to openssl", ratio, "", 0.8, at_most=False),
    ]


def _openssl() -> float:
    command = ["openssl", "speed", "-mr", "-seconds", "1", "-bytes", str(MIB), "-evp", "sha256"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1].split(":")[-1]) / 1e6


def _read(images: dict[str, Path], folder: Path, stack: ExitStack) -> list[Row]:
    """Sequential reads with O_DIRECT in a guest, through the export and without it."""
    provided = provide(Settings(accelerator="tcg"), lambda _step: None)
    recipe = Path(appliance_file).resolve().parent / "recipe"
    # What follows the last moment keeps it from being cut off.
    script = "cat /proc/uptime\ndd if=/dev/sda of=/dev/null bs=1M iflag=direct\n" * 3

    def rates(drive: str) -> tuple[float, float]:
        """MB/s of the first read, from the disk, and of the second, from the page cache."""
        _forget(folder)
        text = run_in_guest(provided.base, recipe, script, [], folder, drives=[drive])
        moments = [float(each) for each in _UPTIME.findall(text)]
        first, second = (_SIZE / (after - before) / 1e6 for before, after in pairwise(moments))
        return first, second

    rows = []
    for form, path in images.items():
        plan = _opened(path, stack).plan
        pairs = [_both(plan, path, form, folder, rates) for _ in range(_RUNS)]
        for place, where in enumerate(("disk", "page cache")):
            rows += _compared(f"{form}, {where}", [(a[place], b[place]) for a, b in pairs])
    return rows


def _compared(what: str, pairs: list[tuple[float, float]]) -> list[Row]:
    ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    return [
        Row(f"guest reads through the export: {what}", ours, "MB/s", None),
        Row(f"guest reads, QEMU parses: {what}", theirs, "MB/s", None),
        Row(f"through the export, next to QEMU: {what}", ratio, "", 0.8, at_most=False),
    ]


def _forget(folder: Path) -> None:
    """The kernel drops what it has of the images."""
    for path in folder.glob("disk*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _both(
    plan: Plan,
    path: Path,
    form: str,
    folder: Path,
    rates: Callable[[str], tuple[float, float]],
) -> tuple[tuple[float, float], tuple[float, float]]:
    with exported(plan, folder, name="read") as export:
        url = f"nbd+unix:///{export.name}?socket={export.socket}"
        ours = rates(f"file={url},format=raw")
    return ours, rates(f"file={path},format={_DRIVERS[form]}")


if __name__ == "__main__":
    sys.exit(main())
