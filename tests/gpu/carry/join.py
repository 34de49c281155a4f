"""Put parts together and install them: `python3 -m tests.gpu.carry.join PARTS TARGET`, without a registry.

Needs nothing but Python and its pip. Installs the wheels of `tests.gpu.carry.wheels` into TARGET, makes `visaged` of
this checkout importable there, and lets ONNX Runtime find the CUDA libraries that PyTorch brought. Prints what the
daemon still lacks; then `PYTHONPATH=TARGET python3 -m tests.gpu` runs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import io
import lzma
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def joined(parts: Path) -> bytes:
    """Return the archive that was cut into parts; exits where one is missing or damaged."""
    content = []
    for row in (parts / "SHA256SUMS").read_text().splitlines():
        digest, _, name = row.partition("  ")
        path = parts / name
        if not path.is_file():
            sys.exit(f"{path} is missing")
        part = path.read_bytes()
        if hashlib.sha256(part).hexdigest() != digest:
            sys.exit(f"{path} is damaged: its SHA-256 is not that of SHA256SUMS")
        content.append(part)
    return b"".join(content)


def unpack(content: bytes, folder: Path) -> list[Path]:
    """Unpack the wheels into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with lzma.open(io.BytesIO(content)) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
        archive.extractall(folder, filter="data")
    return sorted(folder.glob("*.whl"))


def install(wheels: list[Path], target: Path) -> None:
    """Install wheels into a folder for PYTHONPATH."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--upgrade", "--target", str(target)]
    subprocess.run([*command, *map(str, wheels)], check=True)


def link_daemon(target: Path) -> None:
    """Make `visaged` of this checkout importable from a folder, as an installed package of its version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (target / "visaged").mkdir(exist_ok=True)
    for name in ("daemon", "pipelines", "models"):
        _link(target / "visaged" / name, ROOT / name)
    about = target / f"visaged-{project['version']}.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: visaged\nVersion: {project['version']}\n")


def link_cuda(target: Path) -> str:
    """Link the CUDA libraries of another site-packages folder to where ONNX Runtime looks; return what was done.

    ONNX Runtime looks for a folder `nvidia` beside itself, where pip would have put both.
    """
    if (target / "nvidia").exists():
        return f"{target / 'nvidia'} is there"
    found = importlib.util.find_spec("nvidia")
    places = list(found.submodule_search_locations or []) if found else []
    places = [place for place in places if list(Path(place).glob("*/lib/libcu*"))]
    if not places:
        return "this Python has no nvidia-* packages: CUDA must lie where the loader finds it"
    _link(target / "nvidia", Path(places[0]))
    libraries = sorted(path.name for path in (target / "nvidia").glob("*/lib/lib*.so*"))
    return f"{target / 'nvidia'} -> {places[0]} with {', '.join(libraries)}"


def lacking(target: Path) -> list[str]:
    """Return what the daemon depends on and what is not there, or in another version."""
    from packaging.requirements import Requirement

    sys.path.insert(0, str(target))
    importlib.invalidate_caches()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    problems = []
    for text in project["dependencies"]:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{wanted.name} is not there ({text})")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            problems.append(f"{wanted.name} is {version} ({text})")
    return problems


def _link(place: Path, to: Path) -> None:
    if place.is_symlink():
        place.unlink()
    place.symlink_to(to)


def main() -> None:
    """Join, install and check."""
    parser = argparse.ArgumentParser(description="Install wheels that came in parts.")
    parser.add_argument("parts", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    target = arguments.target.resolve()
    began = time.perf_counter()
    wheels = unpack(joined(arguments.parts), target.with_name(target.name + ".wheels"))
    unpacked = time.perf_counter()
    install(wheels, target)
    link_daemon(target)
    print(f"{len(wheels)} wheels, unpacked in {unpacked - began:.1f} s, installed in "
          f"{time.perf_counter() - unpacked:.1f} s; {link_cuda(target)}")  # fmt: skip
    problems = lacking(target)
    print("\n".join(f"LACKING: {problem}" for problem in problems) or "everything that the daemon needs is there")
    modules = "visaged.daemon.cli.main, visaged.daemon.app, visaged.models.session, av, cv2, onnxruntime"
    command = [sys.executable, "-c", f"import {modules}; print('all modules can be imported')"]
    search = f"{target}:{ROOT}"
    if subprocess.run(command, check=False, env={"PYTHONPATH": search, "PATH": "/usr/bin:/bin"}).returncode:
        sys.exit("the daemon cannot be imported")


if __name__ == "__main__":
    main()
