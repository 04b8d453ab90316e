"""What looks random, and what does not."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

from appliance.agent.entropy import looks_random

SAMPLE = 64 << 10

CODE = b"".join(path.read_bytes() for path in sorted(Path("appliance").rglob("*.py")))


def test_random_bytes() -> None:
    for seed in range(20):
        assert looks_random(random.Random(seed).randbytes(SAMPLE))


def test_other_bytes() -> None:
    assert len(CODE) > SAMPLE
    for data in (bytes(SAMPLE), CODE[:SAMPLE], b"\x00\xff" * (SAMPLE // 2)):
        assert not looks_random(data)


def test_too_few_bytes_say_nothing() -> None:
    assert not looks_random(random.Random(1).randbytes(4096))
    assert not looks_random(b"")


def test_half_of_it_is_not_enough() -> None:
    half = random.Random(2).randbytes(SAMPLE // 2)
    assert not looks_random(half + zlib.compress(bytes(SAMPLE)).ljust(SAMPLE // 2, b"\0"))
