"""The batcher: who waits, who is dropped, who is next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.unit import fakes
from visaged.models.alignment import ImagePixels
from visaged.models.preprocess import Canvas, canvas_for
from visaged.models.search import Look
from visaged.pipelines.batcher import Batcher, Item, Overloaded, Picture, View, WhenFull
from visaged.pipelines.frames import Frame

PATIENCE_S = 20.0
"""Longer than any wait that works; a test that takes it has failed."""
NEVER = threading.Event()


@pytest.fixture
def pool() -> fakes.Threads:
    return fakes.Threads()


def batcher(max_batch: int = 1, max_wait_s: float = 0.0, max_pictures: int = 8) -> Batcher:
    return Batcher(max_batch, max_wait_s, max_pictures)


def live(batcher: Batcher, *cameras: str, on_drop: Callable[[Frame], None] = lambda frame: None) -> None:
    for camera in cameras:
        batcher.add_camera(camera, WhenFull.DROP_OLDEST, 1, on_drop)
        batcher.set_live(camera, True)


def file(batcher: Batcher, *cameras: str, depth: int = 4) -> None:
    for camera in cameras:
        batcher.add_camera(camera, WhenFull.WAIT, depth, lambda frame: pytest.fail("a file lost a frame"))


def offer(batcher: Batcher, camera: str, time_s: float = 0.0, canvas: Canvas = fakes.SMALL) -> bool:
    return batcher.offer(fakes.frame(time_s, camera, canvas=canvas), NEVER)


def picture(canvas: Canvas = fakes.SMALL) -> Picture:
    return Picture(View([Look(canvas.blank(), canvas)], ImagePixels(canvas.blank())), frozenset(), 0.5, 1e9)


def names(batch: Sequence[Item]) -> list[str]:
    return [item.camera if isinstance(item, Frame) else "picture" for item in batch]


def times(batch: Sequence[Item]) -> list[float]:
    return [item.captured_s for item in batch if isinstance(item, Frame)]


def serve(batcher: Batcher) -> list[str]:
    """Take a batch and finish it at once."""
    batch = batcher.take(0)
    batcher.done(batch)
    return names(batch)


# --- lanes ------------------------------------------------------------------------------------------------------------


def test_the_newest_frame_of_a_live_camera_wins() -> None:
    dropped: list[Frame] = []
    b = batcher()
    live(b, "door", on_drop=dropped.append)
    assert all(offer(b, "door", time_s) for time_s in (1, 2, 3))
    assert b.waiting() == (1, 0)
    assert times(b.take(0)) == [3]
    assert times(dropped) == [1, 2]


def test_a_lane_changes_its_policy_when_it_is_known_what_the_source_is() -> None:
    dropped: list[Frame] = []
    b = batcher()
    live(b, "door", on_drop=dropped.append)
    b.set_policy("door", WhenFull.WAIT, 2)
    assert all(offer(b, "door", time_s) for time_s in (1, 2))
    assert not dropped
    b.set_policy("door", WhenFull.DROP_OLDEST, 1)
    assert offer(b, "door", 3)
    assert times(dropped) == [1, 2]
    assert times(b.take(0)) == [3]


def test_the_newest_frame_wins_while_one_is_in_flight_too() -> None:
    dropped: list[Frame] = []
    b = batcher()
    live(b, "door", on_drop=dropped.append)
    offer(b, "door", 1)
    flying = b.take(0)
    assert all(offer(b, "door", time_s) for time_s in (2, 3))
    assert b.take(0) == []
    b.done(flying)
    assert times(b.take(0)) == [3]
    assert times(dropped) == [2]


def test_what_is_told_of_a_dropped_frame_may_call_the_batcher() -> None:
    b = batcher()
    live(b, "door", on_drop=lambda frame: seen.append(b.waiting()))
    seen: list[tuple[int, int]] = []
    assert offer(b, "door", 1)
    assert offer(b, "door", 2)
    assert seen == [(1, 0)]


def test_a_file_waits_and_loses_nothing(pool: fakes.Threads) -> None:
    b = batcher()
    file(b, "film", depth=2)
    count = 40
    writer = pool.submit(lambda: [offer(b, "film", index) for index in range(count)])
    seen: list[float] = []
    while len(seen) < count:
        batch = b.take(PATIENCE_S)
        assert batch
        assert b.waiting()[0] <= 2
        seen += times(batch)
        b.done(batch)
    assert seen == list(range(count))
    assert writer.result(PATIENCE_S) == [True] * count


def test_a_full_lane_of_a_file_blocks_and_goes_on(pool: fakes.Threads) -> None:
    b = batcher()
    file(b, "film", depth=2)
    offer(b, "film", 1)
    offer(b, "film", 2)
    blocked = pool.submit(offer, b, "film", 3)
    with pytest.raises(TimeoutError):
        blocked.result(0.25)
    assert times(b.take(0)) == [1]
    assert blocked.result(PATIENCE_S)
    assert b.waiting() == (2, 0)


def test_a_blocked_reader_ends_within_a_second_of_being_asked_to(pool: fakes.Threads) -> None:
    b = batcher()
    file(b, "film", depth=1)
    offer(b, "film", 1)
    stopping = threading.Event()
    blocked = pool.submit(b.offer, fakes.frame(2, "film"), stopping)
    with pytest.raises(TimeoutError):
        blocked.result(0.2)
    began = time.monotonic()
    stopping.set()
    assert blocked.result(PATIENCE_S) is False
    assert time.monotonic() - began < 1.0
    assert b.waiting() == (1, 0)


def test_a_blocked_file_does_not_block_a_live_camera(pool: fakes.Threads) -> None:
    b = batcher()
    file(b, "film", depth=1)
    live(b, "door")
    offer(b, "film", 1)
    stopping = threading.Event()
    blocked = pool.submit(b.offer, fakes.frame(2, "film"), stopping)
    assert offer(b, "door", 5)
    assert serve(b) == ["film"]
    assert serve(b) == ["door"]
    assert blocked.result(PATIENCE_S)


# --- order and fairness -----------------------------------------------------------------------------------------------


def test_a_camera_has_one_frame_in_flight() -> None:
    b = batcher(max_batch=4)
    file(b, "film")
    for index in range(3):
        offer(b, "film", index)
    first = b.take(0)
    assert times(first) == [0]
    assert b.take(0) == []
    assert not b.idle("film")
    b.done(first)
    assert times(b.take(0)) == [1]


def test_a_camera_is_idle_when_nothing_waits_or_flies() -> None:
    b = batcher()
    live(b, "door")
    assert b.idle("door")
    offer(b, "door")
    assert not b.idle("door")
    batch = b.take(0)
    assert not b.idle("door")
    b.done(batch)
    assert b.idle("door")


def test_order_is_kept_with_many_callers(pool: fakes.Threads) -> None:
    b = batcher(max_batch=3)
    cameras = ["a", "b", "c", "d"]
    file(b, *cameras, depth=2)
    count = 100
    seen: dict[str, list[float]] = {camera: [] for camera in cameras}
    flying: set[str] = set()
    lock = threading.Lock()

    def write(camera: str) -> None:
        for index in range(count):
            offer(b, camera, index)

    def call() -> None:
        while sum(len(s) for s in seen.values()) < count * len(cameras):
            batch = b.take(0.05)
            with lock:
                assert not flying & set(names(batch))
                flying.update(names(batch))
            for item in batch:
                assert isinstance(item, Frame)
                seen[item.camera].append(item.captured_s)
            with lock:
                flying.difference_update(names(batch))
            b.done(batch)

    work = [pool.submit(write, camera) for camera in cameras] + [pool.submit(call) for _ in range(3)]
    for future in work:
        future.result(PATIENCE_S)
    assert all(s == list(range(count)) for s in seen.values())


@pytest.mark.parametrize("max_batch", [1, 2])
def test_no_camera_is_served_twice_before_the_others(max_batch: int) -> None:
    b = batcher(max_batch)
    cameras = ["a", "b", "c", "d", "e", "f"]
    file(b, *cameras)
    for _ in range(4):
        for camera in cameras:
            offer(b, camera)
    served = [name for _ in range(24 // max_batch) for name in serve(b)]
    for start in range(0, 24, 6):
        assert sorted(served[start : start + 6]) == cameras


def test_a_fast_camera_does_not_starve_a_slow_one() -> None:
    b = batcher()
    live(b, "fast", "slow")
    served = []
    for index in range(20):
        offer(b, "fast", index)
        if index % 5 == 0:
            offer(b, "slow", index)
        served += serve(b)
    assert served.count("slow") == 4


def test_pictures_and_cameras_take_turns() -> None:
    b = batcher(max_pictures=10)
    file(b, "a", "b")
    for _ in range(3):
        offer(b, "a")
        offer(b, "b")
        b.submit(picture())
        b.submit(picture())
    served = [serve(b)[0] for _ in range(12)]
    assert served == ["a", "picture", "b", "picture"] * 3


def test_pictures_alone_are_served_in_order() -> None:
    b = batcher(max_batch=2)
    waiting = [picture() for _ in range(3)]
    for one in waiting:
        b.submit(one)
    assert b.take(0) == waiting[:2]
    assert b.take(0) == waiting[2:]


@pytest.mark.parametrize("first", ["camera", "picture"])
def test_pictures_and_cameras_of_different_shapes_take_turns_too(first: str) -> None:
    """Neither starves the other when they never fit into one batch."""
    b = batcher(max_batch=4, max_pictures=50)
    file(b, "a", "b")
    if first == "picture":
        b.submit(picture(fakes.TALL))
        assert serve(b) == ["picture"]
    served: list[list[str]] = []
    for _ in range(4):
        for camera in ("a", "b"):
            offer(b, camera)
        b.submit(picture(fakes.TALL))
    for _ in range(8):
        served.append(serve(b))
    assert all(len({name == "picture" for name in batch}) == 1 for batch in served)
    assert sum(batch[0] == "picture" for batch in served[:4]) == 2


def test_one_large_picture_at_a_time_and_others_pass_it() -> None:
    b = batcher()
    live(b, "door")
    canvas = canvas_for(1, 1, 2048)
    large = [picture(canvas) for _ in range(2)]
    small = picture()
    for one in (*large, small):
        b.submit(one)
    assert b.take(0) == [large[0]]
    assert b.take(0) == [small]  # the second large one waits for the first
    assert b.take(0) == []
    assert offer(b, "door")
    assert names(b.take(0)) == ["door"]
    b.done([small])
    assert b.take(0) == []
    b.done([large[0]])
    assert b.take(0) == [large[1]]


def test_too_many_pictures_are_refused() -> None:
    b = batcher(max_pictures=2)
    b.submit(picture())
    b.submit(picture())
    with pytest.raises(Overloaded):
        b.submit(picture())
    assert b.waiting() == (0, 2)
    serve(b)
    b.submit(picture())


def test_a_picture_that_is_not_decoded_yet_is_computed_alone() -> None:
    b = batcher(max_batch=8)
    for view in (picture(), picture(), None, picture()):
        one = view or picture()
        if view is None:
            one.view = None
        b.submit(one)
    assert [len(b.take(0)) for _ in range(3)] == [2, 1, 1]


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_of_one_shape() -> None:
    b = batcher(max_batch=8)
    for camera, canvas in (("a", fakes.SMALL), ("b", fakes.SMALL), ("c", fakes.TALL), ("d", fakes.SMALL)):
        file(b, camera)
        offer(b, camera, canvas=canvas)
    assert [serve(b), serve(b), serve(b), serve(b)] == [["a", "b"], ["c"], ["d"], []]


def test_a_batch_has_no_more_than_its_most() -> None:
    b = batcher(max_batch=3)
    cameras = [f"c{index}" for index in range(7)]
    file(b, *cameras)
    for camera in cameras:
        offer(b, camera)
    assert [len(b.take(0)) for _ in range(3)] == [3, 3, 1]


def took(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    result = call()
    return result, time.monotonic() - began


def test_a_full_batch_does_not_wait() -> None:
    b = batcher(max_batch=2, max_wait_s=PATIENCE_S)
    live(b, "a", "b", "c")
    offer(b, "a")
    offer(b, "b")
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["a", "b"]
    assert seconds < 5


def test_a_batch_waits_for_a_live_camera_but_not_for_ever() -> None:
    b = batcher(max_batch=2, max_wait_s=0.15)
    live(b, "a", "b")
    offer(b, "a")
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["a"]
    assert 0.14 < seconds < 5


def test_a_batch_is_on_its_way_once_the_awaited_frame_is_there(pool: fakes.Threads) -> None:
    b = batcher(max_batch=2, max_wait_s=PATIENCE_S)
    live(b, "a", "b")
    offer(b, "a")
    taken = pool.submit(b.take, 0)
    with pytest.raises(TimeoutError):
        taken.result(0.2)
    offer(b, "b")
    assert names(taken.result(5)) == ["a", "b"]


def test_nobody_waits_for_a_dead_camera() -> None:
    b = batcher(max_batch=4, max_wait_s=PATIENCE_S)
    live(b, "a", "dead")
    b.set_live("dead", False)
    file(b, "film")
    for index in range(3):
        offer(b, "a", index)
        batch, seconds = took(lambda: b.take(0))
        assert times(batch) == [index]
        assert seconds < 5
        b.done(batch)


def test_a_camera_that_dies_while_a_batch_waits_for_it_ends_the_wait(pool: fakes.Threads) -> None:
    b = batcher(max_batch=2, max_wait_s=PATIENCE_S)
    live(b, "a", "dying")
    offer(b, "a")
    taken = pool.submit(b.take, 0)
    with pytest.raises(TimeoutError):
        taken.result(0.2)
    b.set_live("dying", False)
    assert names(taken.result(5)) == ["a"]


def test_nobody_waits_for_a_camera_whose_frame_is_in_flight() -> None:
    b = batcher(max_batch=4, max_wait_s=PATIENCE_S)
    live(b, "a", "b")
    offer(b, "a", 1)
    b.set_live("b", False)
    flying = b.take(0)
    b.set_live("b", True)
    offer(b, "b", 2)
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["b"]
    assert seconds < 5
    b.done(flying)


def test_a_picture_alone_waits_for_a_live_camera_no_longer_than_the_bound() -> None:
    b = batcher(max_batch=4, max_wait_s=0.1)
    live(b, "a")
    b.submit(picture())
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["picture"]
    assert seconds < 5


def test_batches_of_one_never_wait() -> None:
    b = batcher(max_batch=1, max_wait_s=PATIENCE_S)
    live(b, "a", "b")
    offer(b, "a")
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["a"]
    assert seconds < 5


# --- waiting and closing ----------------------------------------------------------------------------------------------


def test_take_waits_for_the_first_item(pool: fakes.Threads) -> None:
    b = batcher()
    live(b, "door")
    taken = pool.submit(b.take, PATIENCE_S)
    with pytest.raises(TimeoutError):
        taken.result(0.2)
    offer(b, "door", 4)
    assert times(taken.result(5)) == [4]


def test_take_gives_up_in_time() -> None:
    batch, seconds = took(lambda: batcher().take(0.1))
    assert batch == []
    assert 0.09 < seconds < 5


def test_close_gives_back_what_was_not_started() -> None:
    b = batcher()
    live(b, "a", "b")
    file(b, "film")
    for camera in ("a", "b"):
        offer(b, camera)
    for index in range(3):
        offer(b, "film", index)
    waiting = picture()
    b.submit(waiting)
    flying = b.take(0)
    rest = b.close()
    assert names(flying) == ["a"]
    assert sorted(names(rest)) == ["b", "film", "film", "film", "picture"]
    assert waiting in rest
    assert b.close() == []
    assert b.waiting() == (0, 0)
    b.done(flying)
    assert b.take(0) == []


def test_a_closed_batcher_takes_nothing_more() -> None:
    dropped: list[Frame] = []
    b = batcher()
    live(b, "door", on_drop=dropped.append)
    b.close()
    assert not offer(b, "door")
    assert dropped == []
    with pytest.raises(Overloaded):
        b.submit(picture())
    batch, seconds = took(lambda: b.take(PATIENCE_S))
    assert batch == []
    assert seconds < 5


def test_close_frees_everybody_who_waits(pool: fakes.Threads) -> None:
    b = batcher(max_batch=2, max_wait_s=PATIENCE_S)
    file(b, "film", depth=1)
    live(b, "door")
    offer(b, "film", 1)
    filling = pool.submit(b.take, PATIENCE_S)  # waits for the door
    reading = pool.submit(offer, b, "film", 2)
    stuck = pool.submit(offer, b, "film", 3)
    with pytest.raises(TimeoutError):
        filling.result(0.2)
    rest = b.close()
    assert filling.result(5) == []
    assert sorted([reading.result(5), stuck.result(5)]) == [False, False]
    assert times(rest) == [1]


def test_close_frees_a_caller_that_waits_for_anything(pool: fakes.Threads) -> None:
    b = batcher()
    taken = pool.submit(b.take, PATIENCE_S)
    with pytest.raises(TimeoutError):
        taken.result(0.2)
    b.close()
    assert taken.result(5) == []
