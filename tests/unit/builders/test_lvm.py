"""The written LVM2 groups, judged by programs that know nothing of the builder.

`pvck` (LVM's own) checks the structures on plain files; `grub-fstest` maps the volumes and reads
files in them, with GRUB's own LVM and ext4 readers. Both are required: a missing one must fail.
"""

import random
from pathlib import Path

import pytest

from tests.builders.command import ToolError, run
from tests.builders.ext4 import Entry, make_ext4
from tests.builders.lvm import PhysicalVolume, Segment, Volume, make_group

MIB = 1024 * 1024
UUID = "11111111-2222-4333-8444-555555555555"
LARGE = random.Random(1).randbytes(5 * MIB + 77)


def read_with_grub(disks: list[Path], path: str, expected: bytes, folder: Path) -> bool:
    """Whether GRUB finds exactly these bytes in a file; it prints only differences."""
    reference = folder / "reference"
    reference.write_bytes(expected)
    output = run("grub-fstest", "-c", str(len(disks)), *disks, "cmp", path, reference)
    return output == b""


@pytest.fixture
def ext4(tmp_path: Path) -> Path:
    """A file system of 16 MiB with one large file."""
    return make_ext4(tmp_path / "ext4", 16 * MIB, "test", UUID, [Entry("large", LARGE)])


def make_pvs(folder: Path, *sizes: int) -> list[PhysicalVolume]:
    return [PhysicalVolume(folder / f"pv{i}", size * MIB) for i, size in enumerate(sizes)]


def test_pvck_accepts_headers(tmp_path: Path) -> None:
    pvs = make_pvs(tmp_path, 17, 9)
    make_group("lvg1", pvs, [Volume("lvroot", 12 * MIB)])
    for pv in pvs:
        headers = run("pvck", "--dump", "headers", pv.path).decode()
        assert "label_header.type LVM2 001" in headers
        assert f"pv_header.device_size {pv.size}\n" in headers
        assert "disk_locn[0].offset 1048576\n" in headers
        assert "# vgname lvg1 seqno 1\n" in headers
        assert "mda_header_1.size 1044480\n" in headers
        assert "CHECK" not in headers


def test_pvck_finds_the_same_text_on_every_volume(tmp_path: Path) -> None:
    pvs = make_pvs(tmp_path, 17, 9)
    text = make_group("lvg1", pvs, [Volume("lvroot", 12 * MIB)])
    for pv in pvs:
        dump = run("pvck", "--dump", "metadata", pv.path).decode()
        assert dump.split("  ---\n")[1].strip() == text.strip()


def test_pvck_notices_damage(tmp_path: Path) -> None:
    """The check above means something only if pvck complains about a wrong checksum."""
    (pv,) = make_pvs(tmp_path, 9)
    make_group("lvg1", [pv], [])
    with pv.path.open("r+b") as file:
        file.seek(4608 + 20)
        file.write(b"#")
    with pytest.raises(ToolError, match="crc does not match"):
        run("pvck", "--dump", "headers", pv.path)


@pytest.mark.parametrize("stripes", [1, 2, 3])
def test_volumes_hold_their_images(tmp_path: Path, ext4: Path, stripes: int) -> None:
    """A linear volume that runs over three physical volumes, and striped ones."""
    pvs = make_pvs(tmp_path, 9, 10, 12)
    volume = Volume("data", 16 * MIB, ext4, stripes=stripes)
    make_group("lvg1", pvs, [volume], extent_size=MIB)
    assert read_with_grub([pv.path for pv in pvs], "(lvm/lvg1-data)/large", LARGE, tmp_path)


def test_several_volumes_with_given_segments(tmp_path: Path, ext4: Path) -> None:
    pvs = make_pvs(tmp_path, 41, 41)
    linear = (Segment(10, ((1, 3),)), Segment(6, ((0, 30),)))
    striped = (Segment(16, ((0, 0), (1, 20)), 16 * 1024),)
    volumes = [
        Volume("linear", image=ext4, segments=linear),
        Volume("striped", image=ext4, segments=striped),
    ]
    make_group("lvg1", pvs, volumes, extent_size=MIB)
    disks = [pv.path for pv in pvs]
    for name in ("linear", "striped"):
        assert read_with_grub(disks, f"(lvm/lvg1-{name})/large", LARGE, tmp_path)


def test_uuids_are_given_or_stable(tmp_path: Path) -> None:
    pvs = [PhysicalVolume(tmp_path / "pv", 9 * MIB, "AAAAAA-1111-2222-3333-4444-5555-BBBBBB")]
    volumes = [Volume("one", 4 * MIB, uuid="CCCCCC-1111-2222-3333-4444-5555-DDDDDD")]
    text = make_group("lvg1", pvs, volumes)
    again = make_group("lvg1", pvs, volumes)
    assert text == again
    assert 'id = "AAAAAA-1111-2222-3333-4444-5555-BBBBBB"' in text
    assert 'id = "CCCCCC-1111-2222-3333-4444-5555-DDDDDD"' in text


def test_raw_segments_are_kept(tmp_path: Path) -> None:
    segment = (
        'segment1 {\nstart_extent = 0\nextent_count = 1\ntype = "zero"\n}',
        'segment2 {\nstart_extent = 1\nextent_count = 1\ntype = "error"\n}',
    )
    pvs = make_pvs(tmp_path, 9)
    make_group("lvg1", pvs, [Volume("odd", raw_segments=segment)])
    dump = run("pvck", "--dump", "metadata", pvs[0].path).decode()
    assert "segment_count = 2" in dump
    assert 'type = "zero"' in dump
    assert 'type = "error"' in dump


def test_refuses_what_does_not_fit(tmp_path: Path, ext4: Path) -> None:
    with pytest.raises(ValueError, match="no room for big"):
        make_group("lvg1", make_pvs(tmp_path, 9, 9), [Volume("big", 20 * MIB)])
    with pytest.raises(ValueError, match="no room for wide"):
        make_group("lvg1", make_pvs(tmp_path, 9), [Volume("wide", MIB, stripes=2)])
    with pytest.raises(ValueError, match="does not fit into small"):
        make_group("lvg1", make_pvs(tmp_path, 17), [Volume("small", 8 * MIB, ext4)])
    beyond = Volume("far", segments=(Segment(2, ((0, 1),)),))
    with pytest.raises(ValueError, match="beyond physical volume 0"):
        make_group("lvg1", make_pvs(tmp_path, 9), [beyond])
