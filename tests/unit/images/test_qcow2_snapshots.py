"""Internal snapshots of qcow2 images: chosen, shown as QEMU shows them, and hostile tables."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from images import qcow2_snapshots
from images.errors import MalformedImage, Unreadable, Unsupported
from tests.builders.qcow2 import CLUSTER, Qcow2, patched

from .conftest import MIB
from .test_chain import Opened, content, qemu_img, trusted, write

SIZE = 4 * MIB
KINDS = {
    "v3": (),
    "v2": ("-o", "compat=0.10"),
    "small": ("-o", "cluster_size=512"),
    "large": ("-o", "cluster_size=2M"),
    "extended": ("-o", "extended_l2=on"),
}


def with_snapshots(path: Path, *options: str) -> dict[str, bytes]:
    """Three snapshots, the last of a larger disk, and a current state unlike all of them."""
    qemu_img("create", "-q", "-f", "qcow2", *options, path, str(SIZE))
    states = {}
    for number in (1, 2, 3):
        if number == 3 and "compat=0.10" not in options:  # version 2 knows one size only
            qemu_img("resize", "-q", path, "6M")
        write(path, "qcow2", f"write -P {number} {number * 900}k 300k", f"write -z {number}M 64k")
        qemu_img("snapshot", "-c", f"state {number}", path)
        states[f"state {number}"] = trusted(path, "qcow2", "-l", f"snapshot.name=state {number}")
        path.with_suffix(".trusted").unlink()
    write(path, "qcow2", "write -P 99 0 4M")
    return states


@pytest.mark.parametrize("kind", KINDS)
def test_content_is_what_qemu_shows(
    kind: str, tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    path = tmp_path / "disk"
    for name, state in with_snapshots(path, *KINDS[kind]).items():
        for wanted in (name, name[-1]):
            image = opened(path, snapshot=wanted)
            assert image.virtual_size == len(state)
            assert f'shown as of its internal snapshot "{name}"' in image.notes
        assert content(image, run_folder) == state
    current = opened(path)
    assert "there are 3 internal snapshots besides" in current.notes[0]
    assert content(current, run_folder) == trusted(path, "qcow2")
    assert all(file.changes() == [] for file in current.files)


def test_values_agree_with_qemu(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    with_snapshots(path)
    found = opened(path).chain[0].snapshots
    assert [(each.id, each.name) for each in found] == [
        (b"1", b"state 1"),
        (b"2", b"state 2"),
        (b"3", b"state 3"),
    ]
    assert [each.disk_size for each in found] == [SIZE, SIZE, 6 * MIB]
    assert [each.state_size for each in found] == [0, 0, 0]
    assert all(each.created > 1_700_000_000 for each in found)


def test_over_a_backing_file(tmp_path: Path, opened: Opened, run_folder: Path) -> None:
    (tmp_path / "base").write_bytes(random.Random(3).randbytes(SIZE))
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", "qcow2", "-b", tmp_path / "base", "-F", "raw", path)
    write(path, "qcow2", "write -P 1 1M 1M")
    qemu_img("snapshot", "-c", "one", path)
    write(path, "qcow2", "write -P 2 0 4M")
    image = opened(path, snapshot="one")
    assert len(image.chain) == 2
    assert content(image, run_folder) == trusted(path, "qcow2", "-l", "one")


def test_only_of_the_image_that_was_named(tmp_path: Path, opened: Opened, run_folder: Path) -> None:
    """A backing file's snapshots are not its overlay's; the name is not looked for there."""
    below, top = tmp_path / "below", tmp_path / "top"
    with_snapshots(below)
    qemu_img("create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", top)
    write(top, "qcow2", "write -P 3 1M 64k")
    qemu_img("snapshot", "-c", "state 1", top)
    image = opened(top, snapshot="state 1")
    assert [len(link.snapshots) for link in image.chain] == [1, 3]
    assert content(image, run_folder) == trusted(top, "qcow2", "-l", "state 1")
    with pytest.raises(Unreadable, match='no internal snapshot "state 2"'):
        opened(top, snapshot="state 2")


def test_bitmaps_of_the_current_state_do_not_disturb(
    tmp_path: Path, opened: Opened, run_folder: Path
) -> None:
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", "qcow2", path, "4M")
    qemu_img("bitmap", "--add", path, "changes")
    write(path, "qcow2", "write -P 1 1M 1M")
    qemu_img("snapshot", "-c", "one", path)
    qemu_img("bitmap", "--add", path, "later")
    write(path, "qcow2", "write -P 2 2M 1M")
    assert content(opened(path, snapshot="one"), run_folder) == trusted(path, "qcow2", "-l", "one")


def test_names_before_ids(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    for name in ("a", "1", "twice"):
        qemu_img("snapshot", "-c", name, path)
    assert opened(path, snapshot="1").notes[0].endswith('"1"')
    assert opened(path, snapshot="3").notes[0].endswith('"twice"')
    data = bytearray(path.read_bytes())
    data[data.index(b"2" + b"1", 4 * CLUSTER) + 1] = ord("a")
    path.write_bytes(data)
    with pytest.raises(Unreadable, match='2 snapshots named "a"') as failure:
        opened(path, snapshot="a")
    assert "ID" in failure.value.hint


@pytest.mark.parametrize("name", ["", "gone", "STATE 1", "\x1b[31m", "\udcff", "x" * 1000])
def test_names_that_are_not_there(name: str, tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    path.write_bytes(Qcow2().build())
    with pytest.raises(Unreadable, match="no internal snapshot") as failure:
        opened(path, snapshot=name)
    assert str(failure.value).isprintable()


@pytest.mark.parametrize("name", ["vmdk-sparse", "vmdk-flat"])
def test_other_formats_have_none(name: str, variants: dict[str, Path], opened: Opened) -> None:
    with pytest.raises(Unsupported, match="no internal snapshots"):
        opened(variants[name], snapshot="1")


# --- hostile tables -----------------------------------------------------------------------------

ENTRY = struct.Struct(">QIHHIIQII")
DEFAULTS = {
    "l1_offset": 3 * CLUSTER,
    "l1_entries": 1,
    "id": b"1",
    "name": b"evil",
    "id_length": None,
    "name_length": None,
    "extra": struct.pack(">QQ", 0, MIB),
    "extra_length": None,
}
Table = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Writes an image with one snapshot, some fields of which are others."""

    def build(count: int = 1, cut: int = 0, offset: int | None = None, **changes: object) -> Path:
        field = DEFAULTS | changes
        lengths = [
            len(field[name]) if field[f"{name}_length"] is None else field[f"{name}_length"]
            for name in ("id", "name", "extra")
        ]
        entry = ENTRY.pack(
            field["l1_offset"], field["l1_entries"], lengths[0], lengths[1], 0, 0, 0, 0, lengths[2]
        )
        entry += field["extra"] + field["id"] + field["name"]
        # The refcounts do not count it; nobody looks at them when an image is only read.
        data = Qcow2(MIB, clusters={0: b"data"}).build()
        at = len(data) if offset is None else offset
        data = patched(data, {"snapshots": count, "snapshots_offset": at})
        path = tmp_path / "disk"
        whole = data + entry.ljust(4096, b"\0")
        path.write_bytes(whole[: len(whole) - cut])
        return path

    return build


def test_table_of_the_builder_is_right(table: Table, opened: Opened, run_folder: Path) -> None:
    assert content(opened(table(), snapshot="evil"), run_folder).startswith(b"data\0")


TABLES = {
    "cut": {"cut": 4080},
    "more than there are": {"count": 1000, "cut": 4000},
    "most that a header may claim": {"count": 65536},
    "more than a header may claim": {"count": 65537},
    "offset inside the header": {"offset": 8},
    "offset that is no cluster": {"offset": CLUSTER * 6 + 512},
    "offset at the end of the world": {"offset": (1 << 64) - CLUSTER},
    "extra data": {"extra_length": 1025},
    "extra data of 4 GiB": {"extra_length": 0xFFFFFFFF},
    "ID beyond the end": {"id_length": 0xFFFF},
    "name beyond the end": {"name_length": 0xFFFF},
}


@pytest.mark.parametrize("kind", TABLES)
def test_hostile_tables(kind: str, table: Table, opened: Opened) -> None:
    with pytest.raises(MalformedImage):
        opened(table(**TABLES[kind]))


SNAPSHOTS = {
    "size 0": {"extra": struct.pack(">QQ", 0, 0)},
    "size of no sectors": {"extra": struct.pack(">QQ", 0, 513)},
    "size of exabytes": {"extra": struct.pack(">QQ", 0, (1 << 63) - 512)},
    "size beyond all": {"extra": struct.pack(">QQ", 0, (1 << 64) - 512)},
    "size larger than the table": {"extra": struct.pack(">QQ", 0, 1 << 40)},
    "no table": {"l1_entries": 0},
    "table of gigabytes": {"l1_entries": 0xFFFFFFFF},
    "table larger than the file": {"l1_entries": 1 << 20},
    "table in the header": {"l1_offset": 0},
    "table that is no cluster": {"l1_offset": 3 * CLUSTER + 8},
    "table outside": {"l1_offset": 1 << 40},
    "table beyond all": {"l1_offset": (1 << 64) - CLUSTER},
}


@pytest.mark.parametrize("kind", SNAPSHOTS)
def test_hostile_snapshots(kind: str, table: Table, opened: Opened) -> None:
    """Refused when chosen; the current state is not affected."""
    path = table(**SNAPSHOTS[kind])
    assert opened(path).virtual_size == MIB
    with pytest.raises(MalformedImage, match="its snapshot"):
        opened(path, snapshot="evil")


@pytest.mark.parametrize("name", [b"\x1b[31m", b"a\nb", b"\xff\xfe", "\u202e".encode(), b"a\0b"])
def test_hostile_names(name: bytes, table: Table, opened: Opened) -> None:
    path = table(name=name)
    assert all(note.isprintable() for note in opened(path).notes)
    wanted = name.decode("utf-8", "surrogateescape")
    assert all(note.isprintable() for note in opened(path, snapshot=wanted).notes)


def test_short_extra_data(table: Table, opened: Opened) -> None:
    """As QEMU before 1.1 wrote it: the disk has the size of the current state."""
    assert opened(table(extra=b""), snapshot="evil").virtual_size == MIB


def test_largest_table_is_read_once(table: Table, opened: Opened) -> None:
    """65,536 entries of 40 zeros: none has a name, and the table fits into the 8 MiB."""
    path = table()
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 65536 * 40)
    path.write_bytes(patched(path.read_bytes(), {"snapshots": 65536}))
    assert len(opened(path).chain[0].snapshots) == 65536
    with pytest.raises(Unreadable, match="has 65535 snapshots named"):
        opened(path, snapshot="")


def test_header_is_changed_only_where_it_must(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    with_snapshots(path)
    image = opened(path)
    header, snapshot = image.chain[0].details, image.chain[0].snapshots[2]
    first = qcow2_snapshots.seen_by(image.files[0], header, snapshot)
    before = path.read_bytes()[:CLUSTER]
    changed = {index for index in range(CLUSTER) if first[index] != before[index]}
    assert changed <= {*range(24, 32), *range(36, 48), *range(60, 64), *range(88, 96)}
