"""Fetch the wheels that another machine needs, and cut them into parts: `python -m tests.gpu.carry.wheels FOLDER`.

    python -m tests.gpu.carry.wheels .gpu --python 3.12 --sm 90 --part-mb 44     (an H100 or H200; 86 MB)
    python -m tests.gpu.carry.wheels .gpu --python 3.12 --sm 90 --lean           (the same; 74 MB)
    python -m tests.gpu.carry.wheels .gpu --python 3.12                          (any GPU; about 280 MB)
    python -m tests.gpu.carry.wheels .gpu --python 3.12 --sm 90 --tensorrt       (with TensorRT's libraries; gigabytes)

The wheels are repacked uncompressed into one archive, which is compressed as a whole and cut. `FOLDER/parts` then has
the parts and `SHA256SUMS`; `tests.gpu.carry.join` puts them together. What other machines have already is named by
`--there`; what is left out by default are the packages that every machine with PyTorch and OpenCV has.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import lzma
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tests.gpu.carry.fatbin import blank

ROOT = Path(__file__).resolve().parents[3]
_THERE = "numpy,opencv-python-headless,pillow,protobuf,packaging,flatbuffers,pygments,pyyaml"
_GLIBC = (39, 35, 34, 31, 28, 27, 24, 17)
_MB = 1_000_000
_NVIDIA = "https://pypi.nvidia.com"  # has the wheels of TensorRT 10, of which PyPI has descriptions alone
# Of ONNX Runtime's wheel: the C library, which its Python module does not use, and tools.
_UNUSED = ("libonnxruntime.so.", "onnxruntime/transformers/", "onnxruntime/tools/", "onnxruntime/quantization/")
# The x86 filter makes machine code smaller by a tenth.
_FILTERS = [
    {"id": lzma.FILTER_X86},
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 64 * 2**20},
]


def fetch(folder: Path, python: str, extras: Sequence[str] = ()) -> None:
    """Download the wheels of all that the daemon depends on, for a Python like 3.12 on x86-64 Linux with glibc."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in _GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", python, "-d", str(folder)]
    for platform in platforms:
        command += ["--platform", platform]
    if "tensorrt" in extras:
        command += ["--extra-index-url", _NVIDIA]
    subprocess.run([*command, *dependencies(extras)], check=True)


def dependencies(extras: Sequence[str] = ()) -> list[str]:
    """Return what pyproject.toml says the daemon and some extras depend on, each with its range of versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(one for name in extras for one in project["optional-dependencies"][name])]


def repacked(wheel: Path, sm: int | None, lean: bool) -> bytes:
    """Return a wheel uncompressed; without GPU code for other architectures than `sm`; None keeps the whole wheel."""
    target = io.BytesIO()
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as stored:
        changed: dict[str, str] = {}
        for item in source.infolist():
            content = source.read(item)
            if sm is not None and _is_unused(wheel.name, item.filename, sm):
                changed[item.filename] = ""
                continue
            if sm is not None and item.filename.endswith("libonnxruntime_providers_cuda.so"):
                library = bytearray(content)
                done = blank(library, sm, lean)
                print(f"  {item.filename}: {done.kept / _MB:.0f} MB of GPU code kept, {done.blanked / _MB:.0f} blanked")
                content = bytes(library)
                changed[item.filename] = _record_row(item.filename, content)
            if item.filename.endswith(".dist-info/RECORD"):
                content = _record(content, changed)
            stored.writestr(item, content, zipfile.ZIP_STORED)
    return target.getvalue()


def _is_unused(wheel: str, name: str, sm: int) -> bool:
    """Return whether a GPU of one architecture does without a file of a wheel."""
    if wheel.startswith("tensorrt"):  # kernels, a file for each architecture and one for engines for Windows
        kernels = name.rpartition("/")[2].partition("libnvinfer_builder_resource_")[2]
        return bool(kernels) and not kernels.startswith((f"sm{sm}.", "ptx"))
    return wheel.startswith("onnxruntime_gpu") and any(part in name for part in _UNUSED)


def _record(content: bytes, changed: dict[str, str]) -> bytes:
    """Return a wheel's list of files with the rows of changed files replaced, and those of files left out removed."""
    rows = [changed.get(row.partition(",")[0], row) for row in content.decode().splitlines()]
    return ("\n".join(row for row in rows if row) + "\n").encode()


def _record_row(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}"


def pack(wheels: list[Path], sm: int | None, lean: bool) -> bytes:
    """Return all wheels in one compressed archive."""
    packed = io.BytesIO()
    with (
        lzma.open(packed, "wb", check=lzma.CHECK_CRC32, filters=_FILTERS) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as archive,
    ):
        for wheel in wheels:
            before = packed.tell()
            content = repacked(wheel, sm, lean)
            entry = tarfile.TarInfo(wheel.name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            print(f"  {wheel.name}: {(packed.tell() - before) / _MB:.1f} MB", flush=True)
    return packed.getvalue()


def cut(content: bytes, folder: Path, part_mb: float) -> None:
    """Write content in parts of at most `part_mb` million bytes, and their check sums."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    size, sums = int(part_mb * _MB), ""
    for index, start in enumerate(range(0, len(content), size)):
        part = content[start : start + size]
        name = f"part{index}"
        (folder / name).write_bytes(part)
        sums += f"{hashlib.sha256(part).hexdigest()}  {name}\n"
        print(f"{folder / name}: {len(part) / _MB:.1f} MB")
    (folder / "SHA256SUMS").write_text(sums)


def main() -> None:
    """Fetch, repack, compress and cut."""
    parser = argparse.ArgumentParser(description="Fetch wheels for a machine without a registry, and cut them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="the other machine's Python")
    parser.add_argument("--there", default=_THERE, help=f"packages left out, because they are there: {_THERE}")
    parser.add_argument("--sm", type=int, help="keep code for this GPU architecture alone: 90 for an H100 or H200")
    parser.add_argument("--lean", action="store_true", help="with --sm: leave out also what language models need")
    parser.add_argument("--tensorrt", action="store_true", help="take TensorRT's libraries too, which are gigabytes")
    parser.add_argument("--part-mb", type=float, default=44.0)
    arguments = parser.parse_args()
    wheels = arguments.folder / "wheels"
    fetch(wheels, arguments.python, ["tensorrt"] if arguments.tensorrt else [])
    there = {name.strip().replace("-", "_").lower() for name in arguments.there.split(",")}
    taken = [wheel for wheel in sorted(wheels.glob("*.whl")) if wheel.name.split("-")[0].lower() not in there]
    cut(pack(taken, arguments.sm, arguments.lean), arguments.folder / "parts", arguments.part_mb)


if __name__ == "__main__":
    main()
