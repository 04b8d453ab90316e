"""What arrays are called: by their number or name on disk, or counted down from md127.

mdadm(8) does the same for arrays of other hosts, so an examiner finds a familiar name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.agent.outcome import Outcome

_FIRST = 127
_NUMBER = re.compile(r"(?:.*:)?(0|[1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Wish:
    """What an array would be called, None where nothing on disk says so, and its first member."""

    name: str | None
    member: str


def numbered(name: str, preferred: int | None = None) -> str | None:
    """`md0` from a name such as "host:0", or from the number that metadata 0.90 has."""
    if found := _NUMBER.fullmatch(name):
        return f"md{found[1]}"
    return f"md{preferred}" if preferred is not None and preferred < 10000 and not name else None


def choose(wishes: Sequence[Wish], outcome: Outcome) -> list[str]:
    """An address for each; those that want the same are told apart by their first members."""
    wanted = [wish.name for wish in wishes]
    free = (f"md{number}" for number in range(_FIRST, -1, -1))
    chosen: list[str] = []
    for wish in wishes:
        name = wish.name
        if name is None:
            taken = {*wanted, *chosen}
            name = next(
                (each for each in free if each not in taken and not outcome.has(each)), "md"
            )
        if wanted.count(name) > 1 or outcome.has(name) or name in chosen:
            name = f"{name}@{wish.member.replace('/', '.')}"
        chosen.append(name)
    return chosen
