"""Reads YAML from people: bounded, and with errors that say where the trouble is and repeat no value.

PyYAML accepts what no manifest or configuration means: keys that stand twice, numbers of any length, and aliases that
stand for more values than the memory holds. Its error texts quote the line, which may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

MOST_BYTES = 1 << 20
"""Most bytes of a document. A thousand cameras take a quarter of it; a recording named by mistake is larger."""
_MOST_VALUES = 200_000
"""Most values of a document, with those that its aliases stand for."""
_MOST_DEPTH = 50
"""Most lists and mappings within each other."""
_LONGEST_NUMBER = 400
"""Most characters of a number; a float in full has up to 330."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class DocumentError(ValueError):
    """A text that is no usable YAML; says why and where, without repeating a value."""


def parse(data: bytes) -> Any:
    """Return the value of a YAML document in UTF-8.

    Raises:
        DocumentError: It is too large, not UTF-8, not YAML, or YAML that cannot be meant.
    """
    if len(data) > MOST_BYTES:
        raise DocumentError(f"is larger than {MOST_BYTES >> 20} MiB")
    try:
        return yaml.load(data.decode("utf-8-sig"), _Loader)  # noqa: S506 - it is a SafeLoader
    except UnicodeDecodeError:
        raise DocumentError("is not UTF-8 text") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: such as 2024-13-45
        raise DocumentError(f"is not YAML: {_trouble(error)}") from None


def _trouble(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error).partition("\n")[0]
    mark, problem = error.problem_mark, str(error.problem)
    if r"'\t'" in problem:
        problem = "there is a tab; indent with spaces"
    elif "key" not in problem:  # an alias or a tag may be a password that lacks its quotes
        problem = re.sub(r"'.*'", "...", problem)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _error(text: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


class _Loader(yaml.SafeLoader):
    """Refuses what PyYAML accepts, see the module; and NUL characters, which no path can hold."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        if self._depth == _MOST_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "it is nested too deeply", mark)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None:
            self._values += self._size(node) if is_alias else 1
            if self._values > _MOST_VALUES:
                raise _error(f"there are more than {_MOST_VALUES:,} values, with those that aliases stand for", node)
        return node

    def _size(self, node: yaml.Node) -> int:
        """Return the number of values that a node has with all its aliases."""
        if id(node) not in self._sizes:
            self._sizes[id(node)] = 1  # an alias of a node within itself
            inner: list[yaml.Node] = []
            if isinstance(node, yaml.SequenceNode):
                inner = node.value
            elif isinstance(node, yaml.MappingNode):
                inner = [one for pair in node.value for one in pair]
            self._sizes[id(node)] = 1 + sum(map(self._size, inner))
        return self._sizes[id(node)]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, TypeError):  # PyYAML's own, such as for `!!timestamp x` and `!!bool x`
            raise _error("this is no value of its kind", node) from None

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        text: str = super().construct_scalar(node)
        if "\0" in text:
            raise _error("there is a NUL character", node)
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(text) > _LONGEST_NUMBER:
            raise _error("there is a number with too many digits", node)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):  # by a tag, as in `!!set [x]`
            raise _error("this is no mapping", node)
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = None if key_node.tag == "tag:yaml.org,2002:merge" else self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key is None:
                continue  # what cannot be a key is refused below
            if key in seen:
                name = f"the key {key!r}" if isinstance(key, str) and _PLAIN_KEY.fullmatch(key) else "a key"
                raise _error(f"{name} stands twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)
