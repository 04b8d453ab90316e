"""Evidence that kills guests: it costs its own layer, and the run goes on with another guest.

No image is at hand that crashes this kernel. The stand-in is an agent, in a copy of the project,
that panics or hangs at content with a certain beginning, as a driver with a defect would.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.store import Store
from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.ext4 import make_ext4
from tests.guest.conftest import Run, left_over

ROOT = Path(__file__).parents[2]
DEFECT = """
    if volume.kind is Kind.PARTITION and volume.read(0, 5) == b"PANIC":
        open("/proc/sysrq-trigger", "w").write("c")
    while volume.kind is Kind.PARTITION and volume.read(0, 4) == b"HANG":
        pass
"""
HEAD = '    """Recognise the content of a volume without mounting anything."""\n'
COMMAND = "from controller.cli import main\nmain()"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project with the defect; its saved state is made at first use, and removed again."""
    states = set(Store().root.glob("state-*"))
    folder = tmp_path_factory.mktemp("project")
    folder.chmod(0o755)
    for name in ("appliance", "controller", "images"):
        shutil.copytree(ROOT / name, folder / name)
    content = folder / "appliance/agent/content.py"
    assert HEAD in content.read_text()
    content.write_text(content.read_text().replace(HEAD, HEAD + DEFECT))
    outcome = folder / "appliance/agent/outcome.py"
    assert "_SECONDS = 60\n" in outcome.read_text()
    outcome.write_text(outcome.read_text().replace("_SECONDS = 60\n", "_SECONDS = 2\n"))
    install(folder)
    yield folder
    for state in set(Store().root.glob("state-*")) - states:
        state.chmod(0o700)
        shutil.rmtree(state)


def install(project: Path) -> None:
    """An environment that has this project in place of ours: the cell looks at nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / "venv"], check=True)
    ours = Path(sysconfig.get_path("purelib"))
    (theirs,) = (project / "venv/lib").glob("python3*/site-packages")
    unneeded = shutil.ignore_patterns("*.pth", "mypy*", "ruff*", "hypothesis*", "*pytest*")
    shutil.copytree(ours, theirs, ignore=unneeded, dirs_exist_ok=True)
    (theirs / "project.pth").write_text(f"{project}\n")


def inspect(project: Path, *words: str | Path) -> Run:
    begin = time.monotonic()
    argv = [
        project / "venv/bin/python",
        "-I",
        "-c",
        COMMAND,
        "inspect",
        "--json",
        "--accel",
        "tcg",
        *words,
    ]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=300)
    return Run(done.returncode, done.stdout, done.stderr.decode(), time.monotonic() - begin)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ext4 before, between and after what kills."""
    folder = tmp_path_factory.mktemp("deadly")
    good = make_ext4(folder / "good", 4 * MIB, "good", "e4000000-0000-4000-8000-00000000dead", ())
    rows = []
    for number, word in enumerate((None, b"PANIC", None, b"HANG", None)):
        image = good
        if word:
            image = folder / word.decode()
            image.write_bytes(word.ljust(4 * MIB, b"\0"))
        start = (1 + 4 * number) * MIB // SECTOR
        rows.append(Partition(start, 4 * MIB // SECTOR, "L", image))
    return make_disk(folder / "disk.raw", 22 * MIB, "gpt", rows)


def test_deadly_layers_cost_themselves_alone(project: Path, disk: Path) -> None:
    inspect(project, ROOT / "docs/samples/office.vmdk")  # makes the state
    run = inspect(project, disk)
    assert run.status == 1, run.stderr
    layers = run.layers()
    for number in (1, 3, 5):
        assert layers[f"disk0/p{number}"]["content"]["label"] == "good"
        assert layers[f"disk0/p{number}"]["status"] == "mapped"
    lost = {f["layer"]: f["message"] for f in run.json["findings"] if f["code"] == "guest-lost"}
    assert set(lost) == {"disk0/p2", "disk0/p4"}
    assert "recognise, disk0/p2" in lost["disk0/p2"]
    assert "Kernel panic - not syncing: sysrq triggered crash" in lost["disk0/p2"]
    assert "said nothing for 12 seconds" in lost["disk0/p4"]
    assert {layers[f"disk0/p{n}"]["status"] for n in (2, 4)} == {"damaged"}
    assert run.seconds < 60
    assert left_over() == []


def test_too_many_deaths_end_the_run(project: Path, tmp_path: Path) -> None:
    """A limit in guests, so that evidence cannot make the command run for ever."""
    image = tmp_path / "panic"
    image.write_bytes(b"PANIC".ljust(MIB, b"\0"))
    rows = [Partition((1 + n) * MIB // SECTOR, MIB // SECTOR, "L", image) for n in range(6)]
    disk = make_disk(tmp_path / "disk.raw", 9 * MIB, "gpt", rows)
    run = inspect(project, disk)
    assert run.status == 4
    assert "disk0/p5" in run.stderr
