"""How much memory the next guest gets, whatever the one before it says that it needs."""

from __future__ import annotations

import pytest

from controller.growth import available, next_memory, why_not
from controller.settings import MAX_MEMORY, Settings


@pytest.mark.parametrize(
    ("wanted", "free", "memory"),
    [
        (0, 8000, None),
        (512, 8000, None),
        (1536, 8000, 1536),
        (1536, 1792, 1536),
        (1536, 1791, None),
        (MAX_MEMORY, MAX_MEMORY + 256, MAX_MEMORY),
        (MAX_MEMORY + 1, 1 << 40, None),
        (2**63 - 1, 1 << 40, None),
    ],
)
def test_next_guest(wanted: int, free: int, memory: int | None) -> None:
    assert next_memory(wanted, Settings(), free) == memory
    told = bool(why_not(wanted, Settings(), free))
    assert told == (memory is None and wanted > 512)


def test_what_the_user_has_said_counts() -> None:
    settings = Settings(memory=512, memory_is_fixed=True)
    assert next_memory(1536, settings, 8000) is None
    assert why_not(1536, settings, 8000) == []


def test_this_host_has_memory() -> None:
    assert available() > 0
