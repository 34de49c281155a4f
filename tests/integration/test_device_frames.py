"""Frames that stay on their device, from the decoder to the results: the same faces as by way of host memory.

The device is this machine's own memory. A raw video of NV12 is decoded to what a GPU's decoder leaves there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.support.sources import PATIENCE_S, SourceRun
from tests.unit.fakes import DEMO
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.device import Device
from visaged.models.graphs.check import checked_graphs
from visaged.models.graphs.frames import FrameGraphs
from visaged.models.manifest import Manifest
from visaged.models.preprocess import canvas_for
from visaged.models.search import Look, Scales, find
from visaged.models.session import SessionConfig
from visaged.models.surface import DeviceCanvas, ImageSurface
from visaged.pipelines.attributes import AnalyzerReader, Request
from visaged.pipelines.batcher import Batcher, WhenFull
from visaged.pipelines.inference import Inference
from visaged.pipelines.records import Frame, FrameResult
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker
from visaged.pipelines.source.camera import Camera
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.picture.on_device import FrameOnDevice
from visaged.pipelines.tracking.job import FrameStage
from visaged.pipelines.tracking.tracks import CameraTracks, TrackingSpec

_SHOWN = range(145, 180, 5)  # of the demo, which has 25 frames a second
_CPU = SessionConfig("cpu")


def write_raw(path: Path, pixel_format: str) -> Path:
    """Write some frames of the demo as they come out of a decoder; both formats have the same pixels."""
    with av.open(DEMO) as demo, av.open(path, "w") as out:
        stream = out.add_stream("rawvideo", rate=5)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, pixel_format
        for index, frame in enumerate(itertools.islice(demo.decode(video=0), _SHOWN.stop)):
            if index in _SHOWN:
                picture = frame.reformat(format=pixel_format)
                picture.pts, picture.time_base = _SHOWN.index(index), Fraction(1, 5)
                out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return path


def load_analyzer() -> Analyzer:
    return Analyzer.load(Manifest(), "analyzer-v1", _CPU)


def analysed(path: Path, graphs: FrameGraphs | None, workers: int, close_up: bool = False) -> list[FrameResult]:
    """Return the results of all frames of a recording, as the daemon gets them."""
    metrics, manifest = Metrics(), Manifest()
    detector = Detector.load(manifest, "detector-v4", _CPU)
    reader = AnalyzerReader(load_analyzer(), metrics)
    batcher = Batcher(max_batch=4, max_wait_s=0.0, max_pictures=1)
    results, deaths = list[FrameResult](), list[tuple[str, BaseException]]()

    def died(name: str, error: BaseException) -> None:
        deaths.append((name, error))

    spec = TrackingSpec(attributes=frozenset(reader.heads), points=True)
    counters, tracks = metrics.camera("door"), CameraTracks("door", spec, reader)
    scales = Scales.of(detector, 640) if close_up else None
    stage = FrameStage(tracks, counters, metrics, results.append, scales)
    lane = batcher.open_lane(WhenFull.WAIT, 2)
    config = SourceConfig(url=str(path), pace="fast", fps=None)
    camera = Camera("door", config, 640, 32, lane, stage.job, counters, lambda status: None, graphs=graphs)
    inference = Inference(batcher, detector, reader, metrics)
    cameras = Worker("camera", camera.run, died)
    running = [Worker(f"inference-{index}", inference.run, died) for index in range(workers)]
    for worker in [*running, cameras]:
        worker.start()
    assert cameras.join(PATIENCE_S)
    for worker in running:
        worker.stop()
    assert all(worker.join(PATIENCE_S) for worker in running)
    assert not deaths
    return results


@pytest.fixture(scope="module")
def graphs() -> FrameGraphs:
    return checked_graphs(Device("cpu"), _CPU)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.clip(high - low, 0, None).prod()
    return float(shared / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


def assert_same_faces(expected: Sequence[FrameResult], found: Sequence[FrameResult], iou: float) -> None:
    known = [face for result in expected for face in result.faces if face.attributes and face.landmarks_106 is not None]
    assert len(known) > len(expected), "the demo shows two faces then"
    for one, other in zip(expected, found, strict=True):
        assert len(one.faces) == len(other.faces)
        for face, same in zip(one.faces, other.faces, strict=True):
            assert face.track == same.track
            assert _overlap(face.shot.box, same.shot.box) > iou
            assert abs(face.shot.confidence - same.shot.confidence) < 0.01
            assert face.attributes.keys() == same.attributes.keys()
            for name, value in face.attributes.items():
                assert abs(value.confidence - same.attributes[name].confidence) < 0.05, name
                if isinstance(value.value, float):
                    assert same.attributes[name].value == pytest.approx(value.value, abs=0.02 * max(1, value.value))
            if face.landmarks_106 is not None:
                assert same.landmarks_106 is not None
                assert np.abs(face.landmarks_106 - same.landmarks_106).max() < 1.0


def test_the_demo_has_the_same_faces(tmp_path: Path, graphs: FrameGraphs) -> None:
    planar, nv12 = write_raw(tmp_path / "planar.mkv", "yuv420p"), write_raw(tmp_path / "nv12.mkv", "nv12")
    expected, found = analysed(planar, None, 1), analysed(nv12, graphs, 2)
    for result in found:
        assert isinstance(result.frame.image, DeviceCanvas)
        assert isinstance(result.frame.surface, FrameOnDevice)
    assert_same_faces(expected, found, 0.99)
    # What people see, and what the history keeps, is the same too.
    surfaces = expected[0].frame.surface, found[0].frame.surface
    one, other = (surface.picture(canvas_for(1280, 720, 640)).astype(int) for surface in surfaces)
    assert np.abs(one - other).max() <= 3


def test_close_up_finds_the_same_faces(tmp_path: Path, graphs: FrameGraphs) -> None:
    planar, nv12 = write_raw(tmp_path / "planar.mkv", "yuv420p"), write_raw(tmp_path / "nv12.mkv", "nv12")
    expected, found = analysed(planar, None, 1, True), analysed(nv12, graphs, 2, True)
    assert_same_faces(expected, found, 0.95)  # the small canvas is made of the frame here, and of the canvas there


def frames_of(path: Path, graphs: FrameGraphs, **options: Any) -> list[Frame]:
    return SourceRun(path, limit=2, arguments={"graphs": graphs}, pace="fast", **options).checked().frames


def test_pixels_that_are_not_square_go_through_host_memory(tmp_path: Path, graphs: FrameGraphs) -> None:
    frames = frames_of(write_raw(tmp_path / "nv12.mkv", "nv12"), graphs, aspect="4:3")
    assert frames
    assert all(isinstance(frame.image, np.ndarray) for frame in frames)


def test_formats_that_the_graphs_do_not_know_go_through_host_memory(tmp_path: Path, graphs: FrameGraphs) -> None:
    frames = frames_of(write_raw(tmp_path / "planar.mkv", "yuv420p"), graphs)
    assert frames
    assert all(isinstance(frame.image, np.ndarray) for frame in frames)


def test_batches_mix_frames_on_a_device_with_others(tmp_path: Path, graphs: FrameGraphs) -> None:
    frame = frames_of(write_raw(tmp_path / "nv12.mkv", "nv12"), graphs)[0]
    assert isinstance(frame.image, DeviceCanvas)
    detector, reader = Detector.load(Manifest(), "detector-v4", _CPU), AnalyzerReader(load_analyzer(), Metrics())
    there, here = Look(frame.image, frame.canvas), Look(frame.image.on_host(), frame.canvas)
    found = find(detector, [[look] for look in (there, here, there)])
    assert len(found[0])
    for one in found:
        assert np.allclose(one.boxes, found[0].boxes, atol=0.01)
    # Faces of pictures in several places are read in one batch too.
    picture = ImageSurface(frame.surface.picture(canvas_for(1280, 720, 1280)))
    faces = [Request(surface, points, 1.0) for points in found[0].landmarks for surface in (frame.surface, picture)]
    readings = reader.read(faces)
    assert len(readings) == 2 * len(found[0])
    for one, other in zip(readings[::2], readings[1::2], strict=True):
        assert one.values["age"][0] == pytest.approx(other.values["age"][0], abs=2)
