"""Frames that stay on the device that decoded them: whether the graphs run there, give the same pixels, and how fast.

Without a GPU (`--provider cpu`) the same code runs in this machine's memory, with frames that were decoded in software.
"""

from __future__ import annotations

import collections
import json
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import onnxruntime
from av.codec.hwaccel import HWAccel

from tests.gpu.report import Options, Report, Value
from tests.gpu.sections.networks import timed
from visaged.models.alignment import Matrix
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.device import Device
from visaged.models.graphs.check import checked_graphs
from visaged.models.graphs.frames import FrameGraphs
from visaged.models.manifest import Manifest
from visaged.models.preprocess import Canvas, canvas_for
from visaged.models.search import Look, find
from visaged.models.session import SessionConfig
from visaged.models.surface import DeviceCanvas, batch_of_canvases, lent_crops
from visaged.models.types import Image
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.source.picture.on_device import FrameOnDevice, Plans, downloaded
from visaged.pipelines.source.picture.planes import plane_rows
from visaged.pipelines.source.picture.surface import VideoSurface

_LONG_SIDE, _CROP = 640, 112
_DEMO = Path(__file__).resolve().parents[3] / "daemon" / "demo" / "demo.mp4"


def frames(report: Report, options: Options) -> None:
    """Load the graphs, compare what they give, and time them."""
    config = SessionConfig(options.provider)
    began = time.perf_counter()
    graphs = checked_graphs(Device("cuda" if options.provider == "cuda" else "cpu"), config)
    report.row("graphs, loaded and checked", s=time.perf_counter() - began, on=str(graphs.device))
    with report.guarded("nodes"):
        _nodes(report, options)
    count = 2 if options.quick else 12
    for path, name in ((options.clip, "1080p clip"), (_DEMO, "demo")):
        report.attempt(f"{name}: pixels", lambda path=path: _pixels(path, graphs, options, count))  # type: ignore[misc]
    report.attempt("demo: faces", lambda: _faces(graphs, options, count))
    report.attempt("ms", lambda: _times(graphs, options))


def _decoded(path: Path, options: Options, count: int, step: int = 7) -> Iterator[av.VideoFrame]:
    """Yield some frames as their decoder leaves them on the device: NV12."""
    hardware = None
    if options.provider == "cuda":
        context: dict[str, object] = {"primary_ctx": "1"}
        hardware = HWAccel("cuda", allow_software_fallback=False, options=context, is_hw_owned=True)
    with av.open(str(path), hwaccel=hardware) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == count * step:
                return
            if index % step == 0:
                yield frame if hardware else frame.reformat(format="nv12")


def _planar(frame: av.VideoFrame) -> av.VideoFrame:
    """Return a frame in host memory as software decodes it: with chroma in two planes."""
    here = downloaded(frame)
    luma, chroma = (plane_rows(plane)[:, :size] for plane, size in zip(here.planes, (here.width,) * 2, strict=True))
    parts = [luma.reshape(-1), chroma[:, ::2].reshape(-1), chroma[:, 1::2].reshape(-1)]
    packed = np.concatenate(parts).reshape(here.height * 3 // 2, here.width)
    planar = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    planar.colorspace, planar.color_range = here.colorspace, here.color_range
    return planar


def _surface(frame: av.VideoFrame, graphs: FrameGraphs) -> FrameOnDevice:
    surface = Plans(graphs, Presentation(frame.width, frame.height)).surface(frame)
    if surface is None:
        raise ValueError(f"frames come as {frame.format.name}, {frame.sw_format and frame.sw_format.name}")
    return surface


def _matrices(width: int, height: int) -> list[Matrix]:
    """Return the transforms of a small, a usual and a large face."""
    middle = np.array([width / 2, height / 2])
    turn = np.array([[0.95, 0.3], [-0.3, 0.95]])
    scales = (_CROP / side for side in (60, 160, 600))
    return [np.column_stack([scale * turn, _CROP / 2 - scale * turn @ middle]) for scale in scales]


def _pixels(path: Path, graphs: FrameGraphs, options: Options, count: int) -> dict[str, Value]:
    canvases, crops, pictures = list[int](), list[int](), list[int]()
    compared = 0
    for frame in _decoded(path, options, count):
        compared += 1
        canvas = canvas_for(frame.width, frame.height, _LONG_SIDE)
        here, there = VideoSurface(_planar(frame)), _surface(frame, graphs)
        expected = canvas.blank()
        here.scale_onto(canvas, expected)
        with batch_of_canvases([DeviceCanvas(there, canvas)], 1) as batch:
            canvases.append(_worst(expected, batch[:1].numpy()[0] if hasattr(batch, "device") else batch[0]))
        matrices = _matrices(frame.width, frame.height)
        crops.append(_worst(here.crops(matrices, _CROP), there.crops(matrices, _CROP)))
        pictures.append(_worst(here.picture(canvas), there.picture(canvas)))
    return {"frames": compared, "canvas differs at most": max(canvases), "crops": max(crops), "pictures": max(pictures)}


def _worst(one: Image, other: Image) -> int:
    return int(np.abs(one.astype(int) - other).max())


def _faces(graphs: FrameGraphs, options: Options, count: int) -> dict[str, Value]:
    """Compare the faces of the demo with those by way of host memory, both on this provider."""
    detector = Detector.load(Manifest(), "detector-v4", SessionConfig(options.provider))
    boxes, confidences, faces = list[float](), list[float](), 0
    for frame in _decoded(_DEMO, options, count + 1, 60):
        canvas = canvas_for(frame.width, frame.height, _LONG_SIDE)
        slot = canvas.blank()
        VideoSurface(_planar(frame)).scale_onto(canvas, slot)
        looks = [Look(slot, canvas)], [Look(DeviceCanvas(_surface(frame, graphs), canvas), canvas)]
        expected, found = find(detector, looks)
        if len(expected) != len(found):
            raise ValueError(f"{len(found)} faces, not {len(expected)}")
        faces += len(expected)
        if len(expected):
            boxes.append(float(np.abs(expected.boxes - found.boxes).max()))
            confidences.append(float(np.abs(expected.confidences - found.confidences).max()))
    return {"faces": faces, "boxes differ at most, px": max(boxes, default=0.0),
            "confidences": max(confidences, default=0.0)}  # fmt: skip


def _times(graphs: FrameGraphs, options: Options) -> dict[str, Value]:
    seconds, manifest, config = options.seconds(0.8), Manifest(), SessionConfig(options.provider)
    detector = Detector.load(manifest, "detector-v4", config)
    analyzer = Analyzer.load(manifest, "analyzer-v1", config)
    frame = next(_decoded(options.clip, options, 1))
    canvas = canvas_for(frame.width, frame.height, _LONG_SIDE)
    there, slot = _surface(frame, graphs), canvas.blank()
    planar = VideoSurface(_planar(frame))
    face = _matrices(frame.width, frame.height)[1]

    def search(count: int) -> None:
        with batch_of_canvases([DeviceCanvas(there, canvas)] * count, detector.longest_batch) as batch:
            detector.detect(batch)

    def read(count: int) -> None:
        with lent_crops([(there, face)] * count, _CROP, analyzer.longest_batch) as batch:
            analyzer.analyze(batch)

    many = 2 if options.quick else 8
    work = {
        "canvas": lambda: _put(there, canvas, graphs),
        "host canvas": lambda: planar.scale_onto(canvas, slot),
        "download": lambda: downloaded(frame),
        "canvas and detect 1": lambda: search(1),
        f"canvas and detect {many}": lambda: search(many),
        "crop and read 1": lambda: read(1),
        "crop and read 4": lambda: read(4),
        "host crop 1": lambda: planar.crops([face], _CROP),
        "wait for the decoder": graphs.device.wait,
    }
    return {name: 1000 * timed(one, seconds / 4)[0] for name, one in work.items()}


def _put(surface: FrameOnDevice, canvas: Canvas, graphs: FrameGraphs) -> None:
    with graphs.device.borrowed((canvas.height, canvas.width, 3), np.uint8) as slot:
        surface.scale_onto(canvas, slot)


def _nodes(report: Report, options: Options) -> None:
    """Show on which provider each graph's nodes run, by ONNX Runtime's profile; those that compute shapes may not."""
    sessions = list[onnxruntime.InferenceSession]()
    providers = ["CUDAExecutionProvider"] if options.provider == "cuda" else []

    def load(data: bytes) -> onnxruntime.InferenceSession:
        settings = onnxruntime.SessionOptions()
        settings.enable_profiling = True
        settings.profile_file_prefix = str(options.scratch / f"graph{len(sessions)}")
        sessions.append(onnxruntime.InferenceSession(data, settings, providers=[*providers, "CPUExecutionProvider"]))
        return sessions[-1]

    graphs = FrameGraphs(Device("cuda" if options.provider == "cuda" else "cpu"), load)
    frame = next(_decoded(options.clip, options, 1))
    surface, canvas = _surface(frame, graphs), canvas_for(frame.width, frame.height, _LONG_SIDE)
    _put(surface, canvas, graphs)
    surface.picture(canvas)
    surface.crops(_matrices(frame.width, frame.height), _CROP)
    for name, session in zip(("canvas", "picture", "crops"), sessions, strict=True):
        kinds: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for event in json.loads(Path(session.end_profiling()).read_text()):
            if event["name"].endswith("_kernel_time"):
                provider = event["args"]["provider"].removesuffix("ExecutionProvider")
                kinds[provider][event["args"]["op_name"]] += 1
        report.row(f"nodes: {name}", **{
            provider: f"{sum(counts.values())} ({', '.join(sorted(counts))})" for provider, counts in kinds.items()
        })  # fmt: skip
