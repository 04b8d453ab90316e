"""Which keyslots can be tried in a guest with so much memory, and what the others need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.agent.memory import IMPOSSIBLE, MIB, Derivations, available
from appliance.layer import MAX_BYTES, Keyslot

TOTAL, FREE = 464 * MIB, 390 * MIB
"""What a guest with 512 MiB says of itself (measured)."""


def slot(number: int, memory: int | None) -> Keyslot:
    return Keyslot(number, "argon2id" if memory else "pbkdf2-sha256", 4, memory)


def test_each_keyslot_by_what_it_needs() -> None:
    slots = [slot(0, None), slot(1, 300 * MIB), slot(2, 600 * MIB), slot(3, 1 << 42)]
    found = Derivations.within(slots, TOTAL, FREE)
    assert [each.number for each in found.possible] == [0, 1]
    assert [each.number for each in found.too_large] == [2]
    assert [each.number for each in found.impossible] == [3]
    assert found.guest == 1024


def test_default_of_cryptsetup_is_1_gib() -> None:
    assert Derivations.within([slot(0, 1 << 30)], TOTAL, FREE).guest == 1536


def test_everything_fits() -> None:
    found = Derivations.within([slot(0, None), slot(1, 32 * MIB)], TOTAL, FREE)
    assert (found.too_large, found.impossible, found.guest) == ([], [], 0)


@given(st.lists(st.one_of(st.none(), st.integers(0, MAX_BYTES)), max_size=32))
def test_nothing_is_tried_that_does_not_fit(memories: list[int | None]) -> None:
    slots = [slot(number, memory) for number, memory in enumerate(memories)]
    found = Derivations.within(slots, TOTAL, FREE)
    assert sorted(
        each.number for each in [*found.possible, *found.too_large, *found.impossible]
    ) == list(range(len(slots)))
    assert all((each.memory or 0) < FREE for each in found.possible)
    assert all((each.memory or 0) <= IMPOSSIBLE for each in found.too_large)
    assert found.guest <= 5120
    if found.too_large:
        # The guest that is asked for can do all of it: a kernel keeps less than 100 MiB and 2 %.
        total = found.guest * MIB * 98 // 100 - 48 * MIB
        again = Derivations.within(found.too_large, total, total - (TOTAL - FREE))
        assert not again.too_large


def test_this_machine_has_memory() -> None:
    assert available() > MIB
