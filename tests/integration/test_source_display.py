"""What a container, a codec or the configuration says about how to show a picture."""

from __future__ import annotations

import gc
import logging
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from tests.support.sources import SourceRun
from tests.unit import fakes
from visaged.models import search
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.search import Look
from visaged.models.session import SessionConfig
from visaged.models.types import Image
from visaged.pipelines.attributes import AnalyzerReader
from visaged.pipelines.outputs.documents import face_document
from visaged.pipelines.presentation import Turn
from visaged.pipelines.records import Frame
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.source.video import SourceConfig, VideoSource
from visaged.pipelines.tracking.tracks import CameraTracks, TrackingSpec


def picture() -> Image:
    """The demo's picture, 640 x 360."""
    return cv2.resize(fakes.demo_image(fakes.TWO_FACES_S), (640, 360), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def write(
    path: Path,
    image: Image,
    *,
    turn: tuple[float, bool, bool] | None = None,
    aspect: Fraction | None = None,
    count: int = 5,
) -> Path:
    """Write a few frames of one picture.

    Args:
        path: The container by its suffix.
        image: As stored.
        turn: Degrees against the clock, horizontal and vertical flip, for the container's display matrix.
        aspect: Of a pixel.
        count: Frames.
    """
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"bf": "0", "preset": "veryfast", "crf": "10"}
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if turn is not None:
            stream.set_display_rotation(turn[0], hflip=turn[1], vflip=turn[2])
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def seen(run: SourceRun, index: int = 0) -> Image:
    """Return what is inside seen of a frame."""
    surface = run.frames[index].surface
    return surface.region(0, 0, surface.width, surface.height)


def difference(image: Image, other: Image) -> float:
    assert image.shape == other.shape
    return float(np.abs(image.astype(int) - other).mean())


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_of_the_container_is_honoured(tmp_path: Path, suffix: str, degrees: int) -> None:
    stored = np.ascontiguousarray(np.rot90(picture(), -degrees // 90))
    run = SourceRun(write(tmp_path / f"clip.{suffix}", stored, turn=(degrees, False, False)), pace="fast").checked()
    assert run.opened == [("h264", 640, 360)]
    assert difference(seen(run), picture()) < 6
    shown = run.frames[0].presentation
    assert (shown.width, shown.height) == (640, 360)
    assert shown.turn == Turn(-degrees % 360)  # type: ignore[arg-type]
    frame = run.frames[0]
    assert (frame.canvas.width, frame.canvas.height) == (320, 192)
    small = cv2.resize(picture(), (320, 180), interpolation=cv2.INTER_AREA)
    assert difference(frame.canvas.part(frame.image), small) < 6  # type: ignore[arg-type]


@pytest.mark.parametrize(("hflip", "vflip"), [(True, False), (False, True)])
@pytest.mark.parametrize("degrees", [0, 90])
def test_mirrored_pictures(tmp_path: Path, degrees: int, hflip: bool, vflip: bool) -> None:
    """What is right is what FFmpeg's own filters make of the file's matrix."""
    path = write(tmp_path / "clip.mp4", picture(), turn=(degrees, hflip, vflip))
    run = SourceRun(path, pace="fast").checked()
    shown = run.frames[0].presentation
    assert shown.turn.mirrored
    # FFmpeg's documentation: the matrix rotates first and flips then.
    expected = np.rot90(picture(), degrees // 90)
    expected = expected[:, ::-1] if hflip else expected[::-1]
    assert difference(seen(run), np.ascontiguousarray(expected)) < 6


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "h264"])
@pytest.mark.parametrize("size", [(704, 288), (352, 576)])
def test_pixels_that_are_not_square(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    aspect = Fraction(16 * size[1], 9 * size[0])
    stored = cv2.resize(picture(), size, interpolation=cv2.INTER_AREA)
    run = SourceRun(write(tmp_path / f"clip.{suffix}", stored, aspect=aspect), pace="fast").checked()  # type: ignore[arg-type]
    assert run.opened == [("h264", *size)]
    frame = run.frames[0]
    assert frame.surface.width / frame.surface.height == pytest.approx(16 / 9, rel=0.005)
    assert frame.canvas.picture_width / frame.canvas.picture_height == pytest.approx(16 / 9, rel=0.01)
    expected = cv2.resize(picture(), (frame.surface.width, frame.surface.height))
    assert difference(seen(run), expected) < 8  # type: ignore[arg-type]
    assert frame.presentation.pixel_aspect == pytest.approx(float(aspect), rel=0.001)


def test_rotation_and_pixels_together(tmp_path: Path) -> None:
    upright = cv2.resize(picture(), (640, 180), interpolation=cv2.INTER_AREA)  # pixels twice as high as wide
    stored = np.ascontiguousarray(np.rot90(upright))
    run = SourceRun(
        write(tmp_path / "clip.mp4", stored, turn=(-90, False, False), aspect=Fraction(2)), pace="fast"
    ).checked()
    shown = run.frames[0].presentation
    assert (shown.width, shown.height, shown.pixel_aspect) == (640, 180, 0.5)
    assert (shown.square_width, shown.square_height) == (640, 360)
    assert difference(seen(run), picture()) < 8


def test_pixels_of_an_absurd_shape_are_taken_as_square(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = SourceRun(write(tmp_path / "clip.mp4", picture(), aspect=Fraction(255, 1)), pace="fast").checked()
    assert run.frames[0].presentation.pixel_aspect == 1.0
    assert sum("255 times" in record.message for record in caplog.records) == 1
    assert all(record.levelno >= logging.WARNING for record in caplog.records if "255 times" in record.message)


@pytest.mark.parametrize("aspects", [(Fraction(1), Fraction(2)), (Fraction(2), Fraction(1)), (None, Fraction(8, 11))])
def test_pixels_change_their_shape_within_a_stream(
    tmp_path: Path, aspects: tuple[Fraction | None, Fraction | None]
) -> None:
    parts = [write(tmp_path / f"part{n}.h264", picture(), aspect=aspect) for n, aspect in enumerate(aspects)]
    whole = tmp_path / "whole.h264"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    run = SourceRun(whole, pace="fast").checked()
    assert len(run.frames) == 10
    shapes = [frame.presentation.pixel_aspect for frame in run.frames]
    assert shapes == pytest.approx([float(aspects[0] or 1)] * 5 + [float(aspects[1] or 1)] * 5)
    assert run.opened == [("h264", 640, 360)]


def test_pictures_of_a_camera_that_hangs_upside_down(tmp_path: Path) -> None:
    stored = np.ascontiguousarray(picture()[::-1, ::-1])
    run = SourceRun(write(tmp_path / "clip.ts", stored), pace="fast", rotate=180).checked()
    assert run.frames[0].presentation.turn == Turn(180)
    assert difference(seen(run), picture()) < 6


def test_the_configuration_has_the_last_word(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", picture(), turn=(90, True, False), aspect=Fraction(2))
    run = SourceRun(path, pace="fast", rotate=0, aspect="16:9").checked()
    shown = run.frames[0].presentation
    assert (shown.turn, shown.pixel_aspect) == (Turn(), 1.0)
    run = SourceRun(path, pace="fast", rotate=90, aspect="32:9").checked()
    shown = run.frames[0].presentation
    assert (shown.width, shown.height, shown.pixel_aspect) == (360, 640, 0.5)
    assert (shown.square_width, shown.square_height) == (360, 1280)


def test_jpegs_with_an_exif_orientation(tmp_path: Path) -> None:
    """Some cameras turn their pictures by a tag in each JPEG."""
    path = tmp_path / "clip.mjpeg"
    path.write_bytes(_jpeg(np.ascontiguousarray(np.rot90(picture())), 6) * 5)  # 6: turn it clockwise
    run = SourceRun(path, pace="fast").checked()
    assert run.opened == [("mjpeg", 640, 360)]
    assert difference(seen(run), picture()) < 6


def test_a_rotation_that_the_codec_says_at_key_frames_holds_between_them(tmp_path: Path) -> None:
    """Display orientation of H.264 comes with key frames alone; FFmpeg gives it for these and no other frame."""
    plain, path = write(tmp_path / "plain.mp4", np.ascontiguousarray(picture()[::-1, ::-1])), tmp_path / "said.h264"
    with av.open(plain) as source, av.open(path, "w") as target:
        stream = source.streams.video[0]
        said = BitStreamFilterContext("h264_metadata=display_orientation=insert:rotate=180", stream)
        target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            for changed in said.filter(packet if packet.dts is not None else None):
                target.mux(changed)
    path.write_bytes(path.read_bytes() + _annex_b(plain, tmp_path))  # from the second key frame on, nothing says so
    run = SourceRun(path, pace="fast").checked()
    assert [frame.presentation.turn for frame in run.frames] == [Turn(180)] * 5 + [Turn()] * 5
    assert difference(seen(run, 4), picture()) < 6


def _annex_b(path: Path, folder: Path) -> bytes:
    """Return a clip's bare H.264."""
    bare = folder / "bare.h264"
    with av.open(path) as source, av.open(bare, "w") as target:
        target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                target.mux(packet)
    return bare.read_bytes()


def test_the_rotation_changes_within_a_stream(tmp_path: Path) -> None:
    parts = [_jpeg(np.ascontiguousarray(np.rot90(picture())), 6), _jpeg(picture(), 1), _jpeg(picture()[::-1, ::-1], 3)]
    path = tmp_path / "clip.mjpeg"
    path.write_bytes(b"".join(part * 5 for part in parts))
    run = SourceRun(path, pace="fast").checked()
    assert [frame.presentation.turn.rotation for frame in run.frames] == [90] * 5 + [0] * 5 + [180] * 5
    assert run.opened == [("mjpeg", 640, 360)]
    for index in (0, 7, 14):
        assert difference(seen(run, index), picture()) < 6


def _jpeg(image: Image, orientation: int) -> bytes:
    """Return a JPEG whose EXIF says how to turn it."""
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%c\0\0\0\0\0\0" % orientation
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


@pytest.fixture(scope="module")
def networks() -> tuple[Detector, AnalyzerReader]:
    manifest, config = Manifest(), SessionConfig()
    detector = Detector.load(manifest, "detector-v4", config)
    return detector, AnalyzerReader(Analyzer.load(manifest, "analyzer-v1", config), Metrics())


def published(run: SourceRun, networks: tuple[Detector, AnalyzerReader]) -> list[dict[str, Any]]:
    """Return the faces of a source's last frame as messages give them, left to right."""
    detector, reader = networks
    tracks = CameraTracks("door", TrackingSpec(attributes=frozenset(reader.heads)), reader)
    for frame in run.frames:
        (found,) = search.find(detector, [[Look(frame.image, frame.canvas)]])
        observation = tracks.observe(frame, found)
        faces, _ = tracks.conclude(observation, reader.read(observation.requests))
    return sorted((face_document(face) for face in faces), key=lambda document: document["box"][0])


def test_the_same_faces_with_the_same_attributes_however_a_picture_is_stored(
    tmp_path: Path, networks: tuple[Detector, AnalyzerReader]
) -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    plain = published(SourceRun(write(tmp_path / "plain.mp4", image), pace="fast").checked(), networks)
    assert len(plain) == 2
    side = write(tmp_path / "side.mp4", np.ascontiguousarray(np.rot90(image)), turn=(-90, False, False))
    half = cv2.resize(image, (704, 288), interpolation=cv2.INTER_AREA)
    flat = write(tmp_path / "flat.mp4", half, aspect=Fraction(8, 11))  # type: ignore[arg-type]
    for path, scale, tolerance in ((side, (1, 1), 6), (flat, (704 / 1280, 288 / 720), 8)):
        faces = published(SourceRun(path, pace="fast").checked(), networks)
        assert len(faces) == 2
        for face, expected in zip(faces, plain, strict=True):
            box = np.array(face["box"]).reshape(2, 2) / scale
            assert np.abs(box - np.array(expected["box"]).reshape(2, 2)).max() < tolerance
            ages = [document["attributes"]["age"]["value"] for document in (face, expected)]
            assert ages[0] == pytest.approx(ages[1], abs=5)
            assert face["attributes"]["gender"]["value"] == expected["attributes"]["gender"]["value"]


@pytest.mark.parametrize("turn", [None, (90.0, False, False), (0.0, False, True)])
def test_frames_are_freed_as_soon_as_nobody_has_them(tmp_path: Path, turn: tuple[float, bool, bool] | None) -> None:
    """Not when Python next looks for objects that refer to each other: four cameras then held a gigabyte."""
    clip = write(tmp_path / "turned.mp4", picture(), turn=turn, count=100)
    gc.collect()
    gc.freeze()  # so that counting looks at what is made from here on, and not at all that other tests have left
    gc.disable()
    try:
        alive = []

        def deliver(frame: Frame, stopping: threading.Event) -> bool:
            frame.release()
            alive.append(_frames())
            return True

        source = VideoSource(
            "door",
            SourceConfig(url=str(clip), fps=None, pace="fast"),
            320,
            deliver,
            lambda codec, width, height: None,
            lambda kept: None,
            lambda: None,
        )
        source.run(threading.Event())
        del source
        left = _frames()
    finally:
        gc.enable()
        gc.unfreeze()
    assert len(alive) > 50
    assert max(alive) - alive[0] < 10
    assert left == 0, "a frame of every connection, and with it the pool of its decoder"


def _frames() -> int:
    return sum(type(one) is av.VideoFrame for one in gc.get_objects())
