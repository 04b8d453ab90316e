"""Chains of images: what is served is what the whole chain holds, and nothing else is opened."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from images.errors import PolicyViolation, Unreadable
from images.export import exported
from images.image import Image
from tests.builders.vmdk_chain import Ids, descriptor

from .conftest import MIB
from .test_export import fetch

Opened = Callable[..., Image]


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def content(image: Image, folder: Path) -> bytes:
    with exported(image.plan, folder, name="chain") as export:
        return fetch(export, folder / "out.raw")


def write(path: Path, form: str, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", form, *words, path], check=True, capture_output=True)


def trusted(path: Path, form: str, *options: str) -> bytes:
    """What qemu-img sees in a copy that can be trusted."""
    target = path.with_suffix(".trusted")
    qemu_img("convert", *options, "-f", form, "-O", "raw", path, target)
    return target.read_bytes()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.raw"
    path.write_bytes(random.Random(7).randbytes(4 * MIB))
    return path


@pytest.mark.parametrize("form", ["qcow2", "qed", "vmdk"])
def test_three_deep(form: str, base: Path, opened: Opened, run_folder: Path) -> None:
    first, second = base.with_name("1"), base.with_name("2")
    if form == "vmdk":
        qemu_img("convert", "-f", "raw", "-O", "vmdk", base, base.with_name("0"))
        base = base.with_name("0")
    kind = "vmdk" if form == "vmdk" else "raw"
    qemu_img("create", "-q", "-f", form, "-b", base, "-F", kind, first)
    write(first, form, "write -P 1 64k 64k")
    qemu_img("create", "-q", "-f", form, "-b", first, "-F", form, second)
    write(second, form, "write -P 2 96k 128k", "write -z 3M 64k")
    expected = trusted(second, form)
    image = opened(second)
    assert [link.path.name for link in image.chain] == ["2", "1", base.name]
    assert content(image, run_folder) == expected
    assert expected[64 * 1024] == 1
    assert expected[96 * 1024] == 2


@pytest.mark.parametrize("size", ["2M", "8M"])
def test_overlay_of_another_size(size: str, base: Path, opened: Opened, run_folder: Path) -> None:
    top = base.with_name("top")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top, size)
    assert content(opened(top), run_folder) == trusted(top, "qcow2")


def test_raw_base_that_looks_like_an_image(
    tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    """The guest wrote a qcow2 header with a backing file into its own raw disk."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    base, top = tmp_path / "base", tmp_path / "top"
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", base, "1M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
    image = opened(top)
    assert len(image.files) == 2
    served = content(image, run_folder)
    assert served.startswith(base.read_bytes()[:65536])
    assert b"secretsecret" not in served


def test_data_file(base: Path, opened: Opened, run_folder: Path) -> None:
    for raw in ("on", "off"):
        top, data = base.with_name(f"top-{raw}"), base.with_name(f"data-{raw}")
        options = f"data_file={data},data_file_raw={raw}"
        qemu_img("create", "-q", "-f", "qcow2", "-o", options, top, "4M")
        write(top, "qcow2", "write -P 9 1M 1M")
        image = opened(top)
        assert image.files[1].path == data
        assert content(image, run_folder) == trusted(top, "qcow2")


def test_snapshots(base: Path, opened: Opened, run_folder: Path) -> None:
    path = base.with_name("disk")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", base, path)
    expected = {}
    for number in (1, 2, 3):
        write(path, "qcow2", f"write -P {number} {number}M 64k")
        qemu_img("snapshot", "-c", f"state {number}", path)
        expected[f"state {number}"] = path.read_bytes() and trusted(path, "qcow2")
    qemu_img("resize", path, "6M")
    write(path, "qcow2", "write -P 7 0 6M")
    for name, state in expected.items():
        for wanted in (name, name[-1]):
            image = opened(path, snapshot=wanted)
            assert image.virtual_size == 4 * MIB
            assert content(image, run_folder) == state
    assert content(opened(path), run_folder) == trusted(path, "qcow2")
    with pytest.raises(Unreadable, match="no internal snapshot"):
        opened(path, snapshot="state 4")


def chain_of(depth: int, folder: Path) -> Path:
    """`depth` qcow2 images on each other."""
    previous = folder / "0"
    qemu_img("create", "-q", "-f", "qcow2", previous, "1M")
    for number in range(1, depth):
        path = folder / str(number)
        words = ("-u", "-b", previous.name, "-F", "qcow2", path, "1M")
        qemu_img("create", "-q", "-f", "qcow2", *words)
        previous = path
    return previous


def test_depth(tmp_path: Path, opened: Opened) -> None:
    top = chain_of(65, tmp_path)
    assert len(opened(top.with_name("63")).chain) == 64
    with pytest.raises(PolicyViolation, match="more than 64"):
        opened(top)


@pytest.mark.parametrize("names", [("a", "a"), ("b", "a")])
def test_loops(names: tuple[str, str], tmp_path: Path, opened: Opened) -> None:
    for name, target in zip(("a", "b"), names, strict=True):
        words = ("-u", "-b", target, "-F", "qcow2", tmp_path / name, "1M")
        qemu_img("create", "-q", "-f", "qcow2", *words)
    with pytest.raises(PolicyViolation, match="used twice"):
        opened(tmp_path / "a")


# --- what is opened, by the kernel's own account ------------------------------------------------

SCRIPT = """
import sys
from contextlib import ExitStack
from pathlib import Path
from images.errors import ImageError
from images.export import exported
from images.image import open_image
for index, path in enumerate(sys.argv[2:]):
    with ExitStack() as stack:
        try:
            plan = open_image(Path(path), stack=stack).plan
            stack.enter_context(exported(plan, Path(sys.argv[1]), name=f"d{index}"))
            print("served", path)
        except ImageError as error:
            print("refused", path)
"""


def test_nothing_outside_is_ever_opened(tmp_path: Path, base: Path, run_folder: Path) -> None:
    """strace tells which files the opening, the exporter and all of their threads asked for."""
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    canary = outside / "canary"
    canary.write_bytes(base.read_bytes())
    case = tmp_path / "case"
    case.mkdir()
    (case / "link").symlink_to(canary)
    (case / "folder").symlink_to(outside)
    targets = {
        "absolute": str(canary), "dots": f"../../{outside.name}/canary", "link": "link",
        "folder": "folder/canary", "json": f'json:{{"driver":"raw","file.filename":"{canary}"}}',
        "file": f"file:{canary}", "nbd": "nbd://127.0.0.1/x", "windows": f"C:{canary}",
        "fstab": "/etc/fstab",
    }  # fmt: skip
    images = []
    for name, target in targets.items():
        path = case / f"{name}.qcow2"
        qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", target, "-F", "raw", path, "4M")
        images.append(path)
        extent = case / f"{name}.vmdk"
        line = f'RW 8192 FLAT "{target}" 0'
        extent.write_bytes(descriptor("monolithicFlat", [line], Ids(1)))
        images.append(extent)
    good = case / "good.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", base, good)
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-e", "trace=%file", "-o", trace]
    command += [sys.executable, "-c", SCRIPT, run_folder, *images, good]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    served = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("served")]
    assert served == [str(good)]
    lines = trace.read_text(errors="replace").splitlines()
    assert any('"good.qcow2"' in line or str(good) in line for line in lines)
    # A name may be read out of a link inside the case, but it is never looked up outside.
    looked_up = [line for line in lines if "readlink" not in line and "execve" not in line]
    assert [line for line in looked_up if outside.name in line or '"/etc/fstab"' in line] == []
    assert [line for line in looked_up if '"canary"' in line and "ENOENT" not in line] == []
