"""Imports point one way, daemon -> pipelines -> models, and importing reads nothing from the environment."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("models", "pipelines", "daemon")
UPWARD = {
    "models": {"visaged.pipelines", "visaged.daemon"},
    "pipelines": {"visaged.daemon"},
    "daemon": set(),
}
# What a layer must do without: it belongs to those above.
FOREIGN = {
    "models": {"av", "paho", "prometheus_client", "amqtt", "pydantic_settings", "fastapi", "starlette", "uvicorn",
               "typer", "rich", "orjson"},
    "pipelines": {"amqtt", "pydantic_settings", "fastapi", "starlette", "uvicorn", "typer", "rich"},
    "daemon": set(),
}  # fmt: skip
# Part of the training, which is not installed: a client of the daemon, and of its broker, from outside.
CLIENTS = {"models/training/product.py": {"paho"}}

FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
SOURCES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in FILES]


def imported(tree: ast.Module) -> set[str]:
    """Return every module that a source names, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            assert node.module is not None
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when a module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            defaults = [*child.args.defaults, *(d for d in child.args.kw_defaults if d is not None)]
            for part in [*defaults, *getattr(child, "decorator_list", [])]:
                yield part
                yield from run_at_import(part)
            continue
        yield child
        yield from run_at_import(child)


def environment_reads(tree: ast.Module) -> list[int]:
    """Return the lines that read the environment when the module is imported."""
    lines = []
    for node in run_at_import(tree):
        named = isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")
        bare = isinstance(node, ast.Name) and node.id in ("environ", "environb", "getenv")
        if named or bare:
            lines.append(node.lineno)
    return lines


def test_there_are_sources() -> None:
    assert len(SOURCES) > 20


@pytest.mark.parametrize("path", SOURCES)
def test_imports_point_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    names = imported(ast.parse(path.read_text(encoding="utf-8")))
    assert not {name for name in names for banned in UPWARD[layer] if under(name, banned)}
    foreign = FOREIGN[layer] - CLIENTS.get(path.relative_to(ROOT).as_posix(), set())
    assert not {name for name in names for banned in foreign if under(name, banned)}
    assert not {name for name in names for bare in LAYERS if under(name, bare)}, "import visaged.* instead"
    assert not {name for name in names if under(name, "tests")}


@pytest.mark.parametrize("path", SOURCES)
def test_nothing_reads_the_environment_at_import(path: Path) -> None:
    assert environment_reads(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_only_the_composition_knows_every_stage() -> None:
    stages = {"camera", "batcher", "inference", "tracks", "outputs.mqtt"}
    know_all = []
    for path in FILES:
        names = imported(ast.parse(path.read_text(encoding="utf-8")))
        if {f"visaged.pipelines.{stage}" for stage in stages} <= names:
            know_all.append(path.name)
    assert know_all == ["app.py"]


def test_the_checks_see_what_they_look_for() -> None:
    assert "visaged.daemon" in imported(ast.parse("def f():\n    from visaged import daemon"))
    assert environment_reads(ast.parse("import os\nA = os.environ['A']")) == [2]
    assert environment_reads(ast.parse("import os\nclass A:\n    b = os.getenv('A')")) == [3]
    assert environment_reads(ast.parse("import os\ndef f(a=os.getenv('A')): ...")) == [2]
    assert environment_reads(ast.parse("import os\ndef f():\n    return os.environ['A']")) == []
