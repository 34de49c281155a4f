"""Taking wheels to another machine in parts: what arrives is what was sent, less GPU code for others."""

from __future__ import annotations

import csv
import hashlib
import io
import random
import struct
import zipfile
from pathlib import Path

import pytest

from tests.gpu.carry import join, wheels
from tests.gpu.carry.fatbin import FatbinError, blank

_NAMES = b"\0.nv_fatbin\0"


def _entry(architecture: int, code: bytes) -> bytes:
    return struct.pack("<HHIQIIHHI", 2, 0x101, 64, len(code), 0, 0, 1, 8, architecture).ljust(64, b"\0") + code


def _region(*entries: bytes) -> bytes:
    content = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(content)) + content


def _library(*regions: bytes) -> bytearray:
    """Return a 64-bit ELF file with GPU code in a section of its own, eight bytes between regions."""
    code = bytes(8).join(regions)
    names, table = 64 + len(code), 64 + len(code) + len(_NAMES)
    head = b"\x7fELF\x02\x01\x01".ljust(40, b"\0") + struct.pack("<Q", table)
    head = head.ljust(58, b"\0") + struct.pack("<HHH", 64, 3, 2)
    rows = [(0, 0, 0), (1, 64, len(code)), (0, names, len(_NAMES))]
    sections = b"".join(struct.pack("<IIQQQQ", n, 1, 0, 0, at, size).ljust(64, b"\0") for n, at, size in rows)
    return bytearray(head.ljust(64, b"\0") + code + _NAMES + sections)


def _code(letter: bytes) -> bytes:
    return letter * 400


def test_code_for_other_gpus_is_blanked_and_everything_else_stays_where_it_is() -> None:
    library = _library(
        _region(_entry(80, _code(b"a")), _entry(90, _code(b"b"))),
        _region(_entry(90, _code(b"c"))),
        _region(_entry(120, _code(b"d"))),
    )
    before = bytes(library)

    done = blank(library, 90)

    assert (done.kept, done.blanked) == (800, 800)
    assert bytes(library) == before.replace(_code(b"a"), bytes(400)).replace(_code(b"d"), bytes(400))


def test_what_one_architecture_alone_has_goes_too_if_asked_for() -> None:
    library = _library(_region(_entry(80, _code(b"a")), _entry(90, _code(b"b"))), _region(_entry(90, _code(b"c"))))

    blank(library, 90, lean=True)

    assert _code(b"b") in library
    assert _code(b"c") not in library


def test_a_library_without_code_for_the_gpu_is_refused() -> None:
    with pytest.raises(FatbinError, match="no code for sm_100"):
        blank(_library(_region(_entry(90, _code(b"b")))), 100)


def test_an_entry_that_reaches_out_of_its_region_is_refused() -> None:
    entry = bytearray(_entry(90, _code(b"b")))
    struct.pack_into("<Q", entry, 8, 10_000)

    with pytest.raises(FatbinError, match="ends outside"):
        blank(_library(_region(bytes(entry))), 90)


@pytest.mark.parametrize("content", [b"text", b"\x7fELF\x01" + bytes(100)])
def test_what_is_no_library_is_refused(content: bytes) -> None:
    with pytest.raises(FatbinError, match="no 64-bit ELF"):
        blank(bytearray(content), 90)


def _wheel(path: Path, files: dict[str, bytes]) -> Path:
    record = "".join(f"{name},sha256=x,{len(content)}\n" for name, content in files.items())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr("a-1.dist-info/RECORD", record)
    return path


def test_wheels_arrive_as_they_were(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(50_000)
    packed = wheels.pack([_wheel(tmp_path / "a-1-py3-none-any.whl", {"a.py": noise})], None, lean=False)

    wheels.cut(packed, tmp_path / "parts", 0.02)
    (arrived,) = join.unpack(join.joined(tmp_path / "parts"), tmp_path / "there")

    assert len(list((tmp_path / "parts").glob("part*"))) == 3
    with zipfile.ZipFile(arrived) as archive:
        assert archive.read("a.py") == noise


@pytest.mark.parametrize(("damage", "said"), [(True, "part1 is damaged"), (False, "part1 is missing")])
def test_a_part_that_is_lost_or_damaged_is_named(tmp_path: Path, damage: bool, said: str) -> None:
    wheels.cut(bytes(50_000), tmp_path, 0.02)
    if damage:
        (tmp_path / "part1").write_bytes(b"x" * 20_000)
    else:
        (tmp_path / "part1").unlink()

    with pytest.raises(SystemExit, match=said):
        join.joined(tmp_path)


def test_of_tensorrt_the_kernels_for_the_gpu_alone_are_taken(tmp_path: Path) -> None:
    names = ["libnvinfer.so.10", *(f"libnvinfer_builder_resource_{kind}.so.10.9.0" for kind in ("sm75", "sm90", "win"))]
    names = [f"tensorrt_libs/{name}" for name in [*names, "libnvinfer_builder_resource_ptx.so.10.9.0"]]
    wheel = _wheel(tmp_path / "tensorrt_cu13_libs-10-py3-none-any.whl", dict.fromkeys(names, b"code"))

    with zipfile.ZipFile(io.BytesIO(wheels.repacked(wheel, 90, lean=False))) as archive:
        taken = [name for name in archive.namelist() if name.startswith("tensorrt_libs/")]

    assert taken == [names[0], names[2], names[4]]


def test_tensorrt_is_left_out_unless_it_is_asked_for() -> None:
    assert not any("tensorrt" in one for one in wheels.dependencies())
    assert any(one.startswith("tensorrt-cu13-libs") for one in wheels.dependencies(["tensorrt"]))


def test_the_list_of_a_wheels_files_follows_what_was_changed(tmp_path: Path) -> None:
    place = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
    library = _library(_region(_entry(80, _code(b"a")), _entry(90, _code(b"b"))))
    files = {place: bytes(library), "onnxruntime/tools/x.py": b"", "onnxruntime/__init__.py": b""}
    wheel = _wheel(tmp_path / "onnxruntime_gpu-1-cp312-cp312-linux_x86_64.whl", files)

    with zipfile.ZipFile(io.BytesIO(wheels.repacked(wheel, 90, lean=True))) as archive:
        content = archive.read(place)
        rows = list(csv.reader(io.StringIO(archive.read("a-1.dist-info/RECORD").decode())))

    assert _code(b"a") not in content
    assert [row[0] for row in rows] == [place, "onnxruntime/__init__.py"]
    assert rows[0][1] == f"sha256={wheels.base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()[:-1]}"
