"""What is written on members of arrays: parsers never fail but by their own errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.agent import btrfs_device, ddf, imsm, ldm_database, md_superblock
from appliance.agent.array_names import Wish, choose, numbered
from appliance.agent.blkid import Entry, PartitionTable
from appliance.agent.device import Device
from appliance.agent.firmware_array import FirmwareError
from appliance.agent.ldm_records import LdmError, Records
from appliance.agent.md_superblock import BadSuperblock
from appliance.agent.outcome import Outcome
from appliance.agent.volume import Volume
from appliance.layer import Kind, Layer, Status
from tests.builders.disk import MIB, SECTOR
from tests.builders.ldm import GROUP, SPANNED, Extent, Plan, make_dynamic_disks

SIZE = 64 * 1024


def volume(path: Path) -> Volume:
    fd = os.open(path, os.O_RDONLY)
    size = path.stat().st_size
    return Volume("disk0", Kind.DISK, [], None, size, Device(str(path), fd, size, 512), 0, None)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metadata") / "volume"


def filled(path: Path, parts: dict[int, bytes]) -> Volume:
    """A volume with these bytes at these places; negative ones count from its end."""
    data = bytearray(SIZE)
    for place, part in parts.items():
        at = place if place >= 0 else SIZE + place
        data[at : at + len(part)] = part
    path.write_bytes(data[:SIZE])
    return volume(path)


KINDS = [0x51, 0x32, 0x33, 0x34, 0x44, 0x35, 0x45, 0x77, 0]
RANDOM = st.binary(min_size=512, max_size=2048)


@settings(max_examples=60, deadline=None)
@given(RANDOM)
def test_md_of_random_bytes(scratch: Path, data: bytes) -> None:
    head = bytes.fromhex("fc4e2ba9") + b"\1\0\0\0"
    for place in (0, 4096):
        block = bytearray(head + data)
        block[144:152] = (place // 512).to_bytes(8, "little")
        found = filled(scratch, {place: bytes(block)})
        with pytest.raises(BadSuperblock):
            md_superblock.read(found)
        found.device.close()


@settings(max_examples=60, deadline=None)
@given(RANDOM, st.integers(216, 2048))
def test_imsm_of_random_bytes(scratch: Path, data: bytes, size: int) -> None:
    """With a checksum that fits, so that what follows is looked at."""
    size &= ~3
    whole = bytearray(
        (b"Intel Raid ISM Cfg Sig. 1.3.00".ljust(32, b"\0") + data).ljust(4096, b"\0")
    )
    whole[32:40] = bytes(4) + size.to_bytes(4, "little")
    words = [int.from_bytes(whole[at : at + 4], "little") for at in range(0, size, 4)]
    whole[32:36] = (sum(words) & 0xFFFFFFFF).to_bytes(4, "little")
    rest = (size + 511) // 512 * 512 - 512
    parts = {-1024: bytes(whole[:512]), -1024 - rest: bytes(whole[512 : 512 + rest])}
    found = filled(scratch, parts)
    try:
        imsm.read(found)
    except FirmwareError:
        pass
    finally:
        found.device.close()


@settings(max_examples=60, deadline=None)
@given(RANDOM)
def test_ddf_and_btrfs_of_random_bytes(scratch: Path, data: bytes) -> None:
    found = filled(scratch, {-512: bytes.fromhex("de11de11") + data[:508]})
    with pytest.raises(FirmwareError):
        ddf.read(found)
    assert btrfs_device.read(found) is None
    found.device.close()


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([0x51, 0x32, 0x33, 0x34, 0x44, 0x35, 0x45, 0x77, 0]), st.binary(max_size=200)
)
def test_ldm_records_of_random_bytes(kind: int, data: bytes) -> None:
    records = Records()
    try:
        records.add(b"\0\0\xff" + bytes([kind]) + b"\0\0\0\0" + data)
    except LdmError:
        return
    assert len(records.volumes + records.components + records.extents + records.disks) <= 1


def test_ldm_database_of_a_whole_disk(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(bytes(SECTOR))
    plan = Plan("Volume1", SPANNED, [[Extent(1, 65, 2048)]], tmp_path / "content")
    disk = volume(make_dynamic_disks(tmp_path, [plan])[0])
    entry = Entry(1, 63 * 512, MIB, "0x42", None, None, 0, False, False, "dos")
    header = ldm_database.read_header(disk, PartitionTable("dos", None, [entry]))
    database = ldm_database.read_database(disk, header)
    assert (header.group_guid, header.data_start) == (GROUP, 63 * 512)
    assert [each.name for each in database.records.volumes] == ["Volume1"]
    assert [(e.start, e.size) for e in database.records.extents] == [(65, 2048)]
    disk.device.close()


def test_names_of_arrays() -> None:
    assert numbered("host:0") == "md0"
    assert numbered("5") == "md5"
    assert numbered("", 7) == "md7"
    for name in ("host:data", "host:007", "host:99999", "a0"):
        assert numbered(name, 3) is None
    outcome = Outcome(lambda _: None)
    outcome.add(Layer("md126", Kind.ARRAY, [], None, 0, Status.MAPPED))
    wishes = [Wish("md127", "disk0"), Wish(None, "disk1"), Wish("md1", "disk2/p1"),
              Wish("md1", "disk3/p1"), Wish(None, "disk4")]  # fmt: skip
    assert choose(wishes, outcome) == [
        "md127", "md125", "md1@disk2.p1", "md1@disk3.p1", "md124"
    ]  # fmt: skip
