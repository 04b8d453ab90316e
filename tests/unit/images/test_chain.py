"""Chains of images: what is served is what the whole chain holds, and nothing else is opened."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from images.errors import Ambiguous, ImageError, MalformedImage, PolicyViolation, Unreadable
from images.export import exported
from images.image import Image
from images.reference import Reach

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


# --- VMDK snapshots as VMware Workstation writes them -------------------------------------------

GRAIN = 64 * 1024


def sparse_extent(sectors: int, grains: dict[int, bytes]) -> bytes:
    """A hosted sparse extent ("Virtual Disk Format 5.0") with these grains allocated."""
    count = sectors * 512 // GRAIN
    tables = -(-count // 512)
    directory, first_table = 1, 1 + -(-tables * 4 // 512)
    overhead = -(-(first_table + 4 * tables) // 128) * 128
    header = struct.pack(
        "<4sIIQQQQIQQQB4sH", b"KDMV", 1, 1, sectors, GRAIN // 512, 0, 0, 512, 0, directory,
        overhead, 0, b"\n \r\n", 0,
    )  # fmt: skip
    entries = [0] * (tables * 512)
    body = b""
    for number, data in sorted(grains.items()):
        entries[number] = overhead + len(body) // 512
        body += data.ljust(GRAIN, b"\0")
    places = struct.pack(f"<{tables}I", *(first_table + 4 * each for each in range(tables)))
    metadata = header.ljust(512, b"\0") + places.ljust((first_table - 1) * 512, b"\0")
    metadata += struct.pack(f"<{len(entries)}I", *entries)
    return metadata.ljust(overhead * 512, b"\0") + body


def vmdk(path: Path, extents: list[str], own: int, parent: int, hint: str = "") -> Path:
    lines = ["# Disk DescriptorFile", "version=1", f"CID={own:08x}", f"parentCID={parent:08x}"]
    lines += [
        'createType="twoGbMaxExtentSparse"',
        *([f'parentFileNameHint="{hint}"'] if hint else []),
    ]
    path.write_text("\n".join([*lines, "# Extent description", *extents]) + "\n")
    return path


@pytest.fixture
def windows(tmp_path: Path) -> tuple[Path, Path, bytes]:
    """A split base in a folder of its own, and two snapshots; the content by a model."""
    half = 2 * MIB // 512
    folder = tmp_path / "base"
    folder.mkdir()
    model = bytearray(4 * MIB)

    def part(path: Path, start: int, grains: dict[int, bytes]) -> str:
        path.write_bytes(sparse_extent(half, grains))
        for number, data in grains.items():
            model[start + number * GRAIN : start + (number + 1) * GRAIN] = data.ljust(GRAIN, b"\0")
        return f'RW {half} SPARSE "{path.name}"'

    def layer(place: Path, stem: str, mark: bytes, numbers: tuple[set[int], set[int]]) -> list[str]:
        return [
            part(place / f"{stem}-s00{index + 1}.vmdk", index * 2 * MIB,
                 {each: (mark + bytes([each])) * 100 for each in numbers[index]})
            for index in (0, 1)
        ]  # fmt: skip

    base = vmdk(
        folder / "Win7_x64.vmdk",
        layer(folder, "Win7_x64", b"base", ({0, 1, 5}, {3, 31})), 0x11111111, 0xFFFFFFFF,
    )  # fmt: skip
    vmdk(
        tmp_path / "Win7_x64-000001.vmdk",
        layer(tmp_path, "Win7_x64-000001", b"one", ({1, 2}, set())), 0x22222222, 0x11111111,
        r"C:\VMs\Win7\Win7_x64.vmdk",
    )  # fmt: skip
    top = vmdk(
        tmp_path / "Win7_x64-000002.vmdk",
        layer(tmp_path, "Win7_x64-000002", b"two", ({2}, {3, 4})), 0x33333333, 0x22222222,
        "Win7_x64-000001.vmdk",
    )  # fmt: skip
    return top, base, bytes(model)


def test_snapshots_of_vmware(
    windows: tuple[Path, Path, bytes], opened: Opened, run_folder: Path
) -> None:
    top, base, model = windows
    with pytest.raises(ImageError, match=r"Win7_x64\.vmdk"):
        opened(top)
    image = opened(top, reach=Reach.into([base.parent]))
    assert [link.details.content_id for link in image.chain] == [
        0x33333333, 0x22222222, 0x11111111,
    ]  # fmt: skip
    assert any("was taken from" in note for note in image.notes)
    assert content(image, run_folder) == model


def test_parent_that_was_changed(windows: tuple[Path, Path, bytes], opened: Opened) -> None:
    top, base, _ = windows
    base.write_text(base.read_text().replace("CID=11111111", "CID=11111112"))
    with pytest.raises(MalformedImage, match="content ID 11111111"):
        opened(top, reach=Reach.into([base.parent]))


def test_two_parents_of_one_name(windows: tuple[Path, Path, bytes], opened: Opened) -> None:
    top, base, _ = windows
    other = base.parent.parent / "other"
    allowed = []
    for number in ("x", "y"):
        place = other / number / "deep"
        place.mkdir(parents=True)
        (place / base.name).write_bytes(base.read_bytes())
        allowed.append(other / number)
    with pytest.raises(Ambiguous, match="could be any of"):
        opened(top, reach=Reach.into(allowed))


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
        vmdk(extent, [], 1, 0xFFFFFFFF)
        text = extent.read_text().replace("twoGbMaxExtentSparse", "monolithicFlat")
        extent.write_text(text + f'RW 8192 FLAT "{target}" 0\n')
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
