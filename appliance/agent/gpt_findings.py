"""What is to be said about a volume's GPT: damage, copies that differ, copies out of place."""

from __future__ import annotations

from appliance.agent.gpt import Copy, Gpt
from appliance.layer import Finding, Severity

_LISTED = 32
"""Partitions that a message names; what follows is counted."""


def findings(volume_address: str, gpt: Gpt, shown: Copy | None) -> list[Finding]:
    """Everything about a GPT that is the volume's table, or should be.

    `shown` is the copy whose partitions are reported, None where that cannot be told.
    """
    found = [*_sector_size(gpt), *_damage(gpt, shown), *_place(gpt), *_difference(gpt, shown)]
    found += [*_oddities(gpt), *_outside(gpt)]
    return [Finding(severity, volume_address, code, text) for severity, code, text in found]


_Found = list[tuple[Severity, str, str]]


def _sector_size(gpt: Gpt) -> _Found:
    other = gpt.other_sector
    if other is None:
        return []
    if gpt.best:
        text = f"there is a GPT for sectors of {other} bytes too, besides the one for {gpt.sector}"
        return [(Severity.WARNING, "gpt-twice", f"{text}; see it with --sector-size {other}")]
    text = (
        f"the GPT here was made for sectors of {other} bytes, and the disk is shown with sectors "
        f"of {gpt.sector}; inspect it with --sector-size {other}"
    )
    return [(Severity.ERROR, "sector-size", text)]


def _damage(gpt: Gpt, shown: Copy | None) -> _Found:
    primary, backup = gpt.primary, gpt.backup
    if not gpt.is_present or (primary.is_good and backup.is_good):
        return []
    if backup.is_good:
        text = f"the first copy of the GPT is damaged ({_words(primary)}); "
        text += f"the second one, in sector {backup.lba}, is good"
        text += " and was used" if shown is backup else ""
        return [(Severity.ERROR, "gpt-primary-damaged", text)]
    if primary.is_good:
        if backup.lba >= gpt.sectors:
            return []  # said by _place
        text = f"the second copy of the GPT is damaged ({_words(backup)}); the first one is good"
        return [(Severity.WARNING, "gpt-backup-damaged", text)]
    if gpt.other_sector:
        return []
    text = f"both copies of the GPT are damaged: of the first one {_words(primary)}; of the second"
    return [(Severity.ERROR, "gpt-damaged", f"{text} one {_words(backup)}")]


def _words(copy: Copy) -> str:
    return ", ".join(copy.problems)


def _place(gpt: Gpt) -> _Found:
    header, last = gpt.primary.header, gpt.sectors - 1
    if not gpt.primary.is_good or header is None or header.alternate == last:
        return []
    if header.alternate > last:
        text = (
            f"the second copy of the GPT belongs in sector {header.alternate}, but the disk ends "
            f"with sector {last}: the end of the disk is missing"
        )
    else:
        text = (
            f"the second copy of the GPT is in sector {header.alternate} and not in the last one, "
            f"{last}: the disk was larger or smaller when the GPT was made"
        )
    if gpt.stray:
        text += "; the last sector has a header too, which the first copy does not name"
    return [(Severity.WARNING, "gpt-backup-misplaced", text)]


def _difference(gpt: Gpt, shown: Copy | None) -> _Found:
    what = []
    if gpt.differing:
        what.append(f"in the partitions {_numbers(gpt.differing)}")
    if gpt.disk_uuids_differ:
        what.append("in the disk's GUID")
    if not what:
        return []
    text = f"both copies of the GPT are good, but they differ {' and '.join(what)}"
    if shown is not None:
        text += f"; the {'first' if shown is gpt.primary else 'second'} one is shown"
    return [(Severity.ERROR, "gpt-copies-differ", text)]


def _oddities(gpt: Gpt) -> _Found:
    return [
        (Severity.WARNING, "gpt-odd", f"the {name} copy of the GPT is odd: {remark}")
        for name, copy in (("first", gpt.primary), ("second", gpt.backup))
        for remark in copy.remarks
    ]


def _outside(gpt: Gpt) -> _Found:
    """libblkid and Linux leave such entries out, so that one could hide there."""
    best = gpt.best
    if best is None or best.header is None:
        return []
    first, last = best.header.first_usable, best.header.last_usable
    numbers = [
        number
        for number, entry in best.entries.items()
        if entry.first <= entry.last and (entry.first < first or entry.last > last)
    ]
    if not numbers:
        return []
    text = f"outside of the sectors that the GPT keeps for partitions, {first} to {last}: "
    return [(Severity.WARNING, "gpt-outside-usable", f"{text}partitions {_numbers(numbers)}")]


def _numbers(numbers: list[int]) -> str:
    listed = ", ".join(map(str, numbers[:_LISTED]))
    return listed + (f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else "")
