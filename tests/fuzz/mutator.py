"""Makes inputs that are nearly right: a few changes to an input of the corpus, all from one seeded generator."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

MOST_BYTES = 256 * 1024
"""Most bytes of an input."""

_MOST_CHANGES = 6
_BYTES = (0x00, 0x01, 0x0A, 0x0D, 0x20, 0x22, 0x25, 0x2F, 0x3A, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS = (
    b"0", b"1", b"-1", b"2", b"255", b"256", b"65535", b"65536", b"2147483647", b"2147483648", b"4294967296",
    b"9223372036854775807", b"18446744073709551616", b"1e999", b"-0", b"0x10", b"NaN", b"9" * 5000,
)  # fmt: skip
_NUMBER = re.compile(rb"\d+")
_LINE = re.compile(rb"[^\n]*\n?")


class Mutator:
    """Changes inputs.

    Args:
        rng: Makes every choice; the same state makes the same inputs.
        words: Words that mean something to the target, which are put in and put in place of others.
    """

    def __init__(self, rng: random.Random, words: Sequence[bytes] = ()) -> None:
        self._rng = rng
        self._words = words
        self._changes: list[Callable[[bytes, bytes], bytes]] = [
            self._flip_a_bit, self._set_a_byte, self._insert_bytes, self._remove, self._repeat, self._cut,
            self._splice, self._swap, self._change_a_number, self._repeat_a_line, self._remove_a_line,
        ]  # fmt: skip
        if words:
            self._changes += [self._insert_a_word, self._replace_by_a_word]

    def mutate(self, corpus: Sequence[bytes]) -> bytes:
        """Return an input of the corpus with one to six changes, at most `MOST_BYTES` long."""
        data, other = self._rng.choice(corpus), self._rng.choice(corpus)
        for _ in range(self._rng.randint(1, _MOST_CHANGES)):
            data = self._rng.choice(self._changes)(data, other)[:MOST_BYTES]
        return data

    def _place(self, data: bytes) -> int:
        return self._rng.randint(0, len(data))

    def _span(self, data: bytes, most: int = 64) -> tuple[int, int]:
        """Return begin and end of a part, mostly a short one."""
        begin = self._place(data)
        length = self._rng.randint(1, most if self._rng.random() < 0.8 else max(1, len(data)))
        return begin, min(len(data), begin + length)

    def _flip_a_bit(self, data: bytes, other: bytes) -> bytes:
        if not data:
            return data
        changed, at = bytearray(data), self._rng.randrange(len(data))
        changed[at] ^= 1 << self._rng.randrange(8)
        return bytes(changed)

    def _set_a_byte(self, data: bytes, other: bytes) -> bytes:
        if not data:
            return data
        changed = bytearray(data)
        changed[self._rng.randrange(len(data))] = self._rng.choice(_BYTES)
        return bytes(changed)

    def _insert_bytes(self, data: bytes, other: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + self._rng.randbytes(self._rng.randint(1, 16)) + data[at:]

    def _remove(self, data: bytes, other: bytes) -> bytes:
        begin, end = self._span(data)
        return data[:begin] + data[end:]

    def _repeat(self, data: bytes, other: bytes) -> bytes:
        """Repeat a part, now and then until the input is as long as it may be."""
        begin, end = self._span(data)
        times = self._rng.choice((2, 3, 17, 300, 1 << 16))
        part = data[begin:end]
        return data[:begin] + part * min(times, 1 + MOST_BYTES // max(1, len(part))) + data[end:]

    def _cut(self, data: bytes, other: bytes) -> bytes:
        return data[: self._place(data)]

    def _splice(self, data: bytes, other: bytes) -> bytes:
        return data[: self._place(data)] + other[self._place(other) :]

    def _swap(self, data: bytes, other: bytes) -> bytes:
        (a, b), (c, d) = sorted((self._span(data), self._span(data)))
        return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[max(b, d) :] if b <= c else data

    def _change_a_number(self, data: bytes, other: bytes) -> bytes:
        found = list(_NUMBER.finditer(data))
        if not found:
            return data
        begin, end = self._rng.choice(found).span()
        return data[:begin] + self._rng.choice(_NUMBERS) + data[end:]

    def _line(self, data: bytes) -> tuple[int, int]:
        return self._rng.choice([found.span() for found in _LINE.finditer(data)])

    def _repeat_a_line(self, data: bytes, other: bytes) -> bytes:
        begin, end = self._line(data)
        return data[:end] + data[begin:end] * self._rng.choice((1, 2, 100)) + data[end:]

    def _remove_a_line(self, data: bytes, other: bytes) -> bytes:
        begin, end = self._line(data)
        return data[:begin] + data[end:]

    def _insert_a_word(self, data: bytes, other: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + self._rng.choice(self._words) + data[at:]

    def _replace_by_a_word(self, data: bytes, other: bytes) -> bytes:
        present = [word for word in self._words if word in data]
        if not present:
            return self._insert_a_word(data, other)
        old = self._rng.choice(present)
        at = data.find(old)
        return data[:at] + self._rng.choice(self._words) + data[at + len(old) :]
