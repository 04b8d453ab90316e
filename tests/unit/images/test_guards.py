"""For each guard: the attack that it stops gets through, or one guard further, without it.

The guards are taken out one by one. Where two lie behind each other, both are shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from images import (
    chain,
    evidence,
    reference,
    vmdk_descriptor,
    walk,
)
from images.errors import ImageError, Unreadable
from images.image import Image
from images.walk import Outside, Root
from tests.builders.hostile_place import Place
from tests.builders.qcow2 import MIB, Qcow2
from tests.builders.vmdk_chain import Ids, descriptor, write_flat

from .test_chain import Opened, content

Attack = Callable[[str], Path]
Patch = pytest.MonkeyPatch


def refused(opened: Opened, path: Path, message: str, **options: Any) -> None:
    with pytest.raises(ImageError) as failure:
        opened(path, **options)
    assert re.search(message, str(failure.value))


def names(image: Image) -> list[str]:
    return [file.resolved.name for file in image.files]


def no_walk(monkeypatch: Patch) -> None:
    """References are opened as the kernel understands them, wherever that is."""

    def follow(root: Root, parts: list[str], _roots: object) -> tuple[int, Path]:
        path = root.real.joinpath(*parts)
        return os.open(path, os.O_PATH), root.real / path.name

    def anywhere(parts: list[str], roots: tuple[Root, ...]) -> tuple[Root, list[str]]:
        return roots[0], ["/", *parts]

    monkeypatch.setattr(reference, "walk", follow)
    monkeypatch.setattr(reference, "anchored", anywhere)


# --- where a reference may lead -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "qcow2: backing absolute",
        "qcow2: backing relative",
        "qcow2: backing link",
        "qcow2: backing folder link",
        "qcow2: backing below an overlay",
        "qcow2: data absolute",
        "qcow2: data below an overlay",
        "vmdk: extent absolute",
        "vmdk: extent relative",
        "vmdk: extent link",
        "vmdk: extent below a snapshot",
        "vmdk: parent absolute",
        "vmdk: parent relative",
        "file: third part is a link",
    ],
)
def test_walk(
    name: str, attack: Attack, opened: Opened, place: Place, run_folder: Path, monkeypatch: Patch
) -> None:
    path = attack(name)
    no_walk(monkeypatch)
    assert place.token in content(opened(path), run_folder)


@pytest.mark.parametrize("name", ["qcow2: backing link", "vmdk: extent link"])
def test_links_are_not_followed_by_the_kernel(
    name: str, attack: Attack, opened: Opened, place: Place, run_folder: Path, monkeypatch: Patch
) -> None:
    path = attack(name)
    monkeypatch.setattr(walk, "_FLAGS", os.O_PATH | os.O_CLOEXEC)
    assert place.token in content(opened(path), run_folder)


def test_only_the_folder_itself(tmp_path: Path, opened: Opened, monkeypatch: Patch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/base").write_bytes(bytes(MIB))
    path = tmp_path / "image"
    path.write_bytes(Qcow2(backing=b"sub/base", backing_format=b"raw").build())
    refused(opened, path, "outside")
    monkeypatch.setattr(
        reference._Search, "_walked", lambda self, root, parts: walk.walk(root, parts, self._roots)
    )
    assert names(opened(path)) == ["image", "base"]


def test_roots_end_at_a_component(tmp_path: Path, opened: Opened, monkeypatch: Patch) -> None:
    """case-2 is not below case, though the names begin alike."""
    for folder in ("case", "case-2"):
        (tmp_path / folder).mkdir()
    (tmp_path / "case-2/base").write_bytes(bytes(MIB))
    path = tmp_path / "case/image"
    name = os.fsencode(tmp_path / "case-2/base")
    path.write_bytes(Qcow2(backing=name, backing_format=b"raw").build())
    refused(opened, path, "outside")

    def by_text(parts: list[str], roots: tuple[Root, ...]) -> tuple[Root, list[str]]:
        if not "/".join(parts).startswith(str(roots[0].real)):
            raise Outside
        return Root(Path("/"), Path("/")), parts

    monkeypatch.setattr(reference, "anchored", by_text)
    monkeypatch.setattr(
        reference._Search, "_walked", lambda self, root, parts: walk.walk(root, parts, (root,))
    )
    assert names(opened(path)) == ["image", "base"]


def test_protocols(tmp_path: Path, opened: Opened, monkeypatch: Patch) -> None:
    (tmp_path / "fat:base").write_bytes(bytes(MIB))
    path = tmp_path / "image"
    path.write_bytes(Qcow2(backing=b"fat:base", backing_format=b"raw").build())
    refused(opened, path, "protocol")
    monkeypatch.setattr(reference, "_PROTOCOL", re.compile("(?!)"))
    assert names(opened(path)) == ["image", "fat:base"]


def test_nul(attack: Attack, opened: Opened, monkeypatch: Patch) -> None:
    path = attack("qcow2: backing behind NUL")
    monkeypatch.setattr(reference._Search, "_checked", lambda self: os.fsdecode(self._name))
    with pytest.raises(ValueError, match="null"):
        opened(path)


def test_length_of_names(tmp_path: Path, opened: Opened, monkeypatch: Patch) -> None:
    (tmp_path / "flat").write_bytes(bytes(MIB))
    path = tmp_path / "disk.vmdk"
    line = f'RW 2048 FLAT "{"./" * 600}flat" 0'
    path.write_bytes(descriptor("monolithicFlat", [line], Ids(1)))
    refused(opened, path, "too long")
    monkeypatch.setattr(reference, "MAX_NAME", 4096)
    assert names(opened(path)) == ["disk.vmdk", "flat"]


def test_kinds_of_files(attack: Attack, opened: Opened, monkeypatch: Patch) -> None:
    """Without it a pipe is opened, which can have effects; that it is empty is seen later."""
    folder, pipe = attack("qcow2: backing folder"), attack("qcow2: backing fifo")
    monkeypatch.setattr(evidence, "_require_disk", lambda *_: None)
    refused(opened, pipe, "is empty")
    assert names(opened(folder)) == ["image", "special"]


def test_links_have_an_end(tmp_path: Path, opened: Opened, monkeypatch: Patch) -> None:
    (tmp_path / "0").write_bytes(bytes(MIB))
    for number in range(1, 60):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    path = tmp_path / "image"
    path.write_bytes(Qcow2(backing=b"59", backing_format=b"raw").build())
    refused(opened, path, "symbolic link")
    monkeypatch.setattr(walk, "_MAX_LINKS", 100)
    assert names(opened(path)) == ["image", "0"]


# --- how much and how often ---------------------------------------------------------------------


def test_depth(attack: Attack, opened: Opened, monkeypatch: Patch) -> None:
    path = attack("qcow2: backing too deep")
    monkeypatch.setattr(chain, "MAX_DEPTH", 100)
    assert len(opened(path).chain) == 66


def test_a_file_only_once(attack: Attack, opened: Opened, monkeypatch: Patch) -> None:
    twice = attack("vmdk: extent twice")
    loop = attack("qcow2: backing loop of two")

    def add(self: chain.Chain, file: evidence.EvidenceFile) -> int:
        self._files.append(file)
        return len(self._files) - 1

    monkeypatch.setattr(chain.Chain, "add", add)
    assert len(opened(twice).files) == 3
    refused(opened, loop, "more than 64")  # the guard behind it
    monkeypatch.setattr(chain, "MAX_DEPTH", 10**6)
    with pytest.raises((RecursionError, Unreadable)):
        opened(loop)


def test_number_of_files(tmp_path: Path, opened: Opened, monkeypatch: Patch) -> None:
    path = write_flat(tmp_path / "disk.vmdk", bytes(MIB), Ids(1), "twoGbMaxExtentFlat", MIB // 8)
    monkeypatch.setattr(chain, "MAX_FILES", 8)
    refused(opened, path, "more than 8 files")
    monkeypatch.setattr(chain, "MAX_FILES", 9)
    assert len(opened(path).files) == 9


def test_number_of_extents(attack: Attack, opened: Opened, monkeypatch: Patch) -> None:
    path = attack("vmdk: ten thousand extents")
    monkeypatch.setattr(vmdk_descriptor, "MAX_EXTENTS", 10_000)
    assert opened(path).chain[0].details.extents == 10_000


def test_size_of_a_descriptor(attack: Attack, opened: Opened, monkeypatch: Patch) -> None:
    path = attack("vmdk: descriptor of gigabytes")
    monkeypatch.setattr(vmdk_descriptor, "MAX_BYTES", 1 << 40)
    refused(opened, path, "refused to read 8589934592 bytes")  # the guard behind it
