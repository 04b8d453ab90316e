"""The two commands that are compared, what they need, and how their output is checked."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.processes import BenchError, timed
from tests.builders.bench import ROOT_UUID, SWAP_UUID, make_bench_image

REPOSITORY = Path(__file__).resolve().parents[2]
_PEER_HINT = """\
install libguestfs and a kernel for its appliance (only the benchmark needs them):
    apt-get install -y --no-install-recommends libguestfs-tools linux-image-amd64
For anyone but root the kernel must also be readable: chmod a+r /boot/vmlinuz-*"""


@dataclass(frozen=True, slots=True)
class Contender:
    """A command; `check` raises BenchError for output that misses what is on the image."""

    name: str
    argv: tuple[str, ...]
    check: Callable[[bytes], None]
    env: Mapping[str, str] = field(default_factory=dict)


def cache_folder() -> Path:
    """Where the image is kept from one run of the benchmark to the next."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "forensic-bench"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def bench_image() -> Path:
    """The image, built if it is not there yet."""
    path = cache_folder() / "bench.qcow2"
    if not path.exists():
        new = path.with_suffix(".new")
        make_bench_image(new)
        new.rename(path)
    return path


def forensic_program() -> str:
    """The installed command of the environment that runs the benchmark."""
    path = Path(sys.executable).with_name("forensic")
    if not path.exists():
        raise BenchError(f"{path} is missing; run ./forensic --version once")
    return str(path)


def forensic(image: Path) -> Contender:
    """Our side."""
    argv = (forensic_program(), "inspect", str(image), "--accel", "tcg", "--json")
    return Contender("forensic", argv, _check_forensic)


def libguestfs(image: Path) -> Contender:
    """Their side, with the same accelerator. Raises BenchError with what to install."""
    if shutil.which("virt-filesystems") is None:
        raise BenchError(f"virt-filesystems is missing; {_PEER_HINT}")
    kernels = list(Path("/boot").glob("vmlinuz-*"))
    if not any(os.access(kernel, os.R_OK) for kernel in kernels):
        raise BenchError(f"there is no kernel in /boot that libguestfs could use; {_PEER_HINT}")
    return Contender(
        "libguestfs",
        ("virt-filesystems", "-a", str(image), "--all", "--long"),
        _check_libguestfs,
        {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"},
    )


def libguestfs_version() -> str:
    """As `virt-filesystems` says it."""
    return timed(["virt-filesystems", "--version"]).output.decode().split()[-1]


def timings_of(output: bytes) -> dict[str, float]:
    """Seconds by phase, from the result of `forensic inspect --json`."""
    return {name: float(value) for name, value in json.loads(output)["timings"].items()}


def tools_of(output: bytes) -> dict[str, str]:
    """Versions by name, from the same."""
    return dict(json.loads(output)["tools"])


def _check_forensic(output: bytes) -> None:
    result = json.loads(output)
    found = {layer["content"]["uuid"] for layer in result["layers"] if layer["content"]}
    if not result["complete"] or not {ROOT_UUID, SWAP_UUID} <= found:
        raise BenchError("forensic did not find everything that is on the image")
    if result["boundary"] != "cell":
        raise BenchError("forensic did not use TCG")


def _check_libguestfs(output: bytes) -> None:
    lines = [line.split()[:4] for line in output.decode().splitlines()]
    for expected in (
        ["/dev/sda1", "filesystem", "swap", "bench-swap"],
        ["/dev/lvg1/lvroot", "filesystem", "ext4", "bench-root"],
    ):
        if expected not in lines:
            raise BenchError(f"libguestfs did not find {expected[0]}")
