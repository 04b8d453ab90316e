"""The graph of layers as trees to be drawn: every layer once, under its first parent."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from appliance.layer import Kind, Layer

MAX_GUIDES = 12
"""Levels that are drawn; a deeper layer says its depth as a number."""


@dataclass(frozen=True, slots=True)
class Guides:
    """What lines between layers are drawn with."""

    branch: str
    last: str
    line: str
    blank: str


UNICODE = Guides("├─ ", "└─ ", "│  ", "   ")
ASCII = Guides("|- ", "`- ", "|  ", "   ")


@dataclass(frozen=True, slots=True)
class Branch:
    """A layer at its place. `last` says for each of the levels above the layer and its own, at
    most MAX_GUIDES, whether nothing follows on that level."""

    layer: Layer
    depth: int
    last: tuple[bool, ...]
    has_children: bool

    def before(self, guides: Guides) -> str:
        """What stands before the layer's address."""
        if not self.last:
            return ""
        return self._levels(guides) + (guides.last if self.last[-1] else guides.branch)

    def below(self, guides: Guides) -> str:
        """What stands before further lines about the layer."""
        own = guides.line if self.has_children else guides.blank
        if not self.last:
            return own
        return self._levels(guides) + (guides.blank if self.last[-1] else guides.line) + own

    def _levels(self, guides: Guides) -> str:
        levels = [guides.blank if last else guides.line for last in self.last[:-1]]
        hidden = self.depth - len(self.last)
        return (f"[{hidden}] " if hidden else "") + "".join(levels)


def arrange(layers: list[Layer]) -> list[list[Branch]]:
    """One list for each layer that has no parent, itself first, what is in it in order of offset.

    Nothing is left out and nothing comes twice, whatever the parents say.
    """
    known = {layer.address for layer in layers}
    children: dict[str, list[int]] = defaultdict(list)
    roots: list[int] = []
    for index, layer in enumerate(layers):
        parent = layer.parents[0] if layer.parents else None
        if parent is None or parent not in known or parent == layer.address:
            roots.append(index)
        else:
            children[parent].append(index)
    for indexes in children.values():
        indexes.sort(key=lambda index: _order(layers[index]))
    done: set[int] = set()
    # Parents in a circle have no root: what was not reached from one starts a tree itself.
    starts = [*roots, *range(len(layers))]
    return [_walk(start, layers, children, done) for start in starts if start not in done]


def _order(layer: Layer) -> tuple[bool, int, bool]:
    return layer.offset is None, layer.offset or 0, layer.kind is Kind.GAP


def _walk(
    start: int, layers: list[Layer], children: dict[str, list[int]], done: set[int]
) -> list[Branch]:
    found: list[Branch] = []
    waiting: list[tuple[int, int, tuple[bool, ...]]] = [(start, 0, ())]
    done.add(start)
    while waiting:
        index, depth, last = waiting.pop()
        layer = layers[index]
        below = [each for each in children.get(layer.address, []) if each not in done]
        done.update(below)
        found.append(Branch(layer, depth, last, bool(below)))
        waiting.extend(
            (each, depth + 1, (*last, each == below[-1])[-MAX_GUIDES:]) for each in reversed(below)
        )
    return found
