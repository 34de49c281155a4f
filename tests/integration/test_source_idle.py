"""Idle cameras: key frames alone are decoded, and a wake-up loses nothing of what was kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from tests.support import media
from tests.support.rtsp import RtspServer
from tests.support.sources import SourceRun
from tests.support.ts_camera import ts_camera
from visaged.pipelines.attention import Attention
from visaged.pipelines.records import Answer, Frame
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.idle import idling, kept
from visaged.pipelines.source.picture.surface import VideoSurface

SIZE = (160, 90)
GROUPS: dict[str, dict[str, Any]] = {
    "closed": {},
    "B-frames": {"b_frames": 3},
    "open": {"b_frames": 3, "x264": "open-gop=1:b-pyramid=normal"},
}


class Idle:
    """A source that may be idle, with a stand-in for the detector."""

    def __init__(self, url: object, answer: Callable[[int], Answer] = lambda count: "nothing", **options: Any) -> None:
        self.attention = Attention()
        self.causes: list[str | None] = []
        self.late: list[bool] = []
        self.lookouts: list[Frame] = []
        self.woken_after = 0  # frames before the first wake-up

        def on_frame(frame: Frame) -> None:
            if frame.lookout is not None:
                self.lookouts.append(frame)
                if frame.lookout.answer is None:
                    frame.lookout.answer = answer(len(self.lookouts))

        def on_idle(cause: str | None) -> None:
            self.causes.append(cause)

        arguments = {"attention": self.attention, "on_idle": on_idle, "on_late": self.late.append}
        settings = {"idle": "keyframes", "idle_after_s": 0.1} | options
        self.run = SourceRun(url, arguments=arguments, on_frame=on_frame, **settings)

    def tracked(self) -> list[Frame]:
        """Return the frames that are no lookouts."""
        return [frame for frame in self.run.frames if frame.lookout is None]


@pytest.fixture(autouse=True)
def every_key_frame_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the stand-in asked about pictures in which nothing moved, too."""
    monkeypatch.setattr(idling, "_SEARCH_S", 0.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("idle")

    def clip(kind: str) -> Path:
        path = folder / f"{kind}.mkv"
        if not path.exists():
            still_video(path, seconds=8, **GROUPS[kind])
        return path

    return clip


def still_video(
    path: Path, *, seconds: float, keys: Sequence[int] = (), moves_at: float = 1e9, codec: str = "libx264",
    b_frames: int = 0, x264: str = "",
) -> Path:  # fmt: skip
    """Write a video of a picture with noise, with key frames every second, or at those frames."""
    rng = np.random.default_rng(0)
    base = next(media.pictures(*SIZE, 1))
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "yuvj420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = 25 if not keys else 1000
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "bf": str(b_frames), "sc_threshold": "0", "x264-params": x264}
        for index in range(round(seconds * 25)):
            picture = np.clip(base.astype(np.int16) + rng.normal(0, 2, base.shape), 0, 255).astype(np.uint8)
            if index / 25 >= moves_at:
                left = 10 + 2 * (index % 50)
                picture[10:80, left : left + 40] = 250
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            frame.pict_type = PictureType.I if index in keys else PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def truth(path: Path) -> dict[int, Any]:
    """Return every picture of a file as it is shown, by its stamp in milliseconds."""
    with av.open(path) as container:
        return {
            round(1000 * (frame.time or 0)): VideoSurface(frame).region(0, 0, *SIZE)
            for frame in container.decode(container.streams.video[0])
        }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", GROUPS)
def test_a_face_wakes_and_no_kept_frame_is_lost(clips: Callable[[str], Path], kind: str, threads: int) -> None:
    path = clips(kind)
    idle = Idle(path, lambda count: "face" if count == 3 else "nothing", loop=True, decoder_threads=threads)
    with idle.run as run:
        run.wait_for(lambda: idle.causes[:2] == [None, "face"] and len(idle.late) == 2)
        run.wait_for(lambda: idle.tracked()[-1].position_s > idle.lookouts[2].position_s + 0.2)
    looked = [frame.position_s for frame in idle.lookouts[:3]]
    assert [b - a for a, b in itertools.pairwise(looked)] == pytest.approx([1.0, 1.0], abs=0.01), "every key frame"
    positions = [round(25 * (frame.position_s or 0)) for frame in idle.tracked()]
    gap = next(index for index, (a, b) in enumerate(itertools.pairwise(positions)) if b != a + 1)
    woken = positions[gap + 1 :]
    after_key = round(25 * looked[1]) + 1
    assert woken == list(range(after_key, after_key + len(woken))), "all from the last key frame on, each once"
    assert len(woken) > 25
    assert idle.late == [True, False]
    whole = truth(path)
    for frame in idle.tracked():
        assert np.array_equal(frame.surface.region(0, 0, *SIZE), whole[round(1000 * (frame.position_s or 0))])
    woken_frames = idle.tracked()[gap + 1 :]
    captured = [frame.captured_s for frame in woken_frames]
    assert [b - a for a, b in itertools.pairwise(captured)] == pytest.approx([0.04] * (len(captured) - 1), abs=0.03)
    assert woken_frames[0].ready_s - woken_frames[0].captured_s > 0.8, "its capture was a key-frame interval ago"
    motion = [frame.motion_s for frame in woken_frames]
    assert [b - a for a, b in itertools.pairwise(motion)] == pytest.approx([0.04] * (len(motion) - 1), abs=0.002)


def test_nothing_but_key_frames_is_decoded_while_idle(clips: Callable[[str], Path]) -> None:
    idle = Idle(clips("closed"), loop=True)
    with idle.run as run:
        run.wait_for(lambda: len(idle.lookouts) >= 9)
    assert run.received - len(idle.tracked()) <= len(idle.lookouts) + 1
    assert idle.causes == [None, "ended"], "also over the file's end"


def test_motion_between_two_key_frames_wakes(tmp_path: Path) -> None:
    path = still_video(tmp_path / "moves.mp4", seconds=8, moves_at=4.4)
    with ts_camera(path) as url:
        idle = Idle(url)
        with idle.run as run:
            run.wait_for(lambda: "motion" in idle.causes)
            run.wait_for(lambda: idle.tracked()[-1].position_s > 5.0 + idle.tracked()[0].position_s)
    begin = idle.tracked()[0].position_s or 0.0
    positions = [frame.position_s - begin for frame in idle.tracked() if frame.position_s is not None]
    assert any(4.0 < position < 4.4 for position in positions), "from the key frame before the motion on"


def test_packets_that_grow_wake_only_where_that_was_learned() -> None:
    from visaged.pipelines.source.idle.sizes import Sizes

    for ratio, tells in ((10, True), (1.2, False)):
        sizes, now_s = Sizes(), 0.0
        for busy in (False, True, False):
            now_s += 2.0
            for index in range(25 * 15):
                grown = sizes.add(1000 if not busy else round(1000 * ratio), index % 50 == 0, now_s, busy)
                assert not (grown and not busy)
                now_s += 0.04
        assert sizes.tells is tells
        assert any(sizes.add(10_000, False, now_s + index / 25, False) for index in range(12)) is tells


def test_key_frames_too_far_apart_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (idling, kept):
        monkeypatch.setattr(module, "MOST_S", 1.5)
    path = still_video(tmp_path / "rare.mp4", seconds=10, keys=[0, 25, 50, 75])
    with ts_camera(path) as url, caplog.at_level("INFO"):
        idle = Idle(url)
        with idle.run as run:
            run.wait_for(lambda: "key_frames" in idle.causes)
            run.wait_for(lambda: round(25 * (run.frames[-1].position_s or 0)) >= 150)
    positions = [round(25 * ((frame.position_s or 0) - (run.frames[0].position_s or 0))) for frame in idle.tracked()]
    assert set(range(76, 150)) <= set(positions), "what was kept was decoded"
    assert caplog.text.count("does not stay idle") == 1
    assert run.error is None


def test_a_camera_with_a_key_frame_in_thirty_seconds_is_never_idle(tmp_path: Path) -> None:
    path = still_video(tmp_path / "one.mp4", seconds=30, keys=[0])
    idle = Idle(path, pace="realtime", loop=True)
    with idle.run as run:
        run.wait_for_frames(75)
    assert not idle.causes


def test_of_motion_jpeg_one_picture_a_second_is_looked_at(tmp_path: Path) -> None:
    path = still_video(tmp_path / "jpeg.mkv", seconds=8, codec="mjpeg")
    idle = Idle(path, lambda count: "face" if count == 3 else "nothing", loop=True)
    with idle.run as run:
        run.wait_for(lambda: "face" in idle.causes)
        run.wait_for(lambda: idle.tracked()[-1].position_s > idle.lookouts[2].position_s)
    looked = [frame.position_s for frame in idle.lookouts[:3]]
    assert [b - a for a, b in itertools.pairwise(looked)] == pytest.approx([0.96, 0.96], abs=0.1)
    positions = [round(25 * (frame.position_s or 0)) for frame in idle.tracked()]
    begin = round(25 * looked[1]) + 1
    assert set(range(begin, begin + 20)) <= set(positions)


def test_a_recording_is_never_idle(clips: Callable[[str], Path]) -> None:
    idle = Idle(clips("closed"), pace="fast")
    idle.run.checked()
    assert len(idle.run.frames) == 200
    assert not idle.causes


def test_damage_while_idle(clips: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from visaged.pipelines.source.decoding import Decoding

    decode, count = Decoding.decode, itertools.count()

    def sometimes(self: Decoding, packet: Any, *arguments: Any) -> list[av.VideoFrame]:
        if arguments[:1] == ("key_frames",) and next(count) == 1:
            raise av.error.InvalidDataError(1, "bad")
        return decode(self, packet, *arguments)

    monkeypatch.setattr(Decoding, "decode", sometimes)
    idle = Idle(clips("closed"), lambda count: "doubtful" if count == 2 else "nothing", loop=True)
    with idle.run as run:
        run.wait_for(lambda: "doubtful" in idle.causes)
        run.wait_for(lambda: idle.tracked()[-1].position_s > idle.lookouts[1].position_s)
    assert run.damaged == 1
    first, second = (frame.position_s for frame in idle.lookouts[:2])
    assert second - first == pytest.approx(2.0, abs=0.01), "the damaged key frame was left out"
    positions = {round(25 * (frame.position_s or 0)) for frame in idle.tracked()}
    assert set(range(round(25 * first) + 1, round(25 * second) + 1)) <= positions, "and lost nothing that was kept"


def test_a_lost_answer_keeps_everything(clips: Callable[[str], Path]) -> None:
    answers: dict[int, Answer] = {1: "nothing", 2: "lost", 3: "face"}
    idle = Idle(clips("closed"), lambda count: answers.get(count, "nothing"), loop=True)
    with idle.run as run:
        run.wait_for(lambda: "face" in idle.causes)
        run.wait_for(lambda: idle.tracked()[-1].position_s > idle.lookouts[2].position_s)
    positions = {round(25 * (frame.position_s or 0)) for frame in idle.tracked()}
    begin, end = (round(25 * (idle.lookouts[index].position_s or 0)) for index in (0, 2))
    assert set(range(begin + 1, end + 1)) <= positions


def test_an_answer_that_comes_too_late_gives_up_nothing_newer(clips: Callable[[str], Path]) -> None:
    with av.open(clips("closed")) as container:
        packets = list(container.demux(container.streams.video[0]))[:100]
    let_go: list[kept.Arrival] = []
    keeps = kept.Kept(let_go.append)
    arrivals = [kept.Arrival(packet, float(packet.pts * packet.time_base), n, n) for n, packet in enumerate(packets)]
    for arrival in arrivals:  # one a second: the first groups are soon too old
        keeps.add(arrival, begins=arrival.packet.is_keyframe)
    gone, count = arrivals[0], len(let_go)
    assert gone in let_go
    keeps.drop_before(gone)
    assert len(let_go) == count
    rest = keeps.take()
    assert rest[0].packet.is_keyframe
    assert rest == arrivals[-len(rest) :]


def test_a_camera_with_a_track_is_not_idle_however_few_its_frames_are(clips: Callable[[str], Path]) -> None:
    idle = Idle(clips("closed"), loop=True, fps=0.5)
    idle.attention.note(np.zeros((0, 4), np.float32), 1)
    with idle.run as run:
        run.wait_for_frames(3)  # 4 s
        assert not idle.causes
        idle.attention.note(np.zeros((0, 4), np.float32), 0)
        run.wait_for(lambda: idle.lookouts)


def test_few_frames_a_second_are_no_reason_to_wake(
    clips: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (idling, kept):
        monkeypatch.setattr(module, "MOST_S", 2.5)
    monkeypatch.setattr(idling, "_MOST_LOOK_S", 1.0)
    idle = Idle(clips("closed"), loop=True, fps=0.01)
    with idle.run as run:
        run.wait_for(lambda: len(idle.lookouts) >= 5)
        assert idle.causes == [None]


def test_catching_up_takes_its_time_at_most(clips: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idling, "_MOST_CATCHING_UP_S", -1.0)
    idle = Idle(clips("closed"), lambda count: "face" if count == 2 else "nothing", loop=True)
    told: list[int] = []
    idle.run.source._reading._idling._on_late = lambda late: told.append(len(idle.tracked()))
    with idle.run as run:
        run.wait_for(lambda: len(told) == 2)
    assert told[0] == told[1], "before the first of the kept frames"


def test_key_frames_too_far_apart_are_told_of_although_it_is_never_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (idling, kept):
        monkeypatch.setattr(module, "MOST_S", 0.9)
    path = still_video(tmp_path / "rare.mp4", seconds=3, keys=[0, 25, 50])
    with ts_camera(path) as url, caplog.at_level("INFO"):
        idle = Idle(url)
        with idle.run as run:
            run.wait_for(lambda: "does not stay idle" in caplog.text)
    assert not idle.causes


def test_what_was_held_up_and_comes_all_at_once_does_not_wake(clips: Callable[[str], Path]) -> None:
    """A network, or the whole machine, stood still for longer than packets may be kept."""
    path = clips("closed")
    causes: list[str | None] = []
    config = SourceConfig(url=str(path), idle="keyframes", idle_after_s=0.1)
    one = idling.Idling("door", config, Attention(), lambda arrival: None, causes.append, lambda late: None)
    picture = np.zeros((360, 640, 3), np.uint8)
    one.begin(100.0)
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    looked = 0
    for number, packet in enumerate(itertools.chain(packets, packets)):
        stamp_s = number / 25
        arrived_s = 100.0 + min(stamp_s, 2.0)  # from then on all at once
        arrival = kept.Arrival(packet, stamp_s, arrived_s, arrived_s)
        one.note(arrival, can_idle=True)
        if one.is_idle:
            if one.is_due(arrival):
                looked += 1
                lookout = one.look(arrival, picture)
                assert lookout is not None
                lookout.answer = "nothing"
            assert not one.keep(arrival), "nothing wakes it"
    assert causes == [None]
    assert looked >= 14


def test_datagrams_are_read_without_a_rest(clips: Callable[[str], Path]) -> None:
    for transport, rests in (("tcp", True), ("udp", False)):
        idle = Idle(clips("closed"), loop=True, transport=transport)
        unit = idle.run.source._reading._idling
        unit.is_idle, unit._looked_s, unit._key_interval_s = True, 10.0, 4.0
        with av.open(clips("closed")) as container:
            packet = next(container.demux(video=0))
        assert bool(unit.rest_s(kept.Arrival(packet, 10.1, 10.0, 10.1))) is rests


def test_a_new_connection_begins_awake(rtsp_server: RtspServer) -> None:
    idle = Idle(rtsp_server.url("/normal"), idle_after_s=0.5)
    with idle.run as run:
        run.wait_for(lambda: idle.causes and idle.lookouts)
        rtsp_server.drop("/normal")
        assert run.failure()
    assert idle.causes[::2] == [None] * (len(idle.causes) // 2), "awake at the end"
    assert idle.causes[-1] is not None
