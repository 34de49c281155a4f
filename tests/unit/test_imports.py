"""Imports point one way, daemon -> pipelines -> models, and importing reads nothing from the environment."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    "models": {"av", "paho", "prometheus_client", "pydantic_settings", "fastapi", "starlette", "uvicorn",
               "typer", "rich", "orjson"},
    "pipelines": {"pydantic_settings", "fastapi", "starlette", "uvicorn", "typer", "rich"},
    "daemon": set(),
}  # fmt: skip
# Part of the training, which is not installed: a client of the daemon, and of its broker, from outside.
CLIENTS = {"models/training/evaluation/product.py": {"paho"}}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Packages whose module has another name.
MODULES = {
    "onnxruntime-gpu": "onnxruntime",
    "opencv-python-headless": "cv2",
    "paho-mqtt": "paho",
    "pillow": "PIL",
    "pyyaml": "yaml",
}
# Tools of the repository, which need more than the daemon does.
NOT_INSTALLED = ("models/training/",)

MOST_FILES = 10
"""Most files of a folder besides `__init__.py`."""
FULL = {
    "daemon/api/aliyun_oss": "one service in its parts: signatures, buckets, objects, and what it answers about them",
}
"""Folders with more files, and why. One that no longer needs its place here has to leave it."""
SPLIT = {
    "daemon/fleet": "settings and the API know its settings and records; its nodes hold whole daemons, far above them",
}
"""Folders whose parts are rooms of their own, and why."""

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


def declared_modules() -> set[str]:
    """Return the modules of the packages that the project declares for users, without those for development."""
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"], *extras["fleet"], *extras["openvino"], *extras["s3"]]
    names = {re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in requirements}
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


def room_of(parts: Sequence[str]) -> str:
    """Return the room of a source, or of a module, by its path from the layer on."""
    depth = 3 if "/".join(parts[:2]) in SPLIT and len(parts) > 2 else 2
    return "/".join(parts[1:depth]).removesuffix(".py")


def rooms(layer: str) -> dict[str, dict[str, list[str]]]:
    """Return the rooms of a layer, its folders and loose files, each with those that it imports and by which files."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        if parts[0] == layer and not room_of(parts).endswith("__init__"):
            found.setdefault(room_of(parts), {})
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        room = room_of(parts)
        if parts[0] != layer or room not in found:
            continue
        for name in sorted(imported(ast.parse(path.read_text(encoding="utf-8")))):
            module = name.split(".")
            other = room_of(module[1:])
            if module[:2] != ["visaged", layer] or other == room or other not in found:
                continue
            by = found[room].setdefault(other, [])
            if "/".join(parts[1:]) not in by:
                by.append("/".join(parts[1:]))
    return found


def floors(imports: Mapping[str, Collection[str]]) -> tuple[list[list[str]], list[str]]:
    """Return the rooms floor by floor, each above all that it imports, and the rooms that are in or above a circle."""
    below: list[list[str]] = []
    left = {room: set(others) for room, others in imports.items()}
    while ready := sorted(room for room, others in left.items() if not others & left.keys()):
        below.append(ready)
        for room in ready:
            del left[room]
    return below, sorted(left)


def report(layer: str) -> str:
    """Return the floors of a layer and who imports what, for the message of a failed test."""
    found = rooms(layer)
    below, circle = floors(found)
    lines = [f"{layer}/{room}: floor {floor}" for floor, group in enumerate(below) for room in group]
    lines += [f"{layer}/{room}: in a circle of imports, or above one" for room in circle]
    uses = [f"  {room} -> {other} ({', '.join(by)})" for room, others in found.items() for other, by in others.items()]
    return "\n".join([*lines, *uses])


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


def test_every_package_that_is_imported_is_declared() -> None:
    declared = declared_modules()
    missing = {}
    for path in FILES:
        if path.relative_to(ROOT).as_posix().startswith(NOT_INSTALLED):
            continue
        roots = {name.partition(".")[0] for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
        unknown = roots - sys.stdlib_module_names - declared - {"visaged"}
        if unknown:
            missing[path.name] = unknown
    assert not missing


def test_the_insides_of_uvicorn_are_those_of_tested_minors() -> None:
    (uvicorn,) = (one for one in PROJECT["dependencies"] if one.startswith("uvicorn"))
    assert re.search(r"<0\.\d+$", uvicorn)


def test_only_the_composition_knows_every_stage() -> None:
    stages = {"batcher", "cameras", "inference", "outputs.messages"}
    know_all = []
    for path in FILES:
        names = imported(ast.parse(path.read_text(encoding="utf-8")))
        if {f"visaged.pipelines.{stage}" for stage in stages} <= names:
            know_all.append(path.name)
    assert know_all == ["app.py"]


@pytest.mark.parametrize("layer", ["pipelines", "daemon"])
def test_the_rooms_of_a_layer_import_each_other_without_a_circle(layer: str) -> None:
    found = rooms(layer)
    assert len(found) > 5
    assert floors(found)[1] == [], report(layer)


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("presentation", set()),
        ("records", {"presentation"}),
        ("runtime", set()),
        ("outputs", {"presentation", "records", "runtime", "schemas"}),
    ],
)
def test_what_every_stage_uses_imports_no_stage(room: str, allowed: set[str]) -> None:
    assert rooms("pipelines")[room].keys() <= allowed, report("pipelines")


@pytest.mark.parametrize("layer", ["pipelines", "daemon"])
def test_a_folder_can_be_taken_in_at_a_glance(layer: str) -> None:
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in FILES if path.name != "__init__.py")
    full = {name for name, count in counts.items() if name.split("/")[0] == layer and count > MOST_FILES}
    assert full == {name for name in FULL if name.split("/")[0] == layer}


def test_the_checks_see_what_they_look_for() -> None:
    assert "visaged.daemon" in imported(ast.parse("def f():\n    from visaged import daemon"))
    assert environment_reads(ast.parse("import os\nA = os.environ['A']")) == [2]
    assert environment_reads(ast.parse("import os\nclass A:\n    b = os.getenv('A')")) == [3]
    assert environment_reads(ast.parse("import os\ndef f(a=os.getenv('A')): ...")) == [2]
    assert environment_reads(ast.parse("import os\ndef f():\n    return os.environ['A']")) == []
    assert floors({"a": {"b"}, "b": set(), "c": {"a", "b"}}) == ([["b"], ["a"], ["c"]], [])
    assert floors({"a": {"b"}, "b": {"a"}, "c": set(), "d": {"a"}}) == ([["c"]], ["a", "b", "d"])
