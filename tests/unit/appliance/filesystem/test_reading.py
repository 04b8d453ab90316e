"""The limits of the bounded reader, and the counting of bits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.agent.filesystem.account import account
from appliance.agent.filesystem.reading import (
    MAX_MAP,
    MAX_READ,
    MAX_READS,
    MAX_TOTAL,
    BadSuperblock,
    Block,
    Volume,
    count_set_bits,
    power_of_two,
    shifted,
)


def endless(size: int) -> Volume:
    return Volume(lambda _offset, length: bytes(length), size)


@given(st.binary(max_size=64), st.integers(0, 600))
def test_set_bits(untrusted, bits):
    one_by_one = sum(
        untrusted[index // 8] >> index % 8 & 1 for index in range(min(bits, len(untrusted) * 8))
    )
    assert count_set_bits(untrusted, bits) == one_by_one


def test_set_bits_over_several_reads():
    data = b"\x81" * (2 * MAX_READ + 10)
    volume = Volume(lambda offset, length: data[offset : offset + length], len(data))
    assert volume.set_bits(0, len(data) * 8) == 2 * len(data)
    assert volume.set_bits(1, 2 * MAX_READ * 8 + 9) == 2 * (2 * MAX_READ + 1) + 1


@pytest.mark.parametrize(
    ("offset", "length"), [(-1, 1), (0, -1), (100, 1), (99, 2), (0, MAX_READ + 1), (2**70, 1)]
)
def test_outside(offset, length):
    with pytest.raises(BadSuperblock):
        endless(100).bytes_at(offset, length)


def test_too_many_reads():
    volume = endless(100)
    for _ in range(MAX_READS):
        volume.bytes_at(0, 1)
    with pytest.raises(BadSuperblock):
        volume.bytes_at(0, 1)


def test_too_many_bytes():
    volume = endless(MAX_READ)
    for _ in range(MAX_TOTAL // MAX_READ):
        volume.bytes_at(0, MAX_READ)
    with pytest.raises(BadSuperblock):
        volume.bytes_at(0, 1)


def test_too_large_a_bitmap():
    with pytest.raises(BadSuperblock):
        endless(2**60).set_bits(0, MAX_MAP * 8 + 1)


def test_fields():
    block = Block(bytes(range(1, 9)), "big")
    assert (block.u8(0), block.u16(0), block.u32(4)) == (1, 0x0102, 0x05060708)
    assert Block(bytes(range(1, 9)), "little").u64(0) == 0x0807060504030201
    for offset in (-1, 5, 8):
        with pytest.raises(BadSuperblock):
            block.u32(offset)


def test_sizes():
    assert power_of_two(4096, 512, 65536, "the block size") == 4096
    assert shifted(12, 9, 16, "the block size") == 4096
    for value in (0, 3, 256, 131072):
        with pytest.raises(BadSuperblock):
            power_of_two(value, 512, 65536, "the block size")
    for value in (8, 17, 2**32):
        with pytest.raises(BadSuperblock):
            shifted(value, 9, 16, "the block size")


def test_account():
    usage = account(endless(100), block_size=10, size=2**63, free=1)
    assert (usage.size, usage.used, usage.free) == (None, None, None)
    assert [problem.code for problem in usage.problems] == ["size-out-of-range"]
    usage = account(endless(2**63 - 1), block_size=10, size=2**63 - 1, free=0)
    assert (usage.used, usage.problems) == (2**63 - 1, ())
    usage = account(endless(100), block_size=10, size=101, free=102)
    assert [problem.code for problem in usage.problems] == ["size-exceeds-volume", "usage-unknown"]
