"""Which filters match which topics."""

from __future__ import annotations

import itertools
import random

import pytest

from visaged.daemon.broker.limits import Limits
from visaged.daemon.broker.topics import Subscriptions, is_filter, is_topic, selected


@pytest.mark.parametrize(
    ("text", "topic", "is_match"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a", False),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("a/+", "a/b/c", False),
        ("+", "a", True),
        ("+", "/a", False),
        ("+/+", "/a", True),
        ("/+", "/a", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("a/+/c", "a/b/c", True),
        ("+/b/#", "a/b", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("+/#", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
        ("$SYS/+", "$SYS/a", True),
        ("a/#", "a/$b", True),
        ("a/+", "a/$b", True),
        ("A", "a", False),
    ],
)
def test_matching(text: str, topic: str, is_match: bool) -> None:
    tree: Subscriptions[str] = Subscriptions()
    tree.add(text, "me", 1)
    assert tree.matching(topic)[0] == ({"me": 1} if is_match else {})
    assert selected(text, [topic]) == ([topic] if is_match else [])


def test_both_ways_of_matching_agree() -> None:
    levels = ["a", "b", "", "$c", "+"]
    filters = ["/".join(parts) for n in (1, 2, 3) for parts in itertools.product(levels, repeat=n)]
    filters = [*filter(None, filters), "#", *(f"{text}/#" for text in filters)]
    topics = [text for text in filters if is_topic(text)]
    tree: Subscriptions[str] = Subscriptions()
    for text in filters:
        tree.add(text, text, 0)
    found = {(text, topic) for topic in topics for text in tree.matching(topic)[0]}
    assert found == {(text, topic) for text in filters for topic in selected(text, topics)}
    random.Random(1).shuffle(filters)
    for text in filters:
        tree.remove(text, text)
    assert not tree._root.next


def test_the_highest_qos_counts() -> None:
    tree: Subscriptions[str] = Subscriptions()
    for text, qos in (("a/#", 0), ("a/b", 1), ("+/b", 0)):
        tree.add(text, "me", qos)
    tree.add("#", "you", 0)
    assert tree.matching("a/b")[0] == {"me": 1, "you": 0}
    tree.add("a/b", "me", 0)
    assert tree.matching("a/b")[0] == {"me": 0, "you": 0}


@pytest.mark.parametrize("text", ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b#", "##", "++"])
def test_filters_that_are_not_valid(text: str) -> None:
    assert not is_filter(text)
    assert not is_topic(text)


def test_many_filters_cost_a_topic_that_none_matches_little() -> None:
    tree: Subscriptions[int] = Subscriptions()
    for index in range(6400):
        tree.add(f"other/{index}/+/#", index, 0)
    assert tree.matching("visaged/door/faces")[1] < 10


def test_the_filters_of_all_clients_cannot_make_one_message_cost_much() -> None:
    # A client that comes only for one message has not to pay for what that costs.
    limits = Limits()
    subscriptions: Subscriptions[int] = Subscriptions()
    wildcards = itertools.product("a+", repeat=limits.levels)
    for number, levels in enumerate(itertools.islice(wildcards, limits.clients * limits.filters)):
        subscriptions.add("/".join(levels), number % limits.clients, 0)
    _, looked = subscriptions.matching("/".join("a" * limits.levels))
    assert looked < 2500
