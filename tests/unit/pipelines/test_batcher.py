"""The batcher: who waits, who is dropped, who is next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.unit import fakes
from visaged.models.preprocess import Canvas
from visaged.pipelines.batcher import Batcher, Lane, WhenFull
from visaged.pipelines.jobs import DropCause, Job, Overloaded

PATIENCE_S = 20.0
"""Longer than any wait that works; a test that takes it has failed."""
NEVER = threading.Event()


@pytest.fixture
def pool() -> fakes.Threads:
    return fakes.Threads()


class Camera:
    """A lane whose jobs have a name; a file's must not be dropped."""

    def __init__(
        self,
        batcher: Batcher,
        name: str,
        when_full: WhenFull,
        depth: int,
        on_drop: Callable[[fakes.Job, DropCause], None],
    ) -> None:
        self.name = name
        self.lane: Lane = batcher.open_lane(when_full, depth)
        self._on_drop = on_drop

    def offer(self, time_s: float = 0.0, canvas: Canvas = fakes.SMALL, stopping: threading.Event = NEVER) -> bool:
        return self.lane.offer(fakes.Job(self.name, time_s, canvas, on_drop=self._on_drop), stopping)


def batcher(
    max_batch: int = 1,
    max_wait_s: float = 0.0,
    max_pictures: int = 8,
    clock: Callable[[], float] = time.monotonic,
) -> Batcher:
    return Batcher(max_batch, max_wait_s, max_pictures, clock)


def live(
    batcher: Batcher, name: str = "door", on_drop: Callable[[fakes.Job, DropCause], None] = lambda job, cause: None
) -> Camera:
    camera = Camera(batcher, name, WhenFull.DROP_OLDEST, 1, on_drop)
    camera.lane.set_live(True)
    return camera


def file(batcher: Batcher, name: str = "film", depth: int = 4) -> Camera:
    return Camera(batcher, name, WhenFull.WAIT, depth, lambda job, cause: pytest.fail("a file lost a frame"))


def picture(canvas: Canvas | None = fakes.SMALL, is_large: bool = False) -> fakes.Job:
    return fakes.Job(canvas=canvas, is_large=is_large)


def jobs(batch: Sequence[Job]) -> list[fakes.Job]:
    assert all(isinstance(job, fakes.Job) for job in batch)
    return list(batch)  # type: ignore[arg-type]


def names(batch: Sequence[Job]) -> list[str]:
    return [job.name for job in jobs(batch)]


def times(batch: Sequence[Job]) -> list[float]:
    return [job.time_s for job in jobs(batch) if job.name != "picture"]


def serve(batcher: Batcher) -> list[str]:
    """Take a batch and finish it at once."""
    batch = batcher.take(0)
    batcher.done(batch)
    return names(batch)


# --- lanes ------------------------------------------------------------------------------------------------------------


def test_the_newest_frame_of_a_live_camera_wins() -> None:
    dropped: list[tuple[float, DropCause]] = []
    b = batcher()
    door = live(b, on_drop=lambda job, cause: dropped.append((job.time_s, cause)))
    assert all(door.offer(time_s) for time_s in (1, 2, 3))
    assert b.waiting() == (1, 0)
    assert times(b.take(0)) == [3]
    assert dropped == [(1, "overtaken"), (2, "overtaken")]


def test_a_lane_changes_its_policy_when_it_is_known_what_the_source_is() -> None:
    dropped: list[fakes.Job] = []
    b = batcher()
    door = live(b, on_drop=lambda job, cause: dropped.append(job))
    door.lane.set_policy(WhenFull.WAIT, 2)
    assert all(door.offer(time_s) for time_s in (1, 2))
    assert not dropped
    door.lane.set_policy(WhenFull.DROP_OLDEST, 1)
    assert door.offer(3)
    assert times(dropped) == [1, 2]
    assert times(b.take(0)) == [3]


def test_the_newest_frame_wins_while_one_is_in_flight_too() -> None:
    dropped: list[tuple[float, DropCause]] = []
    b = batcher()
    door = live(b, on_drop=lambda job, cause: dropped.append((job.time_s, cause)))
    door.offer(1)
    flying = b.take(0)
    assert all(door.offer(time_s) for time_s in (2, 3))
    assert b.take(0) == []
    b.done(flying)
    assert times(b.take(0)) == [3]
    assert dropped == [(2, "overtaken")]


def test_what_is_told_of_a_dropped_job_may_call_the_batcher() -> None:
    b = batcher()
    seen: list[tuple[int, int]] = []
    door = live(b, on_drop=lambda job, cause: seen.append(b.waiting()))
    assert door.offer(1)
    assert door.offer(2)
    assert seen == [(1, 0)]


def test_a_file_waits_and_loses_nothing(pool: fakes.Threads) -> None:
    b = batcher()
    film = file(b, depth=2)
    count = 40
    writer = pool.submit(lambda: [film.offer(index) for index in range(count)])
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
    film = file(b, depth=2)
    film.offer(1)
    film.offer(2)
    blocked = pool.submit(film.offer, 3)
    with pytest.raises(TimeoutError):
        blocked.result(0.25)
    assert times(b.take(0)) == [1]
    assert blocked.result(PATIENCE_S)
    assert b.waiting() == (2, 0)


def test_a_blocked_reader_ends_within_a_second_of_being_asked_to(pool: fakes.Threads) -> None:
    b = batcher()
    film = file(b, depth=1)
    film.offer(1)
    stopping = threading.Event()
    blocked = pool.submit(film.offer, 2, fakes.SMALL, stopping)
    with pytest.raises(TimeoutError):
        blocked.result(0.2)
    began = time.monotonic()
    stopping.set()
    assert blocked.result(PATIENCE_S) is False
    assert time.monotonic() - began < 1.0
    assert b.waiting() == (1, 0)


def test_a_blocked_file_does_not_block_a_live_camera(pool: fakes.Threads) -> None:
    b = batcher()
    film, door = file(b, depth=1), live(b)
    film.offer(1)
    blocked = pool.submit(film.offer, 2)
    assert door.offer(5)
    assert serve(b) == ["film"]
    assert serve(b) == ["door"]
    assert blocked.result(PATIENCE_S)


# --- order and fairness -----------------------------------------------------------------------------------------------


def test_a_camera_has_one_frame_in_flight() -> None:
    b = batcher(max_batch=4)
    film = file(b)
    for index in range(3):
        film.offer(index)
    first = b.take(0)
    assert times(first) == [0]
    assert b.take(0) == []
    assert not film.lane.idle()
    b.done(first)
    assert times(b.take(0)) == [1]


def test_a_camera_is_idle_when_nothing_waits_or_flies() -> None:
    b = batcher()
    door = live(b)
    assert door.lane.idle()
    door.offer()
    assert not door.lane.idle()
    batch = b.take(0)
    assert not door.lane.idle()
    b.done(batch)
    assert door.lane.idle()


def test_order_is_kept_with_many_callers(pool: fakes.Threads) -> None:
    b = batcher(max_batch=3)
    cameras = [file(b, name, depth=2) for name in "abcd"]
    count = 100
    seen: dict[str, list[float]] = {camera.name: [] for camera in cameras}
    flying: set[str] = set()
    lock = threading.Lock()

    def write(camera: Camera) -> None:
        for index in range(count):
            camera.offer(index)

    def call() -> None:
        while sum(len(s) for s in seen.values()) < count * len(cameras):
            batch = b.take(0.05)
            with lock:
                assert not flying & set(names(batch))
                flying.update(names(batch))
            for job in jobs(batch):
                seen[job.name].append(job.time_s)
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
    cameras = [file(b, name) for name in "abcdef"]
    for _ in range(4):
        for camera in cameras:
            camera.offer()
    served = [name for _ in range(24 // max_batch) for name in serve(b)]
    for start in range(0, 24, 6):
        assert sorted(served[start : start + 6]) == list("abcdef")


def test_a_fast_camera_does_not_starve_a_slow_one() -> None:
    b = batcher()
    fast, slow = live(b, "fast"), live(b, "slow")
    served = []
    for index in range(20):
        fast.offer(index)
        if index % 5 == 0:
            slow.offer(index)
        served += serve(b)
    assert served.count("slow") == 4


def test_pictures_and_cameras_that_take_as_long_take_turns() -> None:
    b = batcher(max_pictures=10, clock=lambda: 0.0)
    one, other = file(b, "a"), file(b, "b")
    for _ in range(3):
        one.offer()
        other.offer()
        b.submit(picture())
        b.submit(picture())
    served = [serve(b)[0] for _ in range(12)]
    assert served == ["a", "picture", "b", "picture"] * 3


@pytest.mark.parametrize(("picture_s", "most"), [(0.05, 0.55), (0.005, 0.55), (0.5, 0.6)])
def test_pictures_and_cameras_share_the_time_and_not_the_turns(picture_s: float, most: float) -> None:
    now_s = 0.0
    b = batcher(max_pictures=2, clock=lambda: now_s)
    camera = file(b, "a")
    for _ in range(2000):
        if len(camera.lane.jobs) < 4:
            camera.offer()
        if b.waiting()[1] < 2:
            b.submit(picture())
        batch = b.take(0)
        now_s += picture_s if names(batch) == ["picture"] else 0.005
        b.done(batch)
    frames_s, pictures_s = b.spent()
    assert frames_s + pictures_s == pytest.approx(now_s)
    assert 1 - most < pictures_s / now_s < most


def test_pictures_take_what_cameras_do_not_want_of_their_half() -> None:
    now_s = 0.0
    b = batcher(max_pictures=1, clock=lambda: now_s)
    camera = live(b)
    asked = served = 0
    while now_s < 100:
        if now_s >= 0.2 * asked:  # five frames a second
            asked += 1
            camera.offer()
        if not b.waiting()[1]:
            b.submit(picture())
        batch = b.take(0)
        is_picture = names(batch) == ["picture"]
        served += not is_picture
        now_s += 0.05 if is_picture else 0.005
        b.done(batch)
    assert served >= 0.99 * asked, "frames are not overtaken beside pictures"
    assert b.spent()[1] > 0.95 * 97.5


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
    b = batcher(max_batch=4, max_pictures=50, clock=lambda: 0.0)
    cameras = [file(b, "a"), file(b, "b")]
    if first == "picture":
        b.submit(picture(fakes.TALL))
        assert serve(b) == ["picture"]
    served: list[list[str]] = []
    for _ in range(4):
        for camera in cameras:
            camera.offer()
        b.submit(picture(fakes.TALL))
    for _ in range(8):
        served.append(serve(b))
    assert all(len({name == "picture" for name in batch}) == 1 for batch in served)
    assert sum(batch[0] == "picture" for batch in served[:4]) == 2


def test_one_large_picture_at_a_time_and_others_pass_it() -> None:
    b = batcher()
    door = live(b)
    large = [picture(is_large=True) for _ in range(2)]
    small = picture()
    for one in (*large, small):
        b.submit(one)
    assert b.take(0) == [large[0]]
    assert b.take(0) == [small]  # the second large one waits for the first
    assert b.take(0) == []
    assert door.offer()
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
    for one in (picture(), picture(), picture(None), picture()):
        b.submit(one)
    assert [len(b.take(0)) for _ in range(3)] == [2, 1, 1]


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_of_one_shape() -> None:
    b = batcher(max_batch=8)
    for camera, canvas in (("a", fakes.SMALL), ("b", fakes.SMALL), ("c", fakes.TALL), ("d", fakes.SMALL)):
        file(b, camera).offer(canvas=canvas)
    assert [serve(b), serve(b), serve(b), serve(b)] == [["a", "b"], ["c"], ["d"], []]


def test_a_batch_has_no_more_than_its_most() -> None:
    b = batcher(max_batch=3)
    for index in range(7):
        file(b, f"c{index}").offer()
    assert [len(b.take(0)) for _ in range(3)] == [3, 3, 1]


def took(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    result = call()
    return result, time.monotonic() - began


def test_a_full_batch_does_not_wait() -> None:
    b = batcher(max_batch=2, max_wait_s=PATIENCE_S)
    cameras = [live(b, name) for name in "abc"]
    for camera in cameras[:2]:
        camera.offer()
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["a", "b"]
    assert seconds < 5


def test_a_batch_waits_for_a_live_camera_but_not_for_ever() -> None:
    b = batcher(max_batch=2, max_wait_s=0.15)
    live(b, "a").offer()
    live(b, "b")
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["a"]
    assert 0.14 < seconds < 5


def test_a_batch_is_on_its_way_once_the_awaited_frame_is_there(pool: fakes.Threads) -> None:
    b = batcher(max_batch=2, max_wait_s=PATIENCE_S)
    one, other = live(b, "a"), live(b, "b")
    one.offer()
    taken = pool.submit(b.take, 0)
    with pytest.raises(TimeoutError):
        taken.result(0.2)
    other.offer()
    assert names(taken.result(5)) == ["a", "b"]


def test_nobody_waits_for_a_dead_camera() -> None:
    b = batcher(max_batch=4, max_wait_s=PATIENCE_S)
    one, dead = live(b, "a"), live(b, "dead")
    dead.lane.set_live(False)
    file(b)
    for index in range(3):
        one.offer(index)
        batch, seconds = took(lambda: b.take(0))
        assert times(batch) == [index]
        assert seconds < 5
        b.done(batch)


def test_a_camera_that_dies_while_a_batch_waits_for_it_ends_the_wait(pool: fakes.Threads) -> None:
    b = batcher(max_batch=2, max_wait_s=PATIENCE_S)
    one, dying = live(b, "a"), live(b, "dying")
    one.offer()
    taken = pool.submit(b.take, 0)
    with pytest.raises(TimeoutError):
        taken.result(0.2)
    dying.lane.set_live(False)
    assert names(taken.result(5)) == ["a"]


def test_nobody_waits_for_a_camera_whose_frame_is_in_flight() -> None:
    b = batcher(max_batch=4, max_wait_s=PATIENCE_S)
    one, other = live(b, "a"), live(b, "b")
    one.offer(1)
    other.lane.set_live(False)
    flying = b.take(0)
    other.lane.set_live(True)
    other.offer(2)
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["b"]
    assert seconds < 5
    b.done(flying)


def test_a_picture_alone_waits_for_a_live_camera_no_longer_than_the_bound() -> None:
    b = batcher(max_batch=4, max_wait_s=0.1)
    live(b)
    b.submit(picture())
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["picture"]
    assert seconds < 5


def test_batches_of_one_never_wait() -> None:
    b = batcher(max_batch=1, max_wait_s=PATIENCE_S)
    live(b, "a").offer()
    live(b, "b")
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["a"]
    assert seconds < 5


# --- waiting and closing ----------------------------------------------------------------------------------------------


def test_take_waits_for_the_first_item(pool: fakes.Threads) -> None:
    b = batcher()
    door = live(b)
    taken = pool.submit(b.take, PATIENCE_S)
    with pytest.raises(TimeoutError):
        taken.result(0.2)
    door.offer(4)
    assert times(taken.result(5)) == [4]


def test_take_gives_up_in_time() -> None:
    batch, seconds = took(lambda: batcher().take(0.1))
    assert batch == []
    assert 0.09 < seconds < 5


def test_close_gives_back_what_was_not_started() -> None:
    b = batcher()
    film = file(b)
    for camera in ("a", "b"):
        live(b, camera).offer()
    for index in range(3):
        film.offer(index)
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
    dropped: list[fakes.Job] = []
    b = batcher()
    door = live(b, on_drop=lambda job, cause: dropped.append(job))
    b.close()
    assert not door.offer()
    assert dropped == []
    with pytest.raises(Overloaded):
        b.submit(picture())
    batch, seconds = took(lambda: b.take(PATIENCE_S))
    assert batch == []
    assert seconds < 5


def test_close_frees_everybody_who_waits(pool: fakes.Threads) -> None:
    b = batcher(max_batch=2, max_wait_s=PATIENCE_S)
    film = file(b, depth=1)
    live(b)
    film.offer(1)
    filling = pool.submit(b.take, PATIENCE_S)  # waits for the door
    reading = pool.submit(film.offer, 2)
    stuck = pool.submit(film.offer, 3)
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


# --- lanes that go ----------------------------------------------------------------------------------------------------


def test_a_closed_lane_gives_back_what_waits_and_takes_nothing_more() -> None:
    b = batcher()
    film, other = file(b), file(b, "other")
    for index in range(3):
        film.offer(index)
    other.offer(7)
    assert times(film.lane.close()) == [0, 1, 2]
    assert not film.offer(3)
    assert film.lane.close() == []
    assert b.waiting() == (1, 0)
    assert times(b.take(0)) == [7]
    assert b.take(0) == []


@pytest.mark.parametrize("when_full", list(WhenFull))
def test_a_lane_is_closed_while_its_job_is_in_flight(when_full: WhenFull) -> None:
    b = batcher()
    camera = Camera(b, "door", when_full, 1, lambda job, cause: None)
    camera.offer(1)
    flying = b.take(0)
    camera.offer(2)
    assert times(camera.lane.close()) == [2]
    assert not camera.lane.idle()
    camera.lane.set_live(True)
    again = live(b)  # of the same name
    assert again.offer(3)
    assert times(b.take(0)) == [3]
    b.done(flying)
    assert camera.lane.idle()
    assert not again.lane.idle()
    assert not camera.offer(4)
    assert b.take(0) == []
    b.done(flying)  # a second time changes nothing
    assert b.take(0) == []


def test_closing_a_lane_frees_its_reader(pool: fakes.Threads) -> None:
    b = batcher()
    film = file(b, depth=1)
    film.offer(1)
    blocked = pool.submit(film.offer, 2)
    with pytest.raises(TimeoutError):
        blocked.result(0.2)
    assert times(film.lane.close()) == [1]
    assert blocked.result(5) is False
    assert b.waiting() == (0, 0)


def test_nobody_waits_for_a_lane_that_was_closed(pool: fakes.Threads) -> None:
    b = batcher(max_batch=2, max_wait_s=PATIENCE_S)
    one, gone = live(b, "a"), live(b, "gone")
    one.offer()
    taken = pool.submit(b.take, 0)
    with pytest.raises(TimeoutError):
        taken.result(0.2)
    gone.lane.close()
    assert names(taken.result(5)) == ["a"]
    b.done(taken.result(0))
    gone.lane.set_live(True)  # its thread has not noticed yet
    one.offer()
    batch, seconds = took(lambda: b.take(0))
    assert names(batch) == ["a"]
    assert seconds < 5


def test_a_batch_that_was_waited_for_may_be_closed_away(pool: fakes.Threads) -> None:
    b = batcher(max_batch=2, max_wait_s=PATIENCE_S)
    one, other = live(b, "a"), live(b, "b")
    one.offer(1)
    taken = pool.submit(b.take, 0)
    with pytest.raises(TimeoutError):
        taken.result(0.2)
    assert times(one.lane.close()) == [1]
    other.lane.set_live(False)
    assert taken.result(5) == []
    assert other.offer(2)
    assert times(b.take(0)) == [2]


def test_a_closed_batcher_has_nothing_of_a_closed_lane() -> None:
    b = batcher()
    door, film = live(b), file(b)
    door.offer(1)
    film.offer(2)
    assert times(door.lane.close()) == [1]
    assert times(b.close()) == [2]
    assert film.lane.close() == []


def test_lanes_come_and_go_under_load(pool: fakes.Threads) -> None:
    """Every job that was taken from its camera is computed or given back, exactly once."""
    b = batcher(max_batch=3)
    stopping = threading.Event()
    served: list[fakes.Job] = []
    lock = threading.Lock()

    def work() -> None:
        while not stopping.is_set() or b.waiting() != (0, 0):
            batch = b.take(0.02)
            with lock:
                served.extend(jobs(batch))
            b.done(batch)

    def come_and_go(name: str) -> tuple[list[fakes.Job], list[fakes.Job]]:
        accepted, returned = [], []
        for index in range(40):
            camera = file(b, name, depth=2)
            camera.lane.set_live(True)
            for step in range(index % 5):
                job = fakes.Job(name, index * 10 + step)
                assert camera.lane.offer(job, NEVER)
                accepted.append(job)
            returned += jobs(camera.lane.close())
        return accepted, returned

    workers = [pool.submit(work) for _ in range(2)]
    cameras = [pool.submit(come_and_go, name) for name in "ab"]
    outcomes = [camera.result(PATIENCE_S) for camera in cameras]
    stopping.set()
    for worker in workers:
        worker.result(PATIENCE_S)
    accepted = [job for one, _ in outcomes for job in one]
    returned = [job for _, one in outcomes for job in one]
    assert len(served) + len(returned) == len(accepted)
    assert set(served) | set(returned) == set(accepted)
