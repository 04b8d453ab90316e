"""Sends a system in frames that keep to the protocol's limit, whatever its lists hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from appliance.agent.outcome import Outcome
from appliance.layer import MAX_LIST, Severity
from appliance.protocol import MAX_FRAME, SystemPart
from appliance.system import System

_BUDGET = MAX_FRAME // 2
_RUN_BUDGET = 20 << 20
"""Of the bytes that the host takes from one run (controller/agent_client.py)."""
_PER_CHARACTER = 12
"""Bytes of JSON at worst: two escaped surrogates. Of printable ASCII at worst 2."""
_PER_VALUE = 40
"""The name of a field, quotes and commas."""

_MAX_WORD = 1024
_MAX_NAME = 255
_MAX_NAMES = 100

_SURROGATES = re.compile("[\ud800-\udfff]")

_PARTS = [each.name for each in fields(SystemPart)]


class Sender:
    """Sends the systems of one run, as much as the host takes of it."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._left = _RUN_BUDGET

    def send(self, system: System) -> None:
        """Report the system, and then its lists in parts. What is too large is told."""
        self._outcome.report(_head(system))
        for name in _PARTS:
            entries = getattr(system, name)
            sent = 0
            for chunk in self._chunks(entries):
                sent += len(chunk)
                part: dict[str, Any] = {name: chunk}
                self._outcome.report(SystemPart(**part))
            if sent < len(entries):
                message = f"{len(entries) - sent} of the {name} are too large to be shown"
                self._outcome.find(Severity.WARNING, system.root, "system-limit", message)

    def _chunks(self, entries: Sequence[object]) -> Iterator[list[object]]:
        chunk: list[object] = []
        size = 0
        for each in entries:
            if self._left < _PER_VALUE:
                break
            weight = _weight(each)
            if weight > min(_BUDGET, self._left):
                continue
            entry = each if _is_sound(each) else _clean(each)
            self._left -= weight
            if chunk and (size + weight > _BUDGET or len(chunk) >= MAX_LIST):
                yield chunk
                chunk, size = [], 0
            chunk.append(entry)
            size += weight
        if chunk:
            yield chunk


def _head(system: System) -> System:
    """The system without its lists, small enough for a frame whatever its strings are."""
    changes: dict[str, Any] = {name: [] for name in _PARTS}
    for each in fields(System):
        value = getattr(system, each.name)
        if isinstance(value, str):
            changes[each.name] = _sound(value)[:_MAX_WORD]
    changes["kernels"] = [_sound(each)[:_MAX_NAME] for each in system.kernels[:_MAX_NAMES]]
    changes["dns"] = [_sound(each)[:_MAX_NAME] for each in system.dns[:_MAX_NAMES]]
    return replace(system, **changes)


def _clean(value: Any) -> Any:  # noqa: ANN401 - any of the words of appliance.system
    """The same with text that JSON can carry: half a surrogate pair, which Windows' names can
    hold, would be refused by the host."""
    if isinstance(value, str):
        return _sound(value)
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return replace(value, **{each: _clean(getattr(value, each)) for each in _names_of(value)})


def _sound(text: str) -> str:
    if text.isascii():
        return text
    return _SURROGATES.sub("\ufffd", text)


def _is_sound(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii()
    if isinstance(value, list):
        return all(map(_is_sound, value))
    return not is_dataclass(value) or all(_is_sound(getattr(value, e)) for e in _names_of(value))


def _names_of(value: object) -> tuple[str, ...]:
    return type(value).__slots__  # type: ignore[attr-defined, no-any-return]


def _weight(value: object) -> int:
    """At least the bytes of its JSON."""
    if isinstance(value, str):
        is_plain = value.isascii() and value.isprintable()
        return _PER_VALUE + (2 if is_plain else _PER_CHARACTER) * len(value)
    if isinstance(value, list):
        return _PER_VALUE + sum(map(_weight, value))
    if is_dataclass(value):
        return _PER_VALUE + sum(_weight(getattr(value, each)) for each in _names_of(value))
    return _PER_VALUE
