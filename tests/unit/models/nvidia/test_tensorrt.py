"""TensorRT's engines, as far as that goes without a GPU: shapes, names, folders, and what is said if it is lacking."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from visaged import daemon
from visaged.models import engines
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.errors import ModelError, ProviderError
from visaged.models.manifest import Manifest
from visaged.models.nvidia import tensorrt
from visaged.models.nvidia.driver import Device, devices
from visaged.models.nvidia.engines import Engines
from visaged.models.nvidia.tensorrt import Build, EngineCache, Profile
from visaged.models.search import Scales
from visaged.models.session import SessionConfig

CAMERAS = Profile((1, 384, 640, 3), (8, 384, 640, 3), (16, 384, 640, 3))
ANY = Profile((1, 32, 32, 3), (1, 480, 640, 3), (4, 1280, 1280, 3))
H200 = Device(0, "NVIDIA H200", (9, 0))


@pytest.mark.parametrize(
    ("profile", "shape", "covered"),
    [
        (CAMERAS, (1, 384, 640, 3), True),
        (CAMERAS, (16, 384, 640, 3), True),
        (CAMERAS, (17, 384, 640, 3), False),
        (CAMERAS, (1, 640, 384, 3), False),
        (ANY, (2, 960, 1280, 3), True),
        (ANY, (1, 1312, 640, 3), False),
        (ANY, (1, 640, 3), False),
    ],
)
def test_a_profile_covers_what_lies_between_its_shapes(profile: Profile, shape: tuple[int, ...], covered: bool) -> None:
    assert profile.covers(shape) is covered


def test_a_profile_is_written_as_onnx_runtime_reads_it() -> None:
    assert CAMERAS.options("image") == {
        "trt_profile_min_shapes": "image:1x384x640x3",
        "trt_profile_opt_shapes": "image:8x384x640x3",
        "trt_profile_max_shapes": "image:16x384x640x3",
    }
    assert str(CAMERAS) == "1-16 x 384 x 640 x 3"


def test_sides_that_the_network_fixes_are_taken_and_leave_no_profile_if_all_are() -> None:
    declared = [1, 640, 640, 3]
    fixed = CAMERAS.within(declared)
    assert fixed == Profile((1, 640, 640, 3), (1, 640, 640, 3), (1, 640, 640, 3))
    assert fixed.options("image") == {}
    assert CAMERAS.within(["batch", None, "width", 3]) == CAMERAS


@pytest.fixture
def build(tmp_path: Path) -> Build:
    network = tmp_path / "finder.onnx"
    network.write_bytes(b"weights")
    return Build.of(network, "image", CAMERAS, H200, "10.16.1")


def test_an_engine_has_another_folder_for_whatever_it_depends_on(build: Build, tmp_path: Path) -> None:
    (tmp_path / "finder.onnx").write_bytes(b"other weights")
    others = [
        Build.of(tmp_path / "finder.onnx", "image", CAMERAS, H200, "10.16.1"),
        replace(build, profile=ANY),
        replace(build, gpu="NVIDIA H100, 9.0"),
        replace(build, driver="581.1"),
        replace(build, tensorrt="10.17.0"),
        replace(build, onnxruntime="1.99"),
        replace(build, precision="fp32"),
        replace(build, level=5),
    ]
    names = {build.folder, *(other.folder for other in others)}
    assert len(names) == 1 + len(others)
    assert all(name.startswith("finder-") for name in names)
    assert replace(build).folder == build.folder


def test_timings_are_shared_by_what_runs_on_one_machine(build: Build) -> None:
    assert replace(build, network="other", sha256="0", profile=ANY).timings == build.timings
    assert replace(build, driver="581.1").timings != build.timings


def test_options_name_the_engines_own_folder(build: Build, tmp_path: Path) -> None:
    given = tensorrt.options(build, EngineCache(tmp_path / "cache"), 1, 512)
    assert given["device_id"] == "1"
    assert given["trt_fp16_enable"] is True
    assert given["trt_max_workspace_size"] == str(512 * 2**20)
    assert given["trt_engine_cache_path"] == str(tmp_path / "cache" / build.folder)
    assert given["trt_profile_max_shapes"] == "image:16x384x640x3"
    assert tensorrt.options(build, None, 0, None).keys().isdisjoint({"trt_engine_cache_path", "trt_max_workspace_size"})


def test_engines_that_were_not_used_for_longest_are_removed_and_nothing_else(build: Build, tmp_path: Path) -> None:
    cache, folder = EngineCache(tmp_path / "cache"), tmp_path / "cache"
    builds = [replace(build, driver=f"580.{number}") for number in range(5)]
    for age, one in enumerate(builds):
        place = cache.place(one)
        (place / "x.engine").write_bytes(b"engine")
        os.utime(place / "engine.json", (1_000_000 - age, 1_000_000 - age))
    (folder / "photos").mkdir()
    cache.place(builds[4])  # used again
    assert set(cache.prune(3)) == {builds[2].folder, builds[3].folder}
    assert [cache.holds(one) for one in builds] == [True, True, False, False, True]
    assert (folder / "photos").is_dir()


def test_an_engine_that_cannot_be_used_is_forgotten(build: Build, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    (cache.place(build) / "x.engine").write_bytes(b"half of an")
    cache.forget(build)
    assert not cache.holds(build)
    assert EngineCache(tmp_path / "none").prune() == []


def test_options_with_a_cache_that_cannot_be_written_are_an_error(build: Build, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="cache"):
        tensorrt.options(build, EngineCache(tmp_path / "cache"), 0, None)


def test_where_the_cache_cannot_be_written_engines_are_built_and_not_kept(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    engines = Engines(tmp_path / "net.onnx", 0, None, tmp_path / "file", lambda given: None)
    assert "trt_engine_cache_path" not in engines._options(build)
    engines._options(build)
    assert caplog.text.count("are not kept") == 1


def test_without_tensorrt_the_error_says_what_to_install() -> None:
    if importlib.util.find_spec("tensorrt_libs") is not None:
        pytest.skip("TensorRT is installed")
    with pytest.raises(ProviderError, match=r"libnvinfer\.so\.10.*pip install 'visaged\[tensorrt\]', or set") as raised:
        tensorrt.load_libraries()
    assert "inference.provider to cuda" in str(raised.value)


@pytest.fixture(scope="module")
def pair() -> tuple[Detector, Analyzer]:
    manifest, config = Manifest(), SessionConfig("cpu")
    detector = Detector.load(manifest, manifest.default_detector(on_gpu=False).name, config)
    return detector, Analyzer.load(manifest, "analyzer-v1", config)


@pytest.mark.parametrize(
    ("close_up", "shapes"),
    [
        (False, ["1-16 x 384 x 640 x 3", "1-16 x 480 x 640 x 3", "1-4 x 32-1280 x 32-1280 x 3"]),
        (
            True,
            [
                "1-16 x 384 x 640 x 3",
                "1-16 x 192 x 256 x 3",
                "1-16 x 480 x 640 x 3",
                "1-16 x 256 x 256 x 3",
                "1-4 x 32-1280 x 32-1280 x 3",
            ],
        ),
    ],
)
def test_what_cameras_send_has_engines_first_and_one_more_is_for_pictures(
    pair: tuple[Detector, Analyzer], close_up: bool, shapes: list[str]
) -> None:
    found = engines.detector_profiles(pair[0], Scales.of(pair[0], 640, 1280), close_up, 16)
    assert [str(profile) for profile in found] == shapes


@pytest.mark.parametrize("size", [(3840, 2160), (640, 480), (300, 900), (4000, 200), (50, 50)])
def test_every_canvas_of_a_picture_is_covered(pair: tuple[Detector, Analyzer], size: tuple[int, int]) -> None:
    detector, _ = pair
    scales = Scales.of(detector, 640, 1280)
    profiles = engines.detector_profiles(detector, scales, False, 16)
    for canvas in scales.canvases(*size):
        assert any(profile.covers(detector.shape(1, canvas.height, canvas.width)) for profile in profiles)


def test_the_analyzer_has_one_engine_for_all_its_batches(pair: tuple[Detector, Analyzer]) -> None:
    side = pair[1].aligner.size
    assert str(pair[1].profile()) == f"1-32 x {side} x {side} x 3"


def test_the_most_wanted_engines_come_first(pair: tuple[Detector, Analyzer]) -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    texts = [task.text for task in engines.tasks(*pair, Scales.of(pair[0], 640, 1280), False, 16, picture)]
    assert [text.split(",")[0] for text in texts] == [pair[0].name, pair[1].name, pair[0].name, pair[0].name]


def test_on_another_provider_there_are_no_engines(pair: tuple[Detector, Analyzer]) -> None:
    with pytest.raises(ModelError, match="runs on cpu, which needs no engines"):
        pair[0].on_engine(CAMERAS)


@pytest.mark.skipif(bool(devices()), reason="this machine has an NVIDIA GPU")
def test_tensorrt_without_a_gpu_is_refused() -> None:
    manifest = Manifest()
    with pytest.raises(ProviderError, match="NVIDIA driver"):
        Detector.load(manifest, manifest.default_detector(on_gpu=True).name, SessionConfig("tensorrt"))


PERSON = Path(daemon.__file__).parent / "demo" / "person.jpg"


def built(monkeypatch: pytest.MonkeyPatch, network: Detector | Analyzer, other: Detector | Analyzer) -> list[Profile]:
    """Let another network stand for the engines of one; return the profiles that come into use."""
    used: list[Profile] = []
    monkeypatch.setattr(type(network), "on_engine", lambda *_: other)
    monkeypatch.setattr(type(network), "use_engine", lambda _, profile, engine: used.append(profile))
    return used


def test_an_engine_that_tells_the_same_is_used(
    pair: tuple[Detector, Analyzer], monkeypatch: pytest.MonkeyPatch
) -> None:
    used_by = [built(monkeypatch, network, network) for network in pair]
    picture = cv2.imread(str(PERSON))
    assert picture is not None
    for task in engines.tasks(*pair, Scales.of(pair[0], 320, 320), False, 2, picture):  # type: ignore[arg-type]
        task.build()
    assert [len(profiles) for profiles in used_by] == [3, 1]


def test_an_engine_that_tells_something_else_is_not_used(
    pair: tuple[Detector, Analyzer], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest()
    blind = Detector.load(manifest, pair[0].name, SessionConfig("cpu"), 0.99)
    used = built(monkeypatch, pair[0], blind)
    picture = cv2.imread(str(PERSON))
    assert picture is not None
    task = next(engines.tasks(*pair, Scales.of(pair[0], 320), False, 2, picture))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"does not tell what it tells on CUDA: the face at .* has an IoU of 0\.00"):
        task.build()
    assert used == []
