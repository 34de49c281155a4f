"""Mutations: the same with the same seed, bounded, and of every kind."""

from __future__ import annotations

import random

from tests.fuzz.mutator import MOST_BYTES, Mutator

CORPUS = [b"GET /v1/faces?size=100 HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.0\r\n\r\nbody\n", b""]
WORDS = [b"Transfer-Encoding: chunked\r\n", b"\x00"]


def made(seed: int, count: int = 2000, words: list[bytes] = WORDS) -> list[bytes]:
    mutator = Mutator(random.Random(seed), words)
    return [mutator.mutate(CORPUS) for _ in range(count)]


def test_a_seed_makes_the_same_inputs_again() -> None:
    assert made(3, 200) == made(3, 200)
    assert made(3, 200) != made(4, 200)


def test_inputs_differ_and_are_bounded() -> None:
    inputs = made(1)
    assert len(set(inputs)) > 1000
    assert max(map(len, inputs)) == MOST_BYTES, "some are as long as may be"


def test_words_and_numbers_and_parts_of_others_are_put_in() -> None:
    inputs = made(2)
    assert any(WORDS[0] in data for data in inputs)
    assert any(b"9223372036854775807" in data for data in inputs)
    assert any(data.startswith(b"GET") and b"body" in data for data in inputs)
    assert not any(WORDS[0] in data for data in made(2, words=[]))


def test_without_anything_to_change_there_is_no_error() -> None:
    mutator = Mutator(random.Random(1))
    assert all(isinstance(mutator.mutate([b""]), bytes) for _ in range(500))
