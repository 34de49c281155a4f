"""Pictures of best looks: the right one with each event, shared, blurred where that is asked for, and bounded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import orjson
import pytest

from tests.support.history_bench import Bench, shot_at
from tests.unit import fakes
from visaged.models.surface import ImageSurface
from visaged.models.types import Image
from visaged.pipelines.history.crops import MOST_PIXELS, cut
from visaged.pipelines.history.query import Filter

WIDTH, HEIGHT = 640, 360


def colour(blue: int, green: int, red: int) -> Image:
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = (blue, green, red)
    return image


def decoded(jpeg: bytes | None) -> Image:
    assert jpeg is not None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image  # type: ignore[return-value]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A history that keeps pictures."""
    return Bench(tmp_path, pictures=True)


def test_a_picture_is_the_face_with_a_margin_as_it_lies_in_the_frame() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    crop = cut(ImageSurface(image), np.array([300, 150, 340, 200], np.float32))
    assert crop is not None
    assert crop.shape == (95, 95, 3)
    left, top = 320 - 47.5, 175 - 47.5  # half a pixel between the two
    centre = image[int(top) + 41 : int(top) + 56, int(left) + 41 : int(left) + 56].astype(float)
    shifted = (image[128 + 40 : 128 + 54, 273 + 40 : 273 + 54].astype(float) + centre[:14, :14]) / 2
    assert np.abs(crop[40:54, 40:54].mean() - shifted.mean()) < 5


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        ((-20, -20, 60, 60), (96, 96)),  # corner
        ((600, 320, 680, 400), (76, 76)),
        ((0, 0, 640, 360), (94, 168)),  # the whole picture, made smaller
        ((100, 100, 101, 101), (16, 16)),
    ],
)
def test_what_lies_outside_of_the_frame_is_left_out(box: tuple[float, ...], shape: tuple[int, int]) -> None:
    crop = cut(ImageSurface(colour(10, 200, 30)), np.array(box, np.float32))
    assert crop is not None
    assert max(crop.shape) <= MOST_PIXELS
    assert np.abs(np.array(crop.shape[:2]) - shape).max() <= 32
    assert np.abs(crop[2:-2, 2:-2].astype(int) - (10, 200, 30)).max() < 3  # nothing black


def test_a_face_outside_of_the_frame_has_no_picture() -> None:
    assert cut(ImageSurface(colour(0, 0, 0)), np.array([-500, 0, -400, 100], np.float32)) is None


def test_blurring_takes_all_faces_of_the_frame_and_leaves_the_rest() -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    boxes = [np.array(box, np.float32) for box in fakes.TWO_FACES]
    sharp, blurred = (cut(ImageSurface(image), boxes[0], which) for which in ([], boxes))
    assert sharp is not None
    assert blurred is not None
    size = len(sharp)
    inner = slice(size // 3, 2 * size // 3)

    def detail(crop: Image) -> float:
        return float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())

    assert detail(blurred[inner, inner]) < detail(sharp[inner, inner]) / 20
    assert np.array_equal(blurred[:8], sharp[:8])


def test_each_event_has_the_picture_of_its_best_look(bench: Bench) -> None:
    now = bench.clock.wall_s
    box = (300, 150, 340, 200)
    looks = [shot_at(box, now + index) for index in range(3)]
    bench.see(colour(200, 0, 0), looks[0])
    bench.see(colour(0, 200, 0), looks[1])  # newer than the event that follows
    begin = bench.tell("begin", look=looks[0])
    update = bench.tell("update", look=looks[1])
    same = bench.tell("update", look=looks[1])
    bench.see(colour(0, 0, 200), looks[2])
    end = bench.tell("end", look=looks[2])
    for written in (False, True):
        colours = [
            decoded(bench.history.picture(number)).mean((0, 1)).round(-1).tolist()
            for number in (begin, update, same, end)
        ]
        assert colours == [[200, 0, 0], [0, 200, 0], [0, 200, 0], [0, 0, 200]], written
        bench.write()
    assert all(one["picture"] for one in bench.documents())
    other = bench.tell("begin", track=2)
    assert bench.history.picture(other) is None
    assert not orjson.loads(bench.history.one(other) or b"")["picture"]


def test_a_picture_that_several_events_have_is_stored_once_and_goes_with_the_last_of_them(bench: Bench) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    look = shot_at((200, 100, 360, 260), bench.clock.wall_s)
    bench.see(noise, look)
    first, second = bench.tell("begin", look=look), bench.tell("update", look=look)
    bench.write()
    picture = bench.history.picture(first)
    assert picture is not None
    assert bench.disk().count(picture[2000:2100]) <= 2  # the file, and its log
    bench.history.remove(first)
    bench.write()
    assert bench.history.picture(second) == picture
    third = bench.tell("update", look=look)
    bench.write()
    bench.history.remove(second)
    bench.history.remove(third)
    bench.write()
    assert picture[2000:2100] not in bench.disk()
    fourth = bench.tell("end", look=look)  # of a track whose events were deleted
    bench.write()
    assert bench.history.picture(fourth) is None  # what was deleted does not come back


def test_pictures_are_published_where_that_is_wanted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, snapshots=True)
    look = shot_at((300, 150, 340, 200), bench.clock.wall_s)
    bench.see(colour(200, 0, 0), look)
    number = bench.tell("begin", look=look)
    (message,) = bench.published
    assert (message.kind, message.camera, message.track) == ("snapshot", "door", 1)
    assert decoded(message.encode(0.0, replayed=False)).shape == (95, 95, 3)
    bench.write()
    assert bench.history.picture(number) is None  # history.pictures is off
    assert message.body[200:300] not in bench.disk()


def test_without_a_wish_for_pictures_none_are_made(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.see(colour(200, 0, 0), shot_at((300, 150, 340, 200), bench.clock.wall_s))
    assert not bench.history.output._queue


def test_a_look_of_which_there_is_no_picture_harms_no_event(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.see(colour(1, 2, 3), shot_at((float("nan"), 0, 9, 9), bench.clock.wall_s))
    number = bench.tell("begin")
    assert bench.history.picture(number) is None
    assert "no picture of the best looks in a frame of camera door: ValueError" in caplog.text


def test_an_open_track_does_not_bring_a_deleted_picture_back(bench: Bench) -> None:
    look = shot_at((300, 150, 340, 200), bench.clock.wall_s)
    bench.see(colour(1, 2, 3), look, look)
    first, other = bench.tell("begin", look=look), bench.tell("begin", 2, look=look)
    bench.write()
    for wanted in (first, Filter(since_ms=0)):
        deleted = bench.history.remove(wanted)
        bench.write()
        assert deleted.result() == (1 if wanted == first else 2)
        assert bench.history.picture(bench.tell("update", look=look)) is None
        kept = bench.history.picture(bench.tell("update", 2, look=look))
        assert (kept is not None) == (wanted == first)
        other = bench.history.newest
        bench.history.remove(other - 1)
        bench.write()


def test_few_frames_wait_and_the_oldest_are_lost(bench: Bench) -> None:
    looks = [shot_at((300, 150, 340, 200), bench.clock.wall_s + index) for index in range(12)]
    for index, look in enumerate(looks):
        bench.see(colour(0, 10 * index, 0), look, first=index + 1)
    assert len(bench.history.output._queue) == 8
    assert bench.metrics.history_lost.labels("busy_pictures")._value.get() == 4
    lost, kept = bench.tell("begin", 4, look=looks[3]), bench.tell("begin", 5, look=looks[4])
    assert bench.history.picture(lost) is None
    assert decoded(bench.history.picture(kept)).mean((0, 1)).round().tolist() == [0, 40, 0]


def test_pictures_of_earlier_runs_obey_the_settings_of_this_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, pictures=True)
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    look = shot_at((200, 100, 360, 260), bench.clock.wall_s)

    def tell() -> bytes:
        bench.see(noise, look)
        number = bench.tell("begin", look=look)
        bench.write()
        picture = bench.history.picture(number)
        assert picture is not None
        bench.end()
        return picture

    sharp = tell()
    bench.start(blurred=True)
    bench.write()
    assert not any(one["picture"] for one in bench.documents())
    assert sharp[2000:2100] not in bench.disk()
    blurred = tell()
    bench.start(blurred=True)
    assert sum(one["picture"] for one in bench.documents()) == 2  # the begin, and the end by the restart
    bench.end()
    bench.start(pictures=False)
    bench.write()
    assert not any(one["picture"] for one in bench.documents())
    assert blurred[2000:2100] not in bench.disk()


def test_looks_of_many_tracks_and_of_removed_cameras_are_forgotten(bench: Bench) -> None:
    for track in range(1, 301):
        bench.see(colour(1, 2, 3), shot_at((300, 150, 340, 200), bench.clock.wall_s), first=track)
        bench.history.output.turn()
    assert len(bench.history.output._crops._tracks) == 200
    bench.history.output.forget("door")
    bench.history.output.turn()
    assert not bench.history.output._crops._tracks
