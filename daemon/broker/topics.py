"""Topics, filters, and which filters match a topic."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Holder = TypeVar("Holder", bound=Hashable)


def is_topic(topic: str) -> bool:
    """Return whether a message may have the topic."""
    return bool(topic) and "+" not in topic and "#" not in topic


def is_filter(text: str) -> bool:
    """Return whether a filter is valid: `+` is a level of its own, and `#` the last one."""
    levels = text.split("/")
    has_wildcards_alone = all(level in ("+", "#") or not ("+" in level or "#" in level) for level in levels)
    return bool(text) and has_wildcards_alone and "#" not in levels[:-1]


class _Node(Generic[Holder]):
    """A level of filters: the levels that follow it, and who holds the filter that ends here, with which QoS."""

    __slots__ = ("holders", "next")

    def __init__(self) -> None:
        self.next: dict[str, _Node[Holder]] = {}
        self.holders: dict[Holder, int] = {}


class Subscriptions(Generic[Holder]):
    """Filters and who holds them, as a tree of levels: the time for a topic hardly grows with the number of filters."""

    def __init__(self) -> None:
        self._root: _Node[Holder] = _Node()

    def add(self, text: str, holder: Holder, qos: int) -> None:
        """Add a filter of a holder, or change its QoS."""
        node = self._root
        for level in text.split("/"):
            node = node.next.setdefault(level, _Node())
        node.holders[holder] = qos

    def remove(self, text: str, holder: Holder) -> None:
        """Remove a filter of a holder, which has it."""
        way = [self._root]
        levels = text.split("/")
        for level in levels:
            way.append(way[-1].next[level])
        del way[-1].holders[holder]
        for node, level in zip(reversed(way[:-1]), reversed(levels), strict=True):
            below = node.next[level]
            if below.holders or below.next:
                break
            del node.next[level]

    def matching(self, topic: str) -> tuple[dict[Holder, int], int]:
        """Return the holders of filters that match a topic, each with its highest QoS, and how much was looked at."""
        found: dict[Holder, int] = {}
        nodes, looked = [self._root], 0
        for index, level in enumerate(topic.split("/")):
            # Wildcards do not match a first level with $.
            wild = index > 0 or not level.startswith("$")
            names = (level, "+") if wild else (level,)
            if wild:
                _collect(found, nodes, "#")
            nodes = [node.next[name] for node in nodes for name in names if name in node.next]
            looked += len(nodes)
        _collect(found, nodes, "#")
        for node in nodes:
            _raise(found, node.holders)
        return found, looked + len(found)


def selected(text: str, topics: Iterable[str]) -> list[str]:
    """Return the topics that a valid filter matches."""
    levels = text.split("/")
    is_open = levels[-1] == "#"
    levels = levels[:-1] if is_open else levels
    is_wild = levels[:1] in ([], ["+"])
    found = []
    for topic in topics:
        parts = topic.split("/")
        fits = len(parts) >= len(levels) if is_open else len(parts) == len(levels)
        if not fits or (is_wild and topic.startswith("$")):
            continue
        if all(level in ("+", part) for level, part in zip(levels, parts, strict=False)):
            found.append(topic)
    return found


def _collect(found: dict[Holder, int], nodes: Iterable[_Node[Holder]], level: str) -> None:
    for node in nodes:
        below = node.next.get(level)
        if below is not None:
            _raise(found, below.holders)


def _raise(found: dict[Holder, int], holders: dict[Holder, int]) -> None:
    for holder, qos in holders.items():
        found[holder] = max(qos, found.get(holder, 0))
