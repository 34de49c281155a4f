"""Sources that can give their frames faster than they were captured: recordings behind a URL, and segments."""

from __future__ import annotations

import http.server
import itertools
import time
from pathlib import Path

import av
import pytest

from tests.integration.test_cameras import Rig
from tests.support import media
from tests.support.odd_servers import begin, http_server
from tests.support.sources import SourceRun, failure_of
from tests.support.web_files import file_server, live_segments, playlist, write_segments

pytestmark = pytest.mark.timed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of two seconds in several containers, and segments."""
    folder = tmp_path_factory.mktemp("web")
    for suffix in ("mp4", "mkv", "ts", "h264"):
        media.write_video(folder / f"clip.{suffix}", size=(160, 120), seconds=2)
    write_segments(folder, 12)
    (folder / "whole.m3u8").write_text(playlist(0, 3, is_complete=True))
    return folder


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.h264"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_behind_http_is_a_recording(folder: Path, name: str, ranges: bool) -> None:
    with file_server(folder, ranges=ranges) as url:
        run = SourceRun(f"{url}/{name}", fps=5.0).checked()
    assert 1.5 < run.seconds < 6.0
    assert len(run.frames) == 10
    assert run.received == 50
    assert not run.source.live
    assert all(frame.ready_s - frame.captured_s < 0.5 for frame in run.frames)


def test_pace_and_loop_mean_something_there(folder: Path) -> None:
    with file_server(folder) as url:
        run = SourceRun(f"{url}/clip.mp4", pace="fast").checked()
        assert run.seconds < 1.5
        assert len(run.frames) == 50
        assert [frame.motion_s for frame in run.frames][-1] - run.frames[0].motion_s == pytest.approx(49 / 25, abs=0.01)
        with SourceRun(f"{url}/clip.mp4", loop=True, fps=10.0) as run:
            run.wait_for_frames(30)
        assert run.source.live
        assert run.frames[29].arrived_s - run.frames[0].arrived_s == pytest.approx(2.9, abs=0.7)
        assert {frame.stream for frame in run.frames} == {1}


def test_without_a_length_the_index_of_an_mp4_shows_that_it_has_an_end(tmp_path: Path, folder: Path) -> None:
    """Its index must stand in front to be read at all then."""
    path = tmp_path / "front.mp4"
    _index_first(folder / "clip.mp4", path)
    with file_server(tmp_path, ranges=False, length=False) as url:
        run = SourceRun(f"{url}/front.mp4", fps=5.0).checked()
    assert len(run.frames) == 10
    assert run.seconds > 1.5


def _index_first(source: Path, target: Path) -> None:
    with av.open(source) as reader, av.open(target, "w", options={"movflags": "faststart"}) as writer:
        video = reader.streams.video[0]
        output = writer.add_stream_from_template(video)
        for packet in reader.demux(video):
            if packet.dts is not None:
                packet.stream = output
                writer.mux(packet)


def test_what_cannot_be_known_is_live(folder: Path) -> None:
    """A transport stream without a length; its end is a failure, and it is opened again."""
    with file_server(folder, ranges=False, length=False) as url:
        run = SourceRun(f"{url}/clip.ts").start()
        run.failure()
    assert len(run.frames) == 50
    assert run.source.live


def test_a_long_recording_that_pretends_to_be_live_does_not_race(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "long.ts", size=(160, 120), fps=5, seconds=20)
    with file_server(tmp_path, ranges=False, length=False) as url:
        run = SourceRun(f"{url}/long.ts").start()
        run.failure()
    assert len(run.frames) == 100
    assert run.seconds > 3.0
    assert path.exists()


@pytest.mark.parametrize("length", ["9223372036854775807", "4294967295", "2147483647"])
def test_lengths_that_cameras_claim_are_not_believed(folder: Path, length: str) -> None:
    data = (folder / "clip.ts").read_bytes()

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        handler.send_header("Content-Length", length)
        handler.end_headers()
        handler.wfile.write(data)

    with http_server(camera) as url:
        run = SourceRun(f"{url}/live", read_timeout_s=1.0).start()
        run.failure()
    assert len(run.frames) >= 45
    assert run.source.live


def test_a_complete_playlist_ends(folder: Path) -> None:
    with file_server(folder) as url:
        run = SourceRun(f"{url}/whole.m3u8", fps=5.0).checked()
    assert len(run.frames) == 15
    assert 2.5 < run.seconds < 8.0
    steps = [b.arrived_s - a.arrived_s for a, b in itertools.pairwise(run.frames)]
    assert max(steps) < 1.0
    assert not run.source.live


def test_live_segments_are_played_at_their_stamps(folder: Path) -> None:
    with live_segments(folder, ready=4) as url, SourceRun(url, fps=5.0) as run:
        frames = run.wait_for_frames(30)
    steps = sorted(b.arrived_s - a.arrived_s for a, b in itertools.pairwise(frames))
    assert steps[len(steps) // 2] == pytest.approx(0.2, abs=0.06)
    assert steps[2] > 0.1, "no bursts"
    assert run.source.live
    assert all(frame.ready_s - frame.captured_s < 3.0 for frame in frames)


def test_a_transport_stream_is_not_delayed(folder: Path) -> None:
    """It begins with seconds that the server had kept."""
    segments = [(folder / f"s{index}.ts").read_bytes() for index in range(8)]

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        begin(handler, "video/mp2t")
        for index, data in enumerate(segments):
            time.sleep(1.0 if index >= 6 else 0.0)
            handler.wfile.write(data)

    with http_server(camera) as url:
        run = SourceRun(f"{url}/x").start()
        run.wait_for_frames(100)
        assert run.frames[99].arrived_s - run.frames[0].arrived_s < 1.5
        run.failure()


def test_a_camera_whose_recording_ends_is_ended(folder: Path) -> None:
    with file_server(folder) as url, Rig(work_s=0.02) as rig:
        rig.add(f"{url}/clip.mp4", pace="fast")
        rig.wait_for_state("ended")
        rig.wait_for(lambda: len(rig.frames) == 50)
    assert not any(status.state == "waiting" for status in rig.statuses)
    assert rig.sample("frames_dropped_total", cause="overtaken") == 0.0


def test_a_recording_that_is_gone_is_looked_for_again() -> None:
    with file_server(Path("/nonexistent")) as url:
        assert failure_of(f"{url}/clip.mp4").cause == "not_found"
