"""No regular expression takes time that grows faster than its input: a client could hold up all others with one text.

Every use of a pattern in the sources is found, and tried on long repeats of what it matches, followed by what it does
not match: Python's engine then tries all ways to divide the repeats. What it costs is measured in CPU time of the
thread, in which a quadratic pattern stands out a hundredfold.
"""

from __future__ import annotations

import ast
import functools
import importlib
import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("models", "pipelines", "daemon")
# It is not installed, and reads files of its own.
LEFT_OUT = "models/training/"

USES = ("match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer")
# Functions of ours that take a pattern, and how they use it.
TAKES_PATTERN = {"fitting": "fullmatch"}

# Sizes of texts, and most CPU seconds for each. Small ones come first: some patterns take twice the time for each
# character more. Linear patterns take a tenth of the time or less, quadratic ones ten times as much at the last size.
SIZES = ((12, 0.05), (16, 0.05), (20, 0.05), (24, 0.05), (200, 0.05), (2_000, 0.05))
# For those texts alone that take longest at the last of `SIZES`.
LARGE_SIZES = ((5_000, 0.05), (10_000, 0.05), (20_000, 0.1), (100_000, 0.6))


@dataclass(frozen=True)
class Use:
    """One use of a pattern in the sources."""

    pattern: str | bytes
    flags: int
    how: str
    where: str

    def run(self, text: str) -> None:
        compiled: re.Pattern[Any] = re.compile(self.pattern, self.flags)
        subject: Any = text.encode("latin-1", "replace") if isinstance(self.pattern, bytes) else text
        if self.how in ("sub", "subn"):
            compiled.sub(subject[:0], subject)
        elif self.how == "finditer":
            list(compiled.finditer(subject))
        else:
            getattr(compiled, self.how)(subject)


def modules() -> Iterator[tuple[str, ModuleType, ast.Module]]:
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(LEFT_OUT) or path.name == "__main__.py":
                continue
            dotted = "visaged." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            yield name, importlib.import_module(dotted), ast.parse(path.read_text(encoding="utf-8"))


def value(node: ast.expr, module: ModuleType) -> Any:
    """Return what an expression is in a module; None if that depends on more than the module."""
    try:
        return eval(compile(ast.Expression(node), "<pattern>", "eval"), dict(vars(module)))
    except Exception:
        return None


def uses() -> list[Use]:
    """Return every use of a pattern; a pattern that is not known before the program runs fails the test."""
    found: list[Use] = []
    compiled: list[Use] = []
    unknown = []
    for name, module, tree in modules():
        takers = {node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in TAKES_PATTERN}
        skipped = {id(node) for taker in takers for node in ast.walk(taker)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or id(node) in skipped:
                continue
            where = f"{name}:{node.lineno}"
            if isinstance(node.func, ast.Name) and node.func.id in TAKES_PATTERN:
                how = TAKES_PATTERN[node.func.id]
            elif isinstance(node.func, ast.Attribute) and node.func.attr in (*USES, "compile"):
                how = node.func.attr
                owner = value(node.func.value, module)
                if isinstance(owner, re.Pattern):
                    found.append(Use(owner.pattern, owner.flags & ~re.UNICODE, how, where))
                if owner is not re:
                    continue
            else:
                continue
            pattern = value(node.args[0], module)
            if pattern is None:
                unknown.append(where)
                continue
            options = [value(one, module) for one in [*node.args[1:], *(one.value for one in node.keywords)]]
            flags = sum(int(one) for one in options if isinstance(one, re.RegexFlag))
            if how == "compile":
                compiled.append(Use(pattern, flags, "finditer", where))
            else:
                found.append(Use(pattern, flags, how, where))
    assert not unknown, f"patterns that are not known before they are used: {unknown}; name them in the module"
    # Of a pattern that is used by another name than its own, as in a list, it is not known how: it may be searched for.
    by_name = {use.pattern for use in found}
    return [*found, *(use for use in compiled if use.pattern not in by_name)]


def parts(tree: Any) -> Iterator[str]:
    """Yield texts that a parsed pattern matches a part of: characters, one of each class, and runs of literals."""
    run = ""
    for operation, argument in tree:
        kind = str(operation)
        if kind == "LITERAL":
            run += chr(argument)
            yield chr(argument)
            continue
        yield run
        run = ""
        if kind == "NOT_LITERAL":
            yield chr(argument)
        elif kind == "RANGE":
            yield from (chr(argument[0]), chr(argument[1]))
        elif kind == "CATEGORY":
            yield {"SPACE": " ", "DIGIT": "1", "WORD": "a"}.get(str(argument).rpartition("_")[2], "a")
        else:
            yield from itertools.chain.from_iterable(parts(one) for one in trees(argument))
    yield run


def trees(argument: Any) -> Iterator[Any]:
    """Yield the parsed patterns, and lists of a class's items, inside of an operation's argument."""
    if isinstance(argument, re._parser.SubPattern):  # type: ignore[attr-defined]
        yield argument
    elif isinstance(argument, list | tuple):
        if argument and all(isinstance(one, tuple) and len(one) == 2 for one in argument):
            yield argument
        else:
            for one in argument:
                yield from trees(one)


def attacks(use: Use) -> Iterator[Callable[[int], str]]:
    """Yield functions that make a text of a given length: repeats of what the pattern matches, and a mismatch."""
    parsed = re._parser.parse(use.pattern, use.flags)  # type: ignore[attr-defined]
    own = list(dict.fromkeys(one for one in parts(parsed) if one))
    singles = [one for one in own if len(one) == 1]
    units = dict.fromkeys([*own[:30], *(a + b for a, b in itertools.permutations(singles[:6], 2)), " ", "a", "0", "\n"])
    starts = ["", *[one for one in own if len(one) > 1][:4], *singles[:2]]
    for start, unit, end in itertools.product(starts, units, ("\x01", "!")):
        yield functools.partial(attack, start, unit, end)


def attack(start: str, unit: str, end: str, length: int) -> str:
    return start + unit * (length // len(unit)) + end


def slow(use: Use) -> str | None:
    """Return a text that takes the pattern too long; None if none was found."""
    taken: list[tuple[float, Callable[[int], str]]] = []
    for make in attacks(use):
        trouble, last_s = tried(use, make, SIZES)
        if trouble is not None:
            return trouble
        taken.append((last_s, make))
    for _, make in sorted(taken, key=lambda one: -one[0])[:3]:
        trouble, _ = tried(use, make, LARGE_SIZES)
        if trouble is not None:
            return trouble
    return None


def tried(use: Use, make: Callable[[int], str], sizes: Sequence[tuple[int, float]]) -> tuple[str | None, float]:
    """Return what takes too long, or None, and the seconds that the last text took."""
    last_s = 0.0
    for size, most_s in sizes:
        last_s = seconds(use, make(size))
        # Once more, because the garbage of other tests may have been collected meanwhile.
        if last_s > most_s and seconds(use, make(size)) > most_s:
            return f"{make(25)!r}... of {size} characters takes {last_s:.2f} s", last_s
    return None, last_s


def seconds(use: Use, text: str) -> float:
    began_s = time.thread_time()
    use.run(text)
    return time.thread_time() - began_s


FOUND = uses()


def test_patterns_are_found() -> None:
    assert len(FOUND) > 40
    assert {one.how for one in FOUND} >= {"fullmatch", "search", "sub"}


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        (r"\s*,\s*", "split"), (r"(a+)+b", "fullmatch"), (r"(a|a)*b", "match"), (r"\s+x", "sub"),
        (r"[0-9a-f.]*:[0-9a-f:]*:[0-9a-f:]*(%x)?", "fullmatch"), (rb"\d+\d+x", "match"), (r"x=(ab)*(ab)*c", "search"),
    ],
)  # fmt: skip
def test_slow_patterns_are_noticed(pattern: str | bytes, how: str) -> None:
    assert slow(Use(pattern, 0, how, "")) is not None


@pytest.mark.parametrize("use", FOUND, ids=lambda use: use.where)
def test_time_grows_with_the_length_of_the_input_alone(use: Use) -> None:
    trouble = slow(use)
    assert trouble is None, f"{use.where}: {use.pattern!r} ({use.how}): {trouble}"
