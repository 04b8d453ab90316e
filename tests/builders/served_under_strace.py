"""Opens and serves containers in a process of their own under strace, and reads what it saw.

As a program: reads a JSON list of cases from standard input, and writes a JSON list of outcomes.
What was served of case N goes to the file N in the run folder. The marker before each case is a
path that is asked for, so that it shows in the trace.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from images.detect import Format
from images.errors import ExportFailed, ImageError
from images.export import exported
from images.image import open_image
from images.nbd_client import NbdError, connected
from images.read_ahead import Buffers
from images.reference import Reach

MARKER = "/case-marker/"
ENOUGH = 3 << 20
"""Bytes that are read of what is served."""


@dataclass(frozen=True)
class Case:
    """What to open, and how."""

    path: Path
    declared: str = ""
    allowed: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """`kind` is refused, failed (by the exporter) or served, which can end with an `error`."""

    kind: str
    message: str
    error: str
    content: bytes
    seconds: float
    trace: tuple[str, ...]


def serve(cases: list[Case], run_folder: Path) -> list[Outcome]:
    """Open and serve all cases in one process under strace."""
    trace = run_folder / "trace"
    calls = "trace=%file,connect,clone,clone3,fork,vfork"
    command = ["strace", "-f", "-y", "-qq", "-s", "4096", "--seccomp-bpf", "-e", calls]
    command += ["-o", str(trace), sys.executable, "-m", __name__, str(run_folder)]
    asked = [[os.fsdecode(case.path), case.declared, *map(str, case.allowed)] for case in cases]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, input=json.dumps(asked).encode(), env=environment, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    lines = _by_case(trace.read_text(errors="surrogateescape"))
    return [
        Outcome(kind, message, error, _content(run_folder, index), seconds, tuple(lines[index]))
        for index, (kind, message, error, seconds) in enumerate(json.loads(done.stdout))
    ]


def _content(run_folder: Path, index: int) -> bytes:
    path = run_folder / str(index)
    return path.read_bytes() if path.exists() else b""


def _by_case(trace: str) -> dict[int, list[str]]:
    """The lines from one marker to the next; -1 is what was before the first."""
    found: dict[int, list[str]] = {-1: []}
    case = -1
    for line in trace.splitlines():
        if marker := re.search(rf'"{MARKER}(\d+)"', line):
            case = int(marker[1])
            found[case] = []
        found[case].append(line)
    return found


_RESULT = re.compile(r"= \d+<([^>]*)>$")
_MADE = re.compile(r"(\d+) +.*\b(?:clone3?|v?fork)\b.* = (\d+)$")
_STARTED = re.compile(r"\d+ +execve\(\"([^\"]*)\".*(?:= 0|<unfinished \.\.\.>)$")
_ASKED = re.compile(r"\d+ +\w+\((?:(?:AT_FDCWD|\d+)<((?:[^>\\]|\\.)*)>, )?\"((?:[^\"\\]|\\.)*)\"")


def opened_files(trace: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The program, and where the descriptor that the kernel gave it really leads."""
    for program, line in _with_programs(trace):
        if "open" in line and (result := _RESULT.search(line)):
            yield program, result[1]


def _with_programs(trace: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each line with the program that made the call; "" is the one that was started first."""
    parents = {made[2]: made[1] for line in trace if (made := _MADE.match(line))}
    programs: dict[str, str] = {}
    for line in trace:
        pid = line.split(" ", 1)[0]
        if pid not in programs:
            programs[pid] = programs.get(parents.get(pid, ""), "")
        if started := _STARTED.match(line):
            programs[pid] = started[1]
        yield programs[pid], line


def asked_for(trace: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The program, and each name that it handed to the kernel, also where nothing was there."""
    for program, line in _with_programs(trace):
        if match := _ASKED.match(line):
            folder, name = match.groups()
            yield program, name if name.startswith("/") or not folder else f"{folder}/{name}"


def main() -> None:
    """What runs under strace."""
    run_folder = Path(sys.argv[1])
    outcomes = []
    for index, (path, declared, *allowed) in enumerate(json.loads(sys.stdin.read())):
        Path(f"{MARKER}{index}").exists()
        begin = time.monotonic()
        case = Case(Path(path), declared, tuple(map(Path, allowed)))
        kind, message, error = _one(case, run_folder, index)
        outcomes.append((kind, message, error, time.monotonic() - begin))
    print(json.dumps(outcomes))


def _one(case: Case, run_folder: Path, index: int) -> tuple[str, str, str]:
    error = ""
    with ExitStack() as stack:
        try:
            image = open_image(
                case.path,
                stack=stack,
                declared=Format(case.declared) if case.declared else None,
                reach=Reach.into(case.allowed),
            )
        except ImageError as refusal:
            return "refused", str(refusal), ""
        try:
            with exported(image.plan, run_folder, name=f"d{index}") as export:
                error = _read(export.socket, export.name, export.size, run_folder / str(index))
        except ExportFailed as failure:
            return "failed", str(failure), ""
        return "served", "; ".join(image.notes), error


def _read(socket: Path, name: str, size: int, target: Path) -> str:
    buffers = Buffers(2, lambda: False)
    length = 0
    with target.open("wb") as file:
        try:
            with connected(socket, name, size, lambda: False, 10.0) as client:
                for piece in client.content(buffers):
                    block = bytes(piece.length) if piece.is_zero else piece.buffer[: piece.length]
                    length += file.write(block[:ENOUGH])
                    buffers.give(piece.buffer)
                    if length >= ENOUGH:
                        break
        except NbdError as error:
            return f"reading: {error}"
    return ""


if __name__ == "__main__":
    main()
