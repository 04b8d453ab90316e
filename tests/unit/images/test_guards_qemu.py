"""As test_guards.py, for what a format says of itself and for what QEMU is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from images import (
    blockgraph,
    chain,
    detect,
    exporter,
    qcow2,
    qcow2_header,
    qcow2_snapshots,
    vmdk,
    vmdk_descriptor,
)
from images.errors import ExportFailed
from images.export import exported
from images.image import Image
from tests.builders.hostile_containers import HOSTILE, make_case
from tests.builders.hostile_place import Place
from tests.builders.qcow2 import CLUSTER, MIB, Qcow2
from tests.builders.vmdk_chain import Ids, write_monolithic

from .test_chain import Opened, content, qemu_img
from .test_guards import Attack, Patch, no_walk, refused

# --- what a format says -------------------------------------------------------------------------


def test_content_id(attack: Attack, opened: Opened, monkeypatch: Patch) -> None:
    class Agrees(int):
        """A number that is never another one."""

        __slots__ = ()
        __hash__ = int.__hash__

        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

    path = attack("vmdk: parent with another ID")
    real = vmdk_descriptor.parse

    def parse(*words: Any) -> vmdk_descriptor.Descriptor:
        found = real(*words)
        return replace(found, parent_id=Agrees(found.parent_id))

    monkeypatch.setattr(vmdk.vmdk_descriptor, "parse", parse)
    assert len(opened(path).chain) == 2


def test_several_formats(attack: Attack, opened: Opened, monkeypatch: Patch) -> None:
    path = attack("file: qcow2 and VHD")
    monkeypatch.setattr(detect, "_by_tail", lambda tail: set())
    refused(opened, path, "backing file.*outside")  # taken for a qcow2; the guard behind it


def test_backing_format(place: Place, opened: Opened, run_folder: Path, monkeypatch: Patch) -> None:
    """A raw disk in which the guest wrote a qcow2: served as it is, because nobody guesses."""
    case = HOSTILE["qcow2: base of format raw that is a qcow2"]
    path, _ = make_case(case, place, 0)
    assert place.token not in content(opened(path), run_folder)
    monkeypatch.setattr(qcow2, "_backing_format", lambda *_: None)
    refused(opened, path, "outside")  # guessed; the guard behind it
    no_walk(monkeypatch)
    assert place.token in content(opened(path), run_folder)


def test_readers_carry_nothing(tmp_path: Path, opened: Opened, run_folder, monkeypatch) -> None:
    (tmp_path / "packed").write_bytes(b"\x1f\x8b\x08".ljust(64, b"\0"))
    path = tmp_path / "image"
    path.write_bytes(Qcow2(backing=b"packed").build())
    refused(opened, path, "cannot be the backing file")
    monkeypatch.setattr(chain, "READERS", frozenset())
    with pytest.raises(ValueError, match="without a file"):
        content(opened(path), run_folder)


def test_tables_of_snapshots(tmp_path: Path, opened: Opened, monkeypatch: Patch) -> None:
    path = tmp_path / "disk"
    path.write_bytes(Qcow2().build())
    qemu_img("snapshot", "-c", "s", path)
    data = bytearray(path.read_bytes())
    at = int.from_bytes(data[64:72], "big")
    data[at : at + 8] = (1 << 40).to_bytes(8, "big")
    path.write_bytes(data)
    refused(opened, path, "L1 table at", snapshot="s")
    monkeypatch.setattr(qcow2_snapshots, "_check", lambda *_: None)
    assert opened(path, snapshot="s").virtual_size == MIB


@pytest.mark.parametrize(
    ("name", "limit", "then"),
    [
        ("qcow2: l1 of 16 GiB", "_MAX_L1_BYTES", "truncated"),
        ("qcow2: refcounts of 128 TiB", "_MAX_REFTABLE_BYTES", "truncated"),
        ("qcow2: 65537 snapshots", "_MAX_SNAPSHOTS", "snapshot table"),
    ],
)  # fmt: skip
def test_sizes_of_tables(
    name: str, limit: str, then: str, attack: Attack, opened: Opened, monkeypatch: Patch
) -> None:
    path = attack(name)
    monkeypatch.setattr(qcow2_header, limit, 1 << 60)
    refused(opened, path, then)  # the guard behind it


def test_cut_copies(attack: Attack, opened: Opened, monkeypatch: Patch) -> None:
    path = attack("qcow2: refcounts of a cut file")
    monkeypatch.setattr(qcow2_header, "_check_end_of_data", lambda *_: None)
    assert opened(path).virtual_size == MIB


# --- what QEMU is told --------------------------------------------------------------------------


def no_sandbox(monkeypatch: Patch) -> None:
    """QEMU sees all of the host, as root; only its end is still arranged."""
    bare = ["/usr/bin/bwrap", "--unshare-pid", "--dev-bind", "/", "/", "--die-with-parent", "--"]
    monkeypatch.setattr(exporter.sandbox, "command", lambda argv, *_: [*bare, *argv])


def leaks(image: Image, folder: Path, place: Place, monkeypatch: Patch) -> None:
    """QEMU looks for the file by itself: only the sandbox is left, and without it all is lost."""
    with pytest.raises(ExportFailed, match="No such file"):
        content(image, folder)
    no_sandbox(monkeypatch)
    assert place.token in content(image, folder)


def test_backing_is_explicitly_none(
    attack: Attack, opened: Opened, place: Place, run_folder: Path, monkeypatch: Patch
) -> None:
    path = attack("qcow2: backing absolute")
    monkeypatch.setattr(qcow2_header, "_backing_name", lambda *_: None)  # not seen by us
    assert place.token not in content(opened(path), run_folder)
    monkeypatch.setattr(blockgraph, "_WITH_BACKING", frozenset())
    leaks(opened(path), run_folder, place, monkeypatch)


@pytest.mark.parametrize("kind", ["comment", "value"])
def test_hidden_parents(
    kind: str, place: Place, opened: Opened, run_folder: Path, monkeypatch: Patch
) -> None:
    hint = f'parentFileNameHint="{place.outside / "secret.vmdk"}"'
    before = {"comment": f"# {hint}", "value": f'ddb.x = "{hint}'}[kind]
    path = write_monolithic(place.folder / "disk.vmdk", MIB, {}, Ids(1), before)
    refused(opened, path, "where it is not a line")
    monkeypatch.setattr(vmdk_descriptor, "refuse_hidden_parent", lambda *_: None)
    # QEMU believes only a parent whose content ID is right.
    data = path.read_bytes().replace(b"parentCID=ffffffff", b"parentCID=5ec2e700")
    path.write_bytes(data)
    monkeypatch.setattr(
        vmdk_descriptor, "_ancestry", lambda *_: (1, vmdk_descriptor.NO_PARENT, None)
    )
    assert place.token not in content(opened(path), run_folder)
    monkeypatch.setattr(blockgraph, "_WITH_BACKING", frozenset())
    leaks(opened(path), run_folder, place, monkeypatch)


def test_data_files(
    attack: Attack, opened: Opened, place: Place, run_folder: Path, monkeypatch: Patch
) -> None:
    """QEMU cannot be told that there is none, so one that we did not see is only refused."""
    path = attack("qcow2: data absolute")
    real = qcow2.parse
    monkeypatch.setattr(qcow2, "parse", lambda source: replace(real(source), has_data_file=False))
    leaks(opened(path), run_folder, place, monkeypatch)


def test_extents(
    attack: Attack, opened: Opened, place: Place, run_folder: Path, monkeypatch: Patch
) -> None:
    """QEMU gets a descriptor of ours; the image's own would lead it wherever it says."""
    path = attack("vmdk: extent absolute")
    real = vmdk._Parts.open
    monkeypatch.setattr(
        vmdk._Parts, "open", lambda self, line: real(self, replace(line, type=vmdk.ExtentType.ZERO))
    )
    image = opened(path)
    assert place.token not in content(image, run_folder)
    monkeypatch.setattr(blockgraph._Builder, "_joined", lambda self, node: self._evidence(0))
    leaks(image, run_folder, place, monkeypatch)


def test_size(tmp_path: Path, opened: Opened, run_folder: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "image"
    path.write_bytes(Qcow2(clusters={0: b"x" * CLUSTER}).build())
    plan = replace(opened(path).plan, size=2 * MIB)
    with (
        pytest.raises(ExportFailed, match="sees a disk of 1048576 bytes, the header says 2097152"),
        exported(plan, run_folder, name="d"),
    ):
        pass
    monkeypatch.setattr(blockgraph, "_checked_size", lambda _qmp, expected: expected)
    with exported(plan, run_folder, name="d") as export:
        assert export.size == 2 * MIB
