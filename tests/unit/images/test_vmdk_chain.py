"""VMDK snapshots as VMware writes them: found, checked, and read as a model says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from images.errors import Ambiguous, ImageError, MalformedImage, PolicyViolation, Unsupported
from images.reference import Reach
from tests.builders.vmdk_chain import (
    GRAIN,
    Ids,
    Layer,
    applied,
    random_layer,
    write_flat,
    write_monolithic,
    write_split,
)

from .conftest import MIB
from .test_chain import Opened, content, qemu_img

SIZE, PART = 6 * MIB, 2 * MIB
BASE, ONE, TWO = 0x11111111, 0x22222222, 0xFFFFFFFE
BELOW = random_layer(1, SIZE, share=0.5)
DISK = applied(bytes(SIZE), BELOW)
DELTAS: tuple[Layer, Layer] = (
    {**random_layer(2, SIZE, zeroed=0.2), 0: b"delta".ljust(GRAIN, b"1"), 1: None},
    random_layer(3, SIZE, share=0.1, zeroed=0.3),
)
SHOWN = applied(applied(DISK, DELTAS[0]), DELTAS[1])

BASES = {
    "monolithic": lambda path: write_monolithic(path, SIZE, BELOW, Ids(BASE)),
    "split": lambda path: write_split(path, SIZE, PART, BELOW, Ids(BASE)),
    "flat": lambda path: write_flat(path, DISK, Ids(BASE)),
    "split flat": lambda path: write_flat(path, DISK, Ids(BASE), "twoGbMaxExtentFlat", PART),
    "vmfs": lambda path: write_flat(path, DISK, Ids(BASE), "vmfs"),
}
KINDS = ("monolithic", "split")


def delta(kind: str, path: Path, number: int, ids: Ids) -> Path:
    if kind == "monolithic":
        return write_monolithic(path, SIZE, DELTAS[number], ids)
    return write_split(path, SIZE, PART, DELTAS[number], ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASES)
def test_content_is_that_of_the_model(
    base: str, kind: str, tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    below = BASES[base](tmp_path / "Win7_x64.vmdk")
    first = delta(kind, tmp_path / "Win7_x64-000001.vmdk", 0, Ids(ONE, BASE, below.name))
    top = delta(kind, tmp_path / "Win7_x64-000002.vmdk", 1, Ids(TWO, ONE, first.name))
    image = opened(top)
    assert [link.path for link in image.chain] == [top, first, below]
    assert [link.details.content_id for link in image.chain] == [TWO, ONE, BASE]
    assert content(image, run_folder) == SHOWN
    assert content(opened(first), run_folder) == applied(DISK, DELTAS[0])
    assert content(opened(below), run_folder) == DISK
    assert all(file.changes() == [] for file in image.files)


def test_builder_agrees_with_qemu(tmp_path: Path) -> None:
    """What QEMU can open by itself, it sees as the model says."""
    below = write_monolithic(tmp_path / "base.vmdk", SIZE, BELOW, Ids(BASE))
    top = write_monolithic(tmp_path / "top.vmdk", SIZE, DELTAS[0], Ids(ONE, BASE, below.name))
    qemu_img("convert", "-f", "vmdk", "-O", "raw", top, tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == applied(DISK, DELTAS[0])


def test_mixed_kinds_and_a_snapshot_of_qemu(
    tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    below = BASES["split"](tmp_path / "base.vmdk")
    first = delta("monolithic", tmp_path / "1.vmdk", 0, Ids(ONE, BASE, below.name))
    second = delta("split", tmp_path / "2.vmdk", 1, Ids(TWO, ONE, first.name))
    top = tmp_path / "top.qcow2"
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", second.name, "-F", "vmdk", top, str(SIZE))
    assert content(opened(top), run_folder) == SHOWN


@pytest.mark.parametrize("kind", KINDS)
def test_as_deep_as_allowed(kind: str, tmp_path: Path, opened: Opened, run_folder: Path) -> None:
    """What the exporter says about so many images fits into what is read of it."""
    size, model = 2 * MIB, bytes(2 * MIB)
    hint, above = "", 0xFFFFFFFF
    for number in range(1, 66):
        path = tmp_path / f"{number}.vmdk"
        layer = {number % 32: bytes([number]) * GRAIN, (number + 7) % 32: None}
        ids = Ids(number, above, hint)
        if kind == "split":
            write_split(path, size, MIB, layer, ids)
        else:
            write_monolithic(path, size, layer, ids)
        hint, above = path.name, number
        if number <= 64:
            model = applied(model, layer)
    assert content(opened(tmp_path / "64.vmdk"), run_folder) == model
    with pytest.raises(PolicyViolation, match="more than 64"):
        opened(path)


HINTS = {
    "windows": r"C:\VMs\Win7\base.vmdk",
    "windows with slashes": "C:/VMs/Win7/base.vmdk",
    "share": r"\\server\share\Win7\base.vmdk",
    "linux": "/home/user/vmware/Win7/base.vmdk",
    "esx": "/vmfs/volumes/5e3f-12/Win7/base.vmdk",
    "relative": "Win7/base.vmdk",
    "backslashes": r"Win7\base.vmdk",
    "dot": "./base.vmdk",
}


@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("place", ["beside", "allowed", "named as the folder", "deep below"])
def test_hints_of_other_machines(place: str, hint: str, tmp_path: Path, opened: Opened) -> None:
    """The parent is found by the last parts of its path, and a note says where."""
    case, allowed = tmp_path / "case", tmp_path / "allowed"
    folder = {
        "beside": case,
        "allowed": allowed,
        "named as the folder": allowed / "Win7",
        "deep below": allowed / "a" / "b" / "c",
    }[place]
    case.mkdir()
    folder.mkdir(parents=True, exist_ok=True)
    below = BASES["split"](folder / "base.vmdk")
    top = delta("split", case / "top.vmdk", 0, Ids(ONE, BASE, HINTS[hint]))
    reach = Reach() if place == "beside" else Reach.into([allowed])
    image = opened(top, reach=reach)
    assert image.chain[1].path == below
    moved = not (place == "beside" and hint == "dot")
    assert any(f"was taken from {below}" in note for note in image.notes) == moved


@pytest.mark.parametrize("hint", [r"..\base\x.vmdk", "../base/x.vmdk"])
def test_relative_hint_into_another_folder(hint: str, tmp_path: Path, opened: Opened) -> None:
    for name in ("case", "base"):
        (tmp_path / name).mkdir()
    below = BASES["flat"](tmp_path / "base" / "x.vmdk")
    top = delta("monolithic", tmp_path / "case" / "top.vmdk", 0, Ids(ONE, BASE, hint))
    with pytest.raises(PolicyViolation, match="outside") as failure:
        opened(top)
    assert "--allow-dir" in failure.value.hint
    image = opened(top, reach=Reach.into([tmp_path / "base"]))
    assert image.chain[1].path == below
    assert image.notes == ()


def test_extents_stay_beside_their_own_descriptor(
    tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    """Both folders have extents of the same names; each descriptor takes its own."""
    other = tmp_path / "other"
    other.mkdir()
    below = BASES["split"](other / "disk.vmdk")
    top = delta("split", tmp_path / "disk.vmdk", 0, Ids(ONE, BASE, str(below)))
    image = opened(top, reach=Reach.into([other]))
    assert {file.path.parent for file in image.files[:4]} == {tmp_path}
    assert {file.path.parent for file in image.files[4:]} == {other}
    assert content(image, run_folder) == applied(DISK, DELTAS[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASES)
def test_parent_that_was_changed(base: str, kind: str, tmp_path: Path, opened: Opened) -> None:
    below = BASES[base](tmp_path / "base.vmdk")
    top = delta(kind, tmp_path / "top.vmdk", 0, Ids(ONE, BASE, below.name))
    below.write_bytes(below.read_bytes().replace(b"CID=11111111", b"CID=11111112"))
    with pytest.raises(MalformedImage, match=r"content ID 11111111.* has the content ID 11111112"):
        opened(top)
    below.write_bytes(below.read_bytes().replace(b"\nCID=11111112", b"\n#ID=11111112"))
    with pytest.raises(MalformedImage, match=r"content ID 11111111.* has none"):
        opened(top)


def test_parent_of_another_size(tmp_path: Path, opened: Opened) -> None:
    below = write_flat(tmp_path / "base.vmdk", DISK[:-GRAIN], Ids(BASE))
    top = delta("split", tmp_path / "top.vmdk", 0, Ids(ONE, BASE, below.name))
    with pytest.raises(MalformedImage, match=f"a disk of {SIZE} bytes, but its parent"):
        opened(top)


def test_parent_that_is_no_vmdk(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "base.vmdk").write_bytes(DISK)
    top = delta("split", tmp_path / "top.vmdk", 0, Ids(ONE, BASE, "base.vmdk"))
    with pytest.raises(MalformedImage, match="magic"):
        opened(top)


@pytest.mark.parametrize(("own", "parent"), [("top.vmdk", "top.vmdk"), ("top.vmdk", "base.vmdk")])
def test_loops(own: str, parent: str, tmp_path: Path, opened: Opened) -> None:
    delta("monolithic", tmp_path / "base.vmdk", 0, Ids(ONE, ONE, own))
    delta("split", tmp_path / "top.vmdk", 1, Ids(ONE, ONE, parent))
    with pytest.raises(PolicyViolation, match="twice"):
        opened(tmp_path / "top.vmdk")


def test_missing_extent_of_the_parent_is_named(tmp_path: Path, opened: Opened) -> None:
    below = BASES["split"](tmp_path / "base.vmdk")
    top = delta("split", tmp_path / "top.vmdk", 0, Ids(ONE, BASE, below.name))
    (tmp_path / "base-s002.vmdk").unlink()
    with pytest.raises(ImageError, match=r"base-s002\.vmdk: does not exist .*base\.vmdk"):
        opened(top)


def test_two_parents_of_one_name(tmp_path: Path, opened: Opened) -> None:
    below = BASES["flat"](tmp_path / "base.vmdk")
    top = tmp_path / "case" / "top.vmdk"
    top.parent.mkdir()
    delta("split", top, 0, Ids(ONE, BASE, r"C:\VMs\base.vmdk"))
    for number in ("x", "y"):
        place = tmp_path / "other" / number / "deep"
        place.mkdir(parents=True)
        shutil.copy(below, place)
        shutil.copy(tmp_path / "base-flat.vmdk", place)
    with pytest.raises(Ambiguous, match="could be any of") as failure:
        opened(top, reach=Reach.into([tmp_path / "other"]))
    assert "alone" in failure.value.hint
    assert opened(top, reach=Reach.into([tmp_path / "other" / "y"])).chain[1].path.exists()


def test_name_that_is_no_text(tmp_path: Path, opened: Opened) -> None:
    """VMware wrote the name in windows-1252; here it is bytes, as the file's name is."""
    name = os.fsdecode(b"gr\xf6\xdfe.vmdk")
    BASES["flat"](tmp_path / "base.vmdk")
    (tmp_path / "base.vmdk").rename(tmp_path / name)
    top = delta("split", tmp_path / "top.vmdk", 0, Ids(ONE, BASE, "gr\xf6\xdfe.vmdk"))
    assert opened(top).chain[1].path == tmp_path / name


def test_stream_optimised_snapshot_is_not_opened(variants, tmp_path: Path, opened: Opened) -> None:
    data = variants["vmdk-stream"].read_bytes()
    data = data.replace(b"parentCID=ffffffff", b"parentCID=11111111")
    text = b'\nparentFileNameHint="base.vmdk"\n'
    end = data.index(b"\0", 512)
    (tmp_path / "top.vmdk").write_bytes(data[:end] + text + data[end + len(text) :])
    with pytest.raises(Unsupported, match="stream-optimised snapshot"):
        opened(tmp_path / "top.vmdk")
