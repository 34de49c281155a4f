"""Compares the tracker with those of the `trackers` package: identities kept, and time.

    pip install trackers            # best in an environment of its own: it brings opencv-python, matplotlib and SciPy
    python tests/benchmarks/make_clip.py --output demo.mp4 --truth demo.json
    python tests/benchmarks/bench_tracker.py --clip demo.mp4 demo.json

All trackers get the same detections with the same time stamps. The package's run in two settings, their defaults and
with our thresholds, lifetime and confirmation; in each row the one with the better IDF1 is shown (`=`: the second), but
our switches are held against the fewer of both. Time is the CPU time of `update` alone. Seeds of the synthetic rows
are 100 and up; our defaults were tuned on seeds below 10. Clips at lower rates run from 5 different first frames.

IDF1 is 2 IDTP / (truth boxes + output boxes) with IDTP over the best one-to-one matching of true and given identities
at IoU 0.5 (Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", ECCV 2016
workshops, arXiv 1609.01775). A switch is a true face whose number differs from its last one (CLEAR MOT: Bernardin and
Stiefelhagen, 2008), frames matched as in TrackEval. With the package installed, its own metrics must agree with both.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visaged.models.types import Detections
from visaged.pipelines.tracking.association import assign, buffered_iou
from visaged.pipelines.tracking.tracker import Tracker, TrackerConfig

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Output = tuple[Ids, Floats]  # one frame's numbers (N,) and boxes (N, 4)
Update = Callable[["Frame"], tuple[float, Output]]  # milliseconds and what came out
WIDTH, HEIGHT, FPS = 1280, 720, 25
SEEDS = (100, 101, 102, 103)
EVERY = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Frame:
    """What is true at a time, and what a detector saw.

    Attributes:
        time_s: Capture time.
        ids: (N,) identities of the visible faces.
        boxes: (N, 4) theirs.
        detections: What every tracker gets.
    """

    time_s: float
    ids: Ids
    boxes: Floats
    detections: Detections


class Face:
    """A synthetic face on a smooth path: half of the people stay, sway and look away at times, half walk through."""

    def __init__(self, rng: np.random.Generator, identity: int, start_s: float) -> None:
        """Draw a person."""
        self.identity, self.start_s = identity, start_s
        self.size = math.exp(rng.uniform(math.log(32), math.log(110)))
        self.aspect = rng.uniform(0.72, 0.85)
        self.phases, self.periods_s = rng.uniform(0, 2 * math.pi, 5), rng.uniform(2.5, 8, 5)
        self.zoom = rng.uniform(0, 0.2)
        self.away_s: list[tuple[float, float]] = []
        if rng.random() < 0.5:
            speed = self.size * rng.uniform(1, 4) * rng.choice((-1, 1))
            entry = -0.5 * self.size if speed > 0 else WIDTH + 0.5 * self.size
            self.start = np.array((entry if start_s else rng.uniform(0, WIDTH), rng.uniform(0.15, 0.85) * HEIGHT))
            self.velocity = np.array((speed, rng.uniform(-0.15, 0.15) * speed))
            self.sway = self.size * rng.uniform(0, 0.3, 2)
            self.duration_s = 60.0
        else:
            self.start = np.array((rng.uniform(0.08, 0.92) * WIDTH, rng.uniform(0.12, 0.88) * HEIGHT))
            self.velocity = np.zeros(2)
            self.sway = self.size * rng.uniform((0.2, 0.1), (2.0, 0.6))
            self.duration_s = rng.uniform(6, 25)
            turns = np.cumsum(rng.exponential(9, 4) + 2)
            self.away_s = [(turn, turn + rng.uniform(0.3, 2)) for turn in turns.tolist()]

    def box(self, time_s: float) -> Floats | None:
        """Return the face's box (4,), or None when the person has left."""
        t = time_s - self.start_s
        angle = 2 * math.pi * t / self.periods_s
        swing = np.sin(angle[:2] + self.phases[:2]) + 0.4 * np.sin(2.2 * angle[2:4] + self.phases[2:4])
        size = self.size * math.exp(self.zoom * math.sin(angle[4] + self.phases[4]))
        x, y = self.start + self.velocity * t + self.sway * swing
        rim = 0.6 * size
        if t > self.duration_s or not (-rim < x < WIDTH + rim and -rim < y < HEIGHT + rim):
            return None
        half = 0.5 * size * np.array((math.sqrt(self.aspect), 1 / math.sqrt(self.aspect)))
        return np.array((x - half[0], y - half[1], x + half[0], y + half[1]))

    def looks_away(self, time_s: float) -> bool:
        """Return whether there is no face to see although the person is there."""
        return any(begin <= time_s - self.start_s < end for begin, end in self.away_s)


def hidden_parts(boxes: Floats) -> Floats:
    """Return how much of each face the nearer (larger) faces hide, (N,) 0..1."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    overlap = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    shared = np.prod(np.maximum(overlap, 0), axis=2) * (areas[None, :] > areas[:, None])
    result: Floats = shared.max(axis=1, initial=0) / areas
    return result


def synthetic(faces: int, seed: int, every: int = 1, duration_s: float = 60.0) -> list[Frame]:
    """Make a sequence: 5 % of the faces are missed, one frame in 20 has a false one, boxes jitter by 3 to 5 %."""
    rng = np.random.default_rng(seed)
    people = [Face(rng, n + 1, 0.0) for n in range(faces)]
    number, frames = faces, []
    for n in range(int(duration_s * FPS)):
        time_s = n / FPS
        shown: list[tuple[int, Floats]] = []
        for place, person in enumerate(people):
            if time_s < person.start_s:
                continue
            box = person.box(time_s)
            if box is None:
                number += 1
                people[place] = Face(rng, number, time_s + rng.uniform(0.2, 2))
            elif not person.looks_away(time_s):
                shown.append((person.identity, box))
        ids = np.array([i for i, _ in shown], np.int64)
        boxes = np.array([box for _, box in shown], np.float64).reshape(-1, 4)
        hidden = hidden_parts(boxes)
        confidences = np.clip(rng.normal(0.8, 0.07, len(ids)), 0.3, 0.97) * (1 - 0.75 * hidden)
        sides = boxes[:, 2:] - boxes[:, :2]
        jitter = rng.normal(0, 0.03, (len(ids), 2)) * np.sqrt(sides.prod(axis=1, keepdims=True))
        centres, halves = (
            (boxes[:, :2] + boxes[:, 2:]) / 2 + jitter,
            sides / 2 * np.exp(rng.normal(0, 0.05, sides.shape)),
        )
        found = (rng.random(len(ids)) > 0.05) & (confidences > 0.2)
        false = rng.poisson(0.05)
        false_halves = np.exp(rng.uniform(math.log(12), math.log(50), (false, 1))).repeat(2, axis=1)
        centres = np.concatenate((centres[found], rng.uniform((0, 0), (WIDTH, HEIGHT), (false, 2))))
        halves = np.concatenate((halves[found], false_halves))
        confidences = np.concatenate((confidences[found], rng.uniform(0.25, 0.75, false)))
        if n % every == 0:
            detections = as_detections(np.concatenate((centres - halves, centres + halves), axis=1), confidences)
            frames.append(Frame(time_s, ids[hidden < 0.8], boxes[hidden < 0.8], detections))
    return frames


def as_detections(boxes: Floats, confidences: Floats) -> Detections:
    """Return detections; no tracker here looks at landmarks."""
    landmarks = np.zeros((len(boxes), 5, 2), np.float32)
    return Detections(boxes.astype(np.float32), confidences.astype(np.float32), landmarks)


def from_clip(clip: Path, truth: Path, threshold: float) -> list[Frame]:
    """Detect the faces of a clip whose truth is known; faces that are less than 30 % visible do not count."""
    import av

    from visaged.models.detector import Detector
    from visaged.models.manifest import Manifest
    from visaged.models.preprocess import canvas_for
    from visaged.models.session import SessionConfig

    detector = Detector.load(
        Manifest(), Manifest().default_detector(on_gpu=False).name, SessionConfig(provider="cpu"), threshold
    )
    described = json.loads(truth.read_text(encoding="utf-8"))
    frames = []
    with av.open(str(clip)) as container:
        for n, (picture, faces) in enumerate(zip(container.decode(video=0), described["frames"], strict=True)):
            canvas = canvas_for(picture.width, picture.height, 640, detector.multiple_of)
            pixels = canvas.blank()
            scaled = picture.reformat(canvas.picture_width, canvas.picture_height, "bgr24").to_ndarray()
            pixels[: canvas.picture_height, : canvas.picture_width] = scaled
            found = canvas.to_picture(detector.detect(pixels[None])[0])
            seen = [face for face in faces if face["visible"] >= 0.3]
            boxes = np.array([face["box"] for face in seen], np.float64).reshape(-1, 4)
            ids = np.array([face["id"] for face in seen], np.int64)
            frames.append(Frame(n / described["fps"], ids, boxes, found))
    return frames


def score(frames: Sequence[Frame], outputs: Sequence[Output], threshold: float = 0.5) -> tuple[float, int]:
    """Return IDF1 (0..1) and the number of identity switches."""
    true_ids = {i: n for n, i in enumerate(np.unique(np.concatenate([f.ids for f in frames])).tolist())}
    given_ids = {i: n for n, i in enumerate(np.unique(np.concatenate([ids for ids, _ in outputs])).tolist())}
    together = np.zeros((len(true_ids), len(given_ids)))
    last, before = np.full(len(true_ids), -1), np.full(len(true_ids), -1)
    switches = 0
    for frame, (ids, boxes) in zip(frames, outputs, strict=True):
        true = np.array([true_ids[i] for i in frame.ids.tolist()], np.intp)
        given = np.array([given_ids[i] for i in ids.tolist()], np.intp)
        similarity = buffered_iou(frame.boxes, boxes, np.zeros(len(true)))
        close = similarity >= threshold
        row, column = np.nonzero(close)
        together[true[row], given[column]] += 1
        # Whoever was a pair in the frame before stays one; then the larger overlap wins.
        row, column = assign(np.where(close, similarity + 1000 * (before[true][:, None] == given[None, :]), 0))
        true, given = true[row], given[column]
        switches += int(((last[true] >= 0) & (last[true] != given)).sum())
        before[:] = -1
        before[true] = last[true] = given
    row, column = assign(together)
    boxes_total = sum(len(f.ids) for f in frames) + sum(len(ids) for ids, _ in outputs)
    return 2 * float(together[row, column].sum()) / boxes_total, switches


def check_score(frames: Sequence[Frame], outputs: Sequence[Output], ours: tuple[float, int]) -> None:
    """Compare our metrics with the package's."""
    evaluation: Any = importlib.import_module("trackers.eval")
    true, given = [f.ids for f in frames], [ids for ids, _ in outputs]
    overlaps = [
        buffered_iou(f.boxes, boxes, np.zeros(len(f.ids))) for f, (_, boxes) in zip(frames, outputs, strict=True)
    ]
    idf1 = evaluation.compute_identity_metrics(true, given, overlaps)["IDF1"]
    switches = evaluation.compute_clear_metrics(true, given, overlaps)["IDSW"]
    if abs(idf1 - ours[0]) > 1e-9 or switches != ours[1]:
        raise AssertionError(f"IDF1 and switches are {idf1}, {switches} by the package, {ours} by this file")


def our_tracker(config: TrackerConfig) -> Update:
    """Return our tracker as a function of a frame."""
    tracker = Tracker(config)

    def update(frame: Frame) -> tuple[float, Output]:
        begin = time.thread_time_ns()
        ids = tracker.update(frame.detections, frame.time_s).assignments
        spent_ms = (time.thread_time_ns() - begin) / 1e6
        kept = [n for n, i in enumerate(ids) if i is not None]
        return spent_ms, (np.array([ids[n] for n in kept], np.int64), frame.detections.boxes[kept].astype(np.float64))

    return update


def their_tracker(make: Callable[[], Any]) -> Update:
    """Return a tracker of the package as a function of a frame."""
    supervision: Any = importlib.import_module("supervision")
    tracker = make()

    def update(frame: Frame) -> tuple[float, Output]:
        given = supervision.Detections(
            xyxy=frame.detections.boxes.astype(np.float64), confidence=frame.detections.confidences.astype(np.float64)
        )
        begin = time.thread_time_ns()
        result = tracker.update(given, timestamp=frame.time_s)
        spent_ms = (time.thread_time_ns() - begin) / 1e6
        ids = np.zeros(0, np.int64) if result.tracker_id is None else result.tracker_id.astype(np.int64)
        return spent_ms, (ids[ids >= 0], result.xyxy[: len(ids)][ids >= 0].astype(np.float64))

    return update


def their_trackers(config: TrackerConfig, fps: float) -> dict[str, list[Callable[[], Any]]]:
    """Return the package's trackers, each with its defaults and with our thresholds."""
    if importlib.util.find_spec("trackers") is None:
        print("The package `trackers` is not installed: only our own tracker runs.\n")
        return {}
    package: Any = importlib.import_module("trackers")
    aligned = {
        "lost_track_buffer": round(config.lost_s * 30),  # in frames of 30 fps, whatever the rate
        "track_activation_threshold": config.new_confidence,
        "high_conf_det_threshold": config.high_confidence,
        "minimum_consecutive_frames": config.confirm_hits,
    }
    extra: dict[str, tuple[Any, dict[str, Any]]] = {
        "SORT": (package.SORTTracker, {}),
        "OC-SORT": (package.OCSORTTracker, {}),
        "BoT-SORT": (package.BoTSORTTracker, {"enable_cmc": False}),
        "C-BIoU": (package.CBIoUTracker, {}),
        "ByteTrack": (package.ByteTrackTracker, {}),
        "ByteTrack, BIoU 0.5": (package.ByteTrackTracker, {"iou": package.BIoU(0.5)}),
    }
    makers: dict[str, list[Callable[[], Any]]] = {}
    for name, (kind, given) in extra.items():
        known = inspect.signature(kind.__init__).parameters
        same = {key: value for key, value in aligned.items() if key in known}
        makers[name] = [partial(kind, **given, frame_rate=fps), partial(kind, **given, **same, frame_rate=fps)]
    return makers


def measure(sequences: Iterable[list[Frame]], make: Callable[[], Update], check: bool) -> tuple[float, int, float]:
    """Return the mean IDF1 in percent, all switches, and the mean milliseconds a frame."""
    idf1, switches, spent = [], 0, []
    for frames in sequences:
        update = make()
        timed = [update(frame) for frame in frames]
        outputs = [output for _, output in timed]
        result = score(frames, outputs)
        if check:
            check_score(frames, outputs, result)
        idf1.append(100 * result[0])
        switches += result[1]
        spent += [ms for ms, _ in timed]
    return float(np.mean(idf1)), switches, float(np.mean(spent))


def compare(title: str, sequences: list[list[Frame]], config: TrackerConfig, fps: float) -> None:
    """Print one row for each tracker."""
    peers = their_trackers(config, fps)
    ours = measure(sequences, partial(our_tracker, config), check=bool(peers))
    print(f"{title:28} {'visaged':20}  {ours[0]:6.1f} {ours[1]:8d} {ours[2]:9.3f}", flush=True)
    for name, makers in peers.items():
        results = [measure(sequences, partial(their_tracker, make), check=True) for make in makers]
        best = max(range(len(results)), key=lambda n: results[n][0])
        idf1, switches, ms = results[best]
        worse = [
            word
            for word, is_worse in (
                ("IDF1", ours[0] < idf1),
                ("switches", ours[1] > min(r[1] for r in results)),
                ("time", ours[2] > ms),
            )
            if is_worse
        ]
        note = f"  ahead of ours: {', '.join(worse)}" if worse else ""
        print(f"{'':28} {name:20}{' ='[best]} {idf1:6.1f} {switches:8d} {ms:9.3f}{note}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", nargs=2, type=Path, action="append", default=[], metavar=("VIDEO", "TRUTH"))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    config = TrackerConfig()
    print(f"{'sequence':28} {'tracker':20}  IDF1 %  switches  ms/frame")
    for faces in (5, 20):
        for every in EVERY:
            sequences = [synthetic(faces, seed, every) for seed in options.seeds]
            compare(f"{faces} faces, {FPS / every:g} fps", sequences, config, FPS / every)
    for clip, truth in options.clip:
        frames = from_clip(clip, truth, config.low_confidence)
        fps = 1 / (frames[1].time_s - frames[0].time_s)
        for every in EVERY:
            sequences = [frames[offset::every] for offset in range(min(every, 5))]
            compare(f"{clip.name}, {fps / every:g} fps", sequences, config, fps / every)


if __name__ == "__main__":
    main()
