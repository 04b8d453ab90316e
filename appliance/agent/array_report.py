"""What is told of an array besides its facts: what it lacks, and what may be wrong with it."""

from __future__ import annotations

from appliance.agent.outcome import Outcome
from appliance.layer import ArrayFacts, ArrayMember, Kind, Layer, Severity, Status

_PARITY = {"raid4", "raid5", "raid6"}
_MAX_NAMED = 8


def report_health(address: str, facts: ArrayFacts, outcome: Outcome) -> None:
    """Findings about an array that is read."""
    if facts.missing:
        message = (
            f"{facts.missing} of its {facts.devices} devices are not there or of no use (slots "
            f"{_slots(facts)}); it is read from the others"
        )
        if facts.state == "dirty" and facts.level in _PARITY:
            message += (
                "; it was not stopped cleanly either, so what is made from parity can be wrong"
            )
        outcome.find(Severity.WARNING, address, "degraded", message)
    elif facts.state == "dirty":
        message = "it was not stopped cleanly: its copies or its parity may not agree yet"
        outcome.find(Severity.INFO, address, "array-dirty", message)
    _report_members(address, facts, outcome)


def report_failed(
    address: str, facts: ArrayFacts, size: int, why: str | None, outcome: Outcome
) -> None:
    """An array that cannot be read is shown all the same; `why` is None where the host says it."""
    parents = [member.layer for member in facts.members if member.layer]
    outcome.add(Layer(address, Kind.ARRAY, parents, None, size, Status.DAMAGED, array=facts))
    if why is not None:
        lack = f"{facts.missing} of its {facts.devices} devices are not there or of no use"
        lack += f" (slots {_slots(facts)}); give the other images of this system with --add"
        message = f"{facts.level} that could not be put together: "
        message += f"{lack}; {why}" if facts.missing else why
        outcome.find(Severity.ERROR, address, "not-activated", message)
    _report_members(address, facts, outcome)


def _report_members(address: str, facts: ArrayFacts, outcome: Outcome) -> None:
    newest = max((member.events or 0 for member in facts.members), default=0)
    for member in facts.members:
        if member.layer and (text := _problem(member, newest)):
            outcome.find(Severity.WARNING, member.layer, "left-out", f"{text} ({address})")
    if facts.reshape_at is not None:
        message = f"it is being reshaped, and {facts.reshape_at} bytes of it are done"
        outcome.find(Severity.WARNING, address, "reshape", message)
    if facts.bad_blocks:
        message = (
            f"its members list {facts.bad_blocks} ranges of bad blocks, which are read from "
            "elsewhere if that is possible"
        )
        outcome.find(Severity.WARNING, address, "bad-blocks", message)


def _problem(member: ArrayMember, newest: int) -> str | None:
    if member.state == "stale":
        return (
            f"a member with older data (event {member.events} of {newest}), which the array does "
            "not use"
        )
    if member.state == "faulty":
        return "a member that the array had given up, and does not use"
    return None


def _slots(facts: ArrayFacts) -> str:
    filled = {m.slot for m in facts.members if m.state in {"active", "rebuilding"}}
    empty = [str(slot) for slot in range(facts.devices) if slot not in filled]
    rest = len(empty) - _MAX_NAMED
    return ", ".join(empty[:_MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
