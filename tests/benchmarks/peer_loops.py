"""What the benchmark `peers` runs, each in a process of its own: frames in, faces out, as each program does it.

    python -m tests.benchmarks.peer_loops NAME CLIP CAMERAS SECONDS [YUNET]

With CAMERAS 0 every frame is searched as fast as it goes, from as many files as there are cores; else so many cameras
send 25 frames a second, of which five are searched. Prints a line of JSON. All but `visaged` need nothing of this
project but `visaged.models`, so that they run where other programs are installed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

CORES = os.cpu_count() or 1
SOURCE_FPS, FPS = 25, 5
SETTLE_S = 3.0

Find = Callable[[Any], int]
"""Returns the number of faces in an (H, W, 3) uint8 BGR picture."""


class Camera:
    """The clip as a camera sends it, over and over, 25 frames a second; or as fast as it is read.

    Its methods are those of `cv2.VideoCapture`, and of the sources that InferencePipeline can be given.
    """

    def __init__(self, clip: str, live: bool, late_s: float = 0.0) -> None:
        self._clip, self._live = clip, live
        self._capture = cv2.VideoCapture(clip)
        self._due_s = time.monotonic() + late_s

    def grab(self) -> bool:
        """Wait until the next frame is due, and decode it."""
        if self._live:
            time.sleep(max(0.0, self._due_s - time.monotonic()))
            self._due_s += 1 / SOURCE_FPS
        if not self._capture.grab():
            self._capture = cv2.VideoCapture(self._clip)
            return self._capture.grab()
        return True

    def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
        """Return whether there is a picture, and the picture, BGR."""
        good, image = self._capture.retrieve()
        return good, image  # type: ignore[return-value]

    def release(self) -> None:
        """Close the clip."""
        self._capture.release()

    def isOpened(self) -> bool:  # noqa: N802
        """Return whether it can be read."""
        return self._capture.isOpened()

    def initialize_source_properties(self, properties: dict[str, Any]) -> None:
        """Take wishes, which a file cannot fulfil."""

    def connection_error_message(self) -> str:
        """Return why it cannot be read."""
        return ""

    def discover_source_properties(self) -> Any:
        """Return what InferencePipeline wants to know of a source."""
        from streamvision.camera.entities import SourceProperties  # in the peer's environment alone

        width, height = (int(self._capture.get(n)) for n in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        frames = 1_000_000_000  # it never ends
        return SourceProperties(width, height, frames, is_file=not self._live, fps=SOURCE_FPS)


def with_our_network() -> Find:
    """Return the shipped detector in ONNX Runtime with its defaults."""
    from tests.benchmarks.plain_detector import PlainDetector

    detector = PlainDetector()
    return lambda image: len(detector.detect(image))


def with_yunet(file: str) -> Find:
    """Return OpenCV's own detector at the size of ours: 640 px."""
    detector = cv2.FaceDetectorYN.create(file, "", (640, 640), score_threshold=0.5)

    def find(image: Any) -> int:
        scale = 640 / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale)
        detector.setInputSize((small.shape[1], small.shape[0]))
        _, faces = detector.detect(small)
        return 0 if faces is None else len(faces)

    return find


class Count:
    """Counts the searched frames, and the faces in them, for some seconds, from when all have had time to start."""

    def __init__(self, seconds: float) -> None:
        self.ended = threading.Event()
        self._began_s = time.monotonic() + SETTLE_S
        self._seconds = seconds
        self._frames = self._faces = 0
        self._lock = threading.Lock()

    def add(self, faces: int) -> None:
        """Count a frame."""
        if self._began_s <= time.monotonic() < self._began_s + self._seconds:
            with self._lock:
                self._frames += 1
                self._faces += faces

    def wait(self) -> dict[str, Any]:
        """Wait for the end; return frames a second, of all cameras together, and faces in a frame."""
        time.sleep(max(0.0, self._began_s + self._seconds - time.monotonic()))
        self.ended.set()
        return {"fps": self._frames / self._seconds, "faces": self._faces / max(1, self._frames)}


def loop(find: Find, clip: str, cameras: int, seconds: float) -> dict[str, Any]:
    """One loop of OpenCV as one writes it; for cameras, one thread each, and one search at a time."""
    count, lock = Count(seconds), threading.Lock()

    def read(index: int) -> None:
        camera, number = Camera(clip, live=cameras > 0, late_s=index * 0.033), 0
        while not count.ended.is_set() and camera.grab():
            number += 1
            if cameras == 0 or number % (SOURCE_FPS // FPS) == 0:
                _, image = camera.retrieve()
                with lock:
                    faces = find(image)
                count.add(faces)

    threads = [threading.Thread(target=read, args=(index,), daemon=True) for index in range(cameras or 1)]
    for thread in threads:
        thread.start()
    return count.wait()


def inference_pipeline(find: Find, clip: str, cameras: int, seconds: float) -> dict[str, Any]:
    """Roboflow's InferencePipeline with its defaults, the search as its custom logic."""
    from inference import InferencePipeline  # in the peer's environment alone

    counts: list[Count] = []
    started = threading.Event()

    def search(frames: list[Any]) -> list[int]:
        started.set()
        return [find(frame.image) for frame in frames]

    def sink(predictions: Any, frames: Any) -> None:
        for faces in predictions if isinstance(predictions, list) else [predictions]:
            if faces is not None and counts:
                counts[0].add(faces)

    def source(index: int) -> Callable[[], Camera]:
        return lambda: Camera(clip, live=cameras > 0, late_s=index * 0.033)

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=[source(index) for index in range(cameras or CORES)],
        on_video_frame=search,
        on_prediction=sink,
        max_fps=FPS if cameras else None,
    )
    pipeline.start(use_main_thread=False)
    if not started.wait(60):
        raise TimeoutError("InferencePipeline searched no frame for a minute")
    counts.append(Count(seconds))
    return counts[0].wait()


def visaged(clip: str, cameras: int, seconds: float) -> dict[str, Any]:
    """The daemon's own parts, as the benchmarks `throughput` and `capacity` run them."""
    from tests.benchmarks.throughput import bench
    from visaged.daemon.bench.rig import Rig

    networks, count = bench(), Count(seconds)
    pace = {"fps": FPS, "pace": "realtime"} if cameras else {"fps": None, "pace": "fast"}
    listed = [{"name": f"{index}", "url": clip, "loop": True} | pace for index in range(cameras or CORES)]
    rig = Rig(networks, networks.specs(listed), lambda result: count.add(len(result.faces)))
    rig.start()
    return count.wait()


def main() -> None:
    """Run one and print what it did."""
    name, clip, cameras, seconds, *files = sys.argv[1:]
    given = clip, int(cameras), float(seconds)
    if name == "visaged":
        told = visaged(*given)
    elif name == "inference":
        told = inference_pipeline(with_our_network(), *given)
    else:
        told = loop(with_yunet(files[0]) if name == "yunet" else with_our_network(), *given)
    told["versions"] = {"OpenCV": cv2.__version__, "ONNX Runtime": onnxruntime.__version__}
    if name in ("visaged", "inference"):
        told["versions"][name] = version("visaged" if name == "visaged" else "inference-cpu")
    told["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(told), flush=True)
    os._exit(0)  # threads of the others' do not end by themselves


if __name__ == "__main__":
    if not Path(sys.argv[2]).is_file():
        sys.exit(f"no file {sys.argv[2]}")
    main()
