"""Benign images of every kind, made once by qemu-img, and what a test needs around them."""

from __future__ import annotations

import contextlib
import os
import random
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from images import vmdk_sparse
from images.errors import ImageError
from images.exporter import Export
from images.image import Image, open_image
from tests.builders.hostile_containers import HOSTILE, make_case
from tests.builders.hostile_place import Place, make_outside

MIB = 1 << 20
DISK_SIZE = 40 * MIB

VARIANTS: dict[str, tuple[str, ...]] = {
    "qcow2-v2": ("qcow2", "-o", "compat=0.10"),
    "qcow2-v3": ("qcow2", "-o", "compat=1.1"),
    "qcow2-512": ("qcow2", "-o", "cluster_size=512"),
    "qcow2-2m": ("qcow2", "-o", "cluster_size=2M"),
    "qcow2-ref1": ("qcow2", "-o", "refcount_bits=1"),
    "qcow2-ref64": ("qcow2", "-o", "refcount_bits=64"),
    "qcow2-lazy": ("qcow2", "-o", "lazy_refcounts=on"),
    "qcow2-compressed": ("qcow2", "-c"),
    "qcow2-zstd": ("qcow2", "-c", "-o", "compression_type=zstd"),
    "qcow2-extended-l2": ("qcow2", "-o", "extended_l2=on"),
    "qcow2-metadata": ("qcow2", "-o", "preallocation=metadata"),
    "qcow2-falloc": ("qcow2", "-o", "preallocation=falloc"),
    "vmdk-sparse": ("vmdk", "-o", "subformat=monolithicSparse"),
    "vmdk-zeroed": ("vmdk", "-o", "subformat=monolithicSparse,zeroed_grain=on"),
    "vmdk-stream": ("vmdk", "-o", "subformat=streamOptimized"),
    "vmdk-flat": ("vmdk", "-o", "subformat=monolithicFlat"),
    "vmdk-split-sparse": ("vmdk", "-o", "subformat=twoGbMaxExtentSparse"),
    "vmdk-split-flat": ("vmdk", "-o", "subformat=twoGbMaxExtentFlat"),
}


@dataclass(frozen=True)
class BytesSource:
    """A header parser's view of a file that exists only in memory."""

    data: bytes
    path: Path = Path("/evidence/untrusted")

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert 0 <= length <= 8 * MIB
        return self.data[offset : offset + length]


def streamed(data: bytes, **changes: int) -> bytes:
    """The same stream-optimised image as VMware writes it: directory known by a footer only."""
    header = bytearray(data[:512])
    footer = bytearray(header)
    for field, value in changes.items():
        struct.pack_into("<Q", footer, {"capacity": 12, "descriptor": 28, "gd": 56}[field], value)
    struct.pack_into("<Q", header, 56, vmdk_sparse.GD_AT_END)
    body = data[512:].ljust(-(-len(data[512:]) // 512) * 512, b"\0")
    marker = struct.pack("<QII", 1, 0, 3).ljust(512, b"\0")
    return bytes(header) + body + marker + bytes(footer) + bytes(512)


@pytest.fixture(scope="session")
def bytes_source() -> type[BytesSource]:
    return BytesSource


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk: random data at the start, in the middle and at the end, holes between."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    chance = random.Random(1)
    with path.open("wb") as file:
        file.write(b"start" + chance.randbytes(2 * MIB))
        file.seek(20 * MIB)
        file.write(chance.randbytes(300_001))
        file.seek(DISK_SIZE - 100_000)
        file.write(chance.randbytes(100_000))
    return path


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory, disk: Path) -> dict[str, Path]:
    """The same disk in every format, each in a folder of its own with mode 0400."""
    made = {}
    for name, (form, *options) in VARIANTS.items():
        path = tmp_path_factory.mktemp(name) / f"{name}.img"
        command = ["qemu-img", "convert", "-f", "raw", "-O", form, *options, str(disk), str(path)]
        subprocess.run(command, check=True, capture_output=True)
        for part in path.parent.iterdir():
            part.chmod(0o400)
        made[name] = path
    return made


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Callable[..., Image]]:
    """`open_image` whose files are closed when the test ends."""
    with ExitStack() as stack:
        yield lambda path, **options: open_image(path, stack=stack, **options)


@pytest.fixture
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: a Unix socket's has to fit into 107 bytes."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Secrets in a folder outside of the cases."""
    return make_outside(tmp_path)


@pytest.fixture
def attack(place: Place) -> Callable[[str], Path]:
    """Makes a hostile container, and shows that it is refused as long as all guards are there."""

    def make(name: str) -> Path:
        path, _ = make_case(HOSTILE[name], place, len(listing(place.outside.parent)))
        with ExitStack() as stack, pytest.raises(ImageError) as failure:
            open_image(path, stack=stack)
        assert re.search(HOSTILE[name].refused, str(failure.value))
        return path

    return make


def listing(folder: Path | str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def descendants(pid: int) -> list[int]:
    """The living processes below one; read from it down, as looking at all of /proc is slow."""
    found = []
    for child in _children(pid):
        try:
            status = Path(f"/proc/{child}/stat").read_text()
        except OSError:
            continue
        if status.rsplit(")", 1)[1].split()[0] != "Z":
            found += [child, *descendants(child)]
    return found


def _children(pid: int) -> list[int]:
    lists = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            lists.append(task.read_text())
    return [int(word) for each in lists for word in each.split()]


def qemu_of(export: Export) -> Path:
    """/proc folder of the process that parses the image."""
    (pid,) = [
        pid
        for pid in descendants(export.pid)
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/usr/bin/qemu-system")
    ]
    return Path(f"/proc/{pid}")


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    before = set(descendants(os.getpid()))
    yield
    deadline = time.monotonic() + 2
    while not set(descendants(os.getpid())) <= before and time.monotonic() < deadline:
        time.sleep(0.01)  # killed, but not dead yet
    assert set(descendants(os.getpid())) <= before
