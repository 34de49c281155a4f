"""What is in the wheel: a subpackage or a data file that is not listed is silently left out of it."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("daemon", "pipelines", "models")
# Tools of the repository: they are run from a checkout and need more than the daemon does.
NOT_INSTALLED = ("models/training/",)
DATA = (".json", ".onnx", ".yaml", ".mp4", ".typed", ".html", ".css", ".js", ".svg")
NO_REGISTRY = ("No matching distribution", "Failed to establish", "Could not fetch", "Temporary failure", "timed out")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build in the tree would leave its folders there."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # An old setuptools knows less than pyproject.toml asks of it; then pip gets a newer one from the registry.
    is_new = int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77 if has("setuptools") else False
    options = ["--no-build-isolation"] if is_new else []
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--disable-pip-version-check", *options]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(source)], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0 and not is_new and any(text in done.stdout + done.stderr for text in NO_REGISTRY):
        pytest.skip("needs setuptools 77 or a package registry that has it")
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def has(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def tree() -> set[str]:
    """What has to be installed, as paths from the repository's root."""
    paths = {path.relative_to(ROOT).as_posix() for name in FOLDERS for path in (ROOT / name).rglob("*")}
    shown = ("daemon/demo/CREDITS.md", "daemon/demo/person.jpg")
    wanted = {path for path in paths if path.endswith((".py", *DATA)) or path in shown}
    # The networks' folder is installed whole, model cards and all.
    wanted |= {path for path in paths if path.startswith("models/weights/") and (ROOT / path).is_file()}
    return {path for path in wanted if not path.startswith(NOT_INSTALLED)}


def test_the_wheel_holds_the_tree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    expected = {f"visaged/{path}" for path in tree()}
    assert inside - expected == set()
    assert expected - inside == set()
    for path in (
        "visaged/daemon/demo/demo.mp4",
        "visaged/models/weights/manifest.yaml",
        "visaged/pipelines/schemas/faces.json",
        "visaged/daemon/py.typed",
        "visaged/models/py.typed",
        "visaged/pipelines/py.typed",
    ):
        assert path in inside
    assert any(name.endswith(".onnx") for name in inside)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(n).decode() for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        (points,) = (archive.read(n).decode() for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert "Name: visaged" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "visaged = visaged.daemon.cli.main:main" in points


def test_the_wheel_runs_by_itself(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # -S would lose the dependencies; the extracted package comes first, before the editable one.
    code = (
        f"import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from visaged.daemon.cli import main as cli\n"
        "from visaged.daemon.settings import check, parse\n"
        "print(cli.__file__)\n"
        "print(check(parse({'cameras': [{'name': 'a', 'url': str(cli.DEMO)}]})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "visaged" / "daemon" / "cli" / "main.py"), "[]"]
