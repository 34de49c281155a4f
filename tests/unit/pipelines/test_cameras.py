"""The set of cameras: what is added, replaced and removed, and that the others do not notice."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.support import media
from tests.support.odd_servers import tcp_server
from tests.unit import fakes
from visaged.models.search import Scales
from visaged.models.types import Detections
from visaged.pipelines import cameras
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.cameras import CameraSet, CameraSpec, Changes, Sinks
from visaged.pipelines.inference import Inference
from visaged.pipelines.records import CameraStatus, FrameResult, TrackEvent
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.demand import Demand
from visaged.pipelines.tracking.tracks import TrackingSpec

PATIENCE_S = 40.0
CLIP_FRAMES = 50
Entry = FrameResult | TrackEvent | CameraStatus | str
"""What a set of cameras leads to; a name stands for a camera that is gone."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", size=(160, 120), seconds=2)


def looping(clip: Path, **more: Any) -> CameraSpec:
    """A file that is read for ever as fast as it is searched, so that nothing is lost and everything comes in order."""
    return CameraSpec(SourceConfig(url=str(clip), fps=None, pace="fast", loop=True), TrackingSpec(**more))


def once(clip: object) -> CameraSpec:
    return CameraSpec(SourceConfig(url=str(clip), fps=None, pace="fast"), TrackingSpec())


class Rig:
    """A set of cameras with a fake detector, which sees one face in every frame, and one inference worker."""

    def __init__(self) -> None:
        self.batcher = Batcher(max_batch=1, max_wait_s=0.0, max_pictures=1)
        self.metrics = Metrics()
        self.log: list[Entry] = []
        self.deaths: list[BaseException] = []
        self.detector = fakes.Detector(self._find)
        self.gate = threading.Event()  # while it is not set, the detector waits in its next run
        self.gate.set()
        self.waits = threading.Event()
        self._changed = threading.Condition()
        sinks = Sinks(self._note, self._note, self._note, self._note)
        scales = Scales(160, small=None)
        self.set = CameraSet(self.batcher, fakes.Reader(), scales, self.metrics, sinks, self._died)
        work = Inference(self.batcher, self.detector, fakes.Reader(), self.metrics)  # type: ignore[arg-type]
        self._worker = Worker("inference", work.run, self._died)

    def __enter__(self) -> Self:
        self._worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.gate.set()
        self.set.stop()
        for job in self.batcher.close():
            job.drop("shutdown")
        self._worker.stop()
        assert self._worker.join(PATIENCE_S)
        self.set.end_tracks()
        assert self.set.join(time.monotonic() + PATIENCE_S) == []
        assert self.deaths == []

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S)

    def wait_for_frames(self, *names: str, count: int = 10) -> None:
        """Wait until each of these cameras has had so many more results."""
        before = {name: len(self.results(name)) for name in names}
        self.wait_for(lambda: all(len(self.results(name)) >= before[name] + count for name in names))

    def of(self, camera: str) -> list[Entry]:
        """Everything of one camera, in order."""
        entries = self.log.copy()
        return [entry for entry in entries if camera == (entry if isinstance(entry, str) else _camera(entry))]

    def results(self, camera: str) -> list[FrameResult]:
        return [entry for entry in self.of(camera) if isinstance(entry, FrameResult)]

    def events(self, camera: str) -> list[tuple[str, int | None, str | None]]:
        """Kind, track and reason of a camera's begins and ends, in order, whatever they came with."""
        found: list[TrackEvent] = []
        for entry in self.of(camera):
            if isinstance(entry, FrameResult):
                found += entry.events
            elif isinstance(entry, TrackEvent):
                found.append(entry)
        return [(event.kind, event.face.track, event.reason) for event in found if event.kind != "update"]

    def states(self, camera: str) -> list[str]:
        return [entry.state for entry in self.of(camera) if isinstance(entry, CameraStatus)]

    def series(self, camera: str) -> set[str]:
        """The series that a camera has."""
        return {
            sample.name
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.labels.get("camera") == camera
        }

    def count(self, name: str, camera: str, **labels: str) -> float:
        labels = {"camera": camera} | labels
        return self.metrics.registry.get_sample_value(f"visaged_frames_{name}_total", labels) or 0.0

    def hold(self) -> None:
        """Return when the worker is in the middle of a frame, and stays there until the gate opens."""
        self.waits.clear()
        self.gate.clear()
        assert self.waits.wait(PATIENCE_S)

    def _find(self, index: int) -> Detections:
        if not self.gate.is_set():
            self.waits.set()
            assert self.gate.wait(PATIENCE_S)
        return fakes.faces((80, 60, 40))

    def _note(self, entry: Entry) -> None:
        with self._changed:
            self.log.append(entry)
            self._changed.notify_all()

    def _died(self, name: str, error: BaseException) -> None:
        self.deaths.append(error)


def _camera(entry: FrameResult | TrackEvent | CameraStatus) -> str:
    return entry.frame.camera if isinstance(entry, FrameResult) else entry.camera


def assert_no_frame_was_lost(rig: Rig, camera: str) -> None:
    """Every frame of the looping clip came, in order, from the first to the last result."""
    positions = [result.frame.position_s for result in rig.results(camera)]
    numbers = [round((position or 0.0) * 25) for position in positions]
    assert numbers == [index % CLIP_FRAMES for index in range(len(numbers))]


# --- differences ------------------------------------------------------------------------------------------------------


def test_apply_adds_keeps_replaces_and_removes(clip: Path) -> None:
    with Rig() as rig:
        assert rig.set.apply({name: looping(clip) for name in "abc"}) == Changes(added=("a", "b", "c"))
        rig.wait_for_frames("a", "b", "c")
        # Equal, though none of it is the same object; and in another order.
        wanted = {"d": looping(clip), "b": looping(clip, min_confidence=0.4), "a": looping(clip)}
        assert rig.set.apply(wanted) == Changes(added=("d",), replaced=("b",), removed=("c",), kept=("a",))
        rig.wait_for_frames("a", "b", "d")
        assert [one.status.camera for one in rig.set.overview()] == ["d", "b", "a"]
        assert rig.set.apply(wanted) == Changes(kept=("d", "b", "a"))
        rig.wait_for_frames("a", "b", "d")


@pytest.mark.parametrize(
    "other",
    [
        CameraSpec(SourceConfig(url="rtsp://127.0.0.1/2"), TrackingSpec()),
        CameraSpec(SourceConfig(url="rtsp://127.0.0.1/1", fps=4), TrackingSpec()),
        CameraSpec(SourceConfig(url="rtsp://127.0.0.1/1"), TrackingSpec(attributes=frozenset({"age"}))),
        CameraSpec(SourceConfig(url="rtsp://127.0.0.1/1"), TrackingSpec(least={"age": 0.5})),
        CameraSpec(SourceConfig(url="rtsp://127.0.0.1/1"), TrackingSpec(), ("u", "p")),
        CameraSpec(SourceConfig(url="rtsp://127.0.0.1/1"), TrackingSpec(), close_up=True),
    ],
    ids=["url", "fps", "attributes", "least", "credentials", "close_up"],
)
def test_whatever_differs_makes_another_camera(other: CameraSpec) -> None:
    spec = CameraSpec(SourceConfig(url="rtsp://127.0.0.1/1"), TrackingSpec())
    assert spec == CameraSpec(SourceConfig(url="rtsp://127.0.0.1/1", fps=5.0), TrackingSpec(least={}))
    assert spec != other
    assert "'p'" not in repr(other)


def test_kept_cameras_lose_no_frame_and_keep_their_tracks(clip: Path) -> None:
    with Rig() as rig:
        kept = {name: looping(clip) for name in ("left", "right")}
        others: list[Mapping[str, CameraSpec]] = [
            {"third": looping(clip)},
            {"third": looping(clip, min_confidence=0.4)},
            {},
            {"third": looping(clip), "fourth": once(clip)},
            {"fourth": once(clip.with_name("missing.mp4"))},
        ]
        rig.set.apply(kept)
        for other in others:
            rig.wait_for_frames("left", "right", count=CLIP_FRAMES // 4)
            rig.set.apply({**other, **kept})
            if "third" in other:
                rig.wait_for_frames("third")
        rig.wait_for_frames("left", "right", count=CLIP_FRAMES)
        for name in kept:
            assert_no_frame_was_lost(rig, name)
            assert rig.events(name) == [("begin", 1, None)]
            assert [face.track for result in rig.results(name)[1:] for face in result.faces] == [1] * (
                len(rig.results(name)) - 1
            )
            assert rig.count("dropped", name, cause="overtaken") == 0
            assert rig.states(name) == ["connecting", "streaming"]
    assert rig.events("left") == [("begin", 1, None), ("end", 1, "shutdown")]


# --- removed ----------------------------------------------------------------------------------------------------------


def test_the_tracks_of_a_removed_camera_end_once_and_begin_no_more(clip: Path) -> None:
    with Rig() as rig:
        rig.set.apply({"a": looping(clip), "b": looping(clip)})
        rig.wait_for_frames("a", "b")
        rig.set.apply({"a": looping(clip)})
        rig.wait_for_frames("a", count=CLIP_FRAMES)
        assert rig.events("b") == [("begin", 1, None), ("end", 1, "removed")]
        assert rig.of("b")[-1] == "b", "nothing comes after the camera is said to be gone"
        assert rig.of("b").count("b") == 1
        assert rig.states("b")[-1] == "streaming", "who is gone has no state"
        rig.set.watch()
    assert rig.events("b") == [("begin", 1, None), ("end", 1, "removed")]
    assert rig.of("b")[-1] == "b"


def test_the_series_of_a_removed_camera_vanish(clip: Path) -> None:
    with Rig() as rig:
        rig.set.apply({"a": looping(clip), "b": looping(clip)})
        rig.wait_for_frames("a", "b")
        assert rig.series("b") == rig.series("a") >= {"visaged_frames_analysed_total", "visaged_camera_state"}
        rig.set.apply({"a": looping(clip)})
        rig.wait_for_frames("a")
        assert rig.series("b") == set()
        assert rig.count("analysed", "a") > 0


def test_a_frame_that_is_computed_when_its_camera_goes_is_dropped(clip: Path) -> None:
    with Rig() as rig:
        rig.set.apply({"a": looping(clip)})
        rig.wait_for_frames("a")
        rig.hold()
        assert rig.set.apply({}) == Changes(removed=("a",))
        seen = rig.of("a")
        assert seen[-1] == "a"
        assert rig.events("a") == [("begin", 1, None), ("end", 1, "removed")]
        rig.gate.set()
        rig.set.apply({"next": looping(clip)})
        rig.wait_for_frames("next")
        assert rig.of("a") == seen
        assert rig.series("a") == set()


def test_late_counts_bring_no_series_back() -> None:
    metrics = Metrics()
    gone = metrics.camera("a")
    gone.forget()
    gone.dropped("failed")
    gone.failure("timeout")
    gone.state("a", ["a", "b"])
    for counter in (gone.received, gone.sampled, gone.damaged, gone.analysed, gone.output_errors, gone.faces):
        counter.inc()

    def series() -> dict[str, float]:
        families = metrics.registry.collect()
        samples = [sample for family in families for sample in family.samples if sample.labels.get("camera") == "a"]
        return {sample.name: sample.value for sample in samples if not sample.name.endswith("_created")}

    assert series() == {}
    again = metrics.camera("a")
    gone.dropped("overtaken")
    gone.received.inc()
    again.dropped("overtaken", 2)
    assert {name: value for name, value in series().items() if value} == {"visaged_frames_dropped_total": 2}


def test_a_camera_of_the_same_name_starts_anew_and_goes_on_numbering(clip: Path) -> None:
    with Rig() as rig:
        rig.set.apply({"a": looping(clip)})
        rig.wait_for_frames("a")
        rig.set.apply({})
        assert rig.set.overview() == []
        before = len(rig.results("a"))
        assert rig.set.apply({"a": looping(clip)}) == Changes(added=("a",))
        rig.wait_for(lambda: len(rig.results("a")) >= before + 10)
        rig.hold()
        assert rig.count("analysed", "a") == len(rig.results("a")) - before
        rig.gate.set()
        assert rig.events("a") == [("begin", 1, None), ("end", 1, "removed"), ("begin", 2, None)]


# --- replaced ---------------------------------------------------------------------------------------------------------


def test_a_replaced_camera_goes_on_numbering_and_counting(clip: Path) -> None:
    with Rig() as rig:
        rig.set.apply({"a": looping(clip)})
        rig.wait_for_frames("a")
        rig.set.apply({"a": looping(clip, min_confidence=0.4)})
        rig.wait_for_frames("a")
        rig.set.apply({"a": looping(clip)})
        rig.wait_for_frames("a")
        begins_and_ends = rig.events("a")
        assert begins_and_ends == [
            ("begin", 1, None), ("end", 1, "stream_ended"), ("begin", 2, None), ("end", 2, "stream_ended"),
            ("begin", 3, None),
        ]  # fmt: skip
        assert "a" not in rig.log
        # Each says that it connects before anything else, so that nobody takes the state of the one before for its own.
        assert rig.states("a") == ["connecting", "streaming"] * 3
        rig.hold()
        assert rig.count("analysed", "a") == len(rig.results("a"))
        rig.gate.set()


def test_a_replaced_camera_does_not_count_as_reduced_because_the_one_before_was(clip: Path) -> None:
    with Rig() as rig:
        rig.set.apply({"a": looping(clip)})
        rig.set.demand({"a": Demand(decode="key_frames")})
        reduced = partial(rig.metrics.registry.get_sample_value, "visaged_camera_reduced", {"camera": "a"})
        assert reduced() == 1
        rig.set.apply({"a": looping(clip, min_confidence=0.4)})
        assert reduced() == 0


def test_a_frame_that_is_computed_when_its_camera_is_replaced_is_dropped(clip: Path) -> None:
    with Rig() as rig:
        rig.set.apply({"a": looping(clip)})
        rig.wait_for_frames("a")
        rig.hold()
        before = len(rig.results("a"))
        waiting = rig.batcher.waiting()[0]
        rig.set.apply({"a": looping(clip, min_confidence=0.4)})
        rig.gate.set()
        rig.wait_for_frames("a")
        numbers = [round((result.frame.position_s or 0.0) * 25) for result in rig.results("a")[before:]]
        assert numbers[:5] == [0, 1, 2, 3, 4], "the new camera's frames, from its first on"
        assert waiting + 1 <= rig.count("dropped", "a", cause="removed") <= 4
        assert rig.count("dropped", "a", cause="shutdown") == 0


# --- cameras that hang ------------------------------------------------------------------------------------------------


def test_a_camera_that_hangs_holds_up_nobody(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "_HAND_OVER_S", 0.1)
    connected = threading.Event()

    def silent(connection: socket.socket, stopping: threading.Event) -> None:
        connected.set()
        stopping.wait(PATIENCE_S)

    with Rig() as rig, tcp_server(silent) as port:
        source = SourceConfig(url=f"rtsp://127.0.0.1:{port}/x", open_timeout_s=60.0)
        hung = {name: CameraSpec(source, TrackingSpec()) for name in "abc"}
        rig.set.apply(hung | {"film": looping(clip)})
        assert connected.wait(PATIENCE_S)
        began = time.monotonic()
        film = {"film": looping(clip)}
        assert rig.set.apply({"a": looping(clip)} | film) == Changes((), ("a",), ("b", "c"), ("film",))
        assert time.monotonic() - began < 20.0, "its source waits for 60 s"
        assert rig.set.join(time.monotonic()), "a thread still hangs"
        rig.wait_for_frames("a", "film")
        assert rig.set.apply({"b": looping(clip)} | film) == Changes(("b",), (), ("a",), ("film",))
        rig.wait_for_frames("b", "film")
        before = {name: rig.of(name) for name in "ac"}
    # By now its source has failed, and nobody heard of it.
    assert {name: rig.of(name) for name in "ac"} == before
    assert rig.series("a") == rig.series("c") == set()
    assert rig.states("b") == ["connecting", "connecting", "streaming", "stopped"]


# --- the end ----------------------------------------------------------------------------------------------------------


def test_all_cameras_may_go_and_come_back(clip: Path) -> None:
    with Rig() as rig:
        specs = {name: looping(clip) for name in "ab"}
        for _ in range(3):
            assert rig.set.apply(specs) == Changes(added=("a", "b"))
            rig.wait_for_frames("a", "b")
            assert rig.set.apply({}) == Changes(removed=("a", "b"))
            assert rig.set.apply({}) == Changes()
            assert rig.set.overview() == []
            assert rig.batcher.waiting() == (0, 0)
        expected = [[("begin", number, None), ("end", number, "removed")] for number in (1, 2, 3)]
        assert rig.events("a") == rig.events("b") == list(itertools.chain(*expected))


def test_it_is_over_when_every_file_has_ended(clip: Path) -> None:
    with Rig() as rig:
        assert rig.set.over() == (True, None)
        rig.set.apply({"a": once(clip), "b": looping(clip)})
        rig.wait_for(lambda: rig.states("a")[-1:] == ["ended"])
        rig.wait_for(lambda: len(rig.results("a")) == CLIP_FRAMES)
        assert rig.set.over() == (False, None)
        rig.set.apply({"a": once(clip)})
        rig.wait_for(lambda: rig.set.over() == (True, None) or None)
        assert rig.events("a") == [("begin", 1, None)]
        rig.set.watch()
        rig.set.watch()
        assert rig.events("a") == [("begin", 1, None), ("end", 1, "stream_ended")]


def test_it_is_not_over_while_the_last_frames_are_computed(clip: Path) -> None:
    with Rig() as rig:
        rig.set.apply({"a": once(clip)})
        rig.hold()
        rig.wait_for(lambda: rig.states("a") == ["connecting", "streaming"])
        assert rig.set.over() == (False, None)
        rig.gate.set()
        rig.wait_for(lambda: len(rig.results("a")) == CLIP_FRAMES)


def test_a_file_that_cannot_be_read_is_over_too(clip: Path, tmp_path: Path) -> None:
    with Rig() as rig:
        rig.set.apply({"a": once(clip), "b": once(tmp_path / "missing.mp4"), "c": once(tmp_path / "missing too.mp4")})
        rig.wait_for(lambda: all("waiting" in rig.states(name) for name in "bc"))
        rig.wait_for(lambda: rig.states("a")[-1:] == ["ended"] and len(rig.results("a")) == CLIP_FRAMES)
        over = (False, None)
        while not over[0]:  # between two tries such a camera connects for a moment
            over = rig.set.over()  # type: ignore[assignment]
        unreadable: Any = over[1]
        assert unreadable.camera == "b"
        assert "missing.mp4" in unreadable.error


def test_a_camera_that_is_not_there_is_not_over(clip: Path) -> None:
    with Rig() as rig:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        rig.set.apply({"a": CameraSpec(SourceConfig(url=f"rtsp://127.0.0.1:{port}/x"), TrackingSpec())})
        rig.wait_for(lambda: rig.states("a")[-1:] == ["waiting"])
        assert rig.set.over() == (False, None)


def test_a_stop_ends_every_track_and_thread(clip: Path) -> None:
    rig = Rig()
    with rig:
        rig.set.apply({name: looping(clip) for name in "ab"})
        rig.wait_for_frames("a", "b")
    for name in "ab":
        assert rig.events(name) == [("begin", 1, None), ("end", 1, "shutdown")]
        assert rig.states(name) == ["connecting", "streaming", "stopped"]
