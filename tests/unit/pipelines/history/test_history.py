"""What the history keeps is found again, by every filter, over restarts; with clocks that the test sets."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.history_bench import Bench
from tests.support.messages import event, valid
from tests.support.subscriber import Message
from visaged.pipelines.history.history import NotKept
from visaged.pipelines.history.kept import Numbers, first_number, id_of, number_of
from visaged.pipelines.history.kept import milliseconds as ms
from visaged.pipelines.history.query import Condition, Cursor, Filter, page_sql, statistics_sql
from visaged.pipelines.history.readers import TooSlow
from visaged.pipelines.outputs.messages import Composer, OpenTrack

EMOTIONS = ("calm", "happy", "sad")


@pytest.fixture(params=["disk", "memory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """A history in an empty folder, and one in memory."""
    return Bench(tmp_path if request.param == "disk" else None)


def test_an_event_is_its_message_with_an_id(bench: Bench) -> None:
    number = bench.tell("begin", age=31.5, gender="female")
    before = bench.history.one(number)
    bench.write()
    assert bench.history.one(number) == before  # written or not
    document = orjson.loads(before or b"")
    assert bench.documents() == [document]
    assert (document.pop("id"), document.pop("picture")) == (id_of(number), False)
    valid(Message("visaged/door/events", orjson.dumps(document), 1, False, 0.0))
    assert document["face"]["attributes"]["age"]["value"] == 31.5


def test_ids_are_read_as_they_are_written() -> None:
    number = first_number(1_763_712_000_123) + 16
    assert id_of(number) == "1763712000123-17"
    assert number_of("1763712000123-17") == number
    for text in (
        "",
        "1",
        "1-",
        "-1",
        "1-2-3",
        "1 -2",
        "a-b",
        "1-9999999",
        f"{1 << 43}-1",
        "1-1' OR 1=1",
        "1-\u0661",
        "1-1\n",
    ):
        assert number_of(text) is None


def test_numbers_grow_over_runs_also_when_the_epoch_goes_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.tell()
    bench.write()
    bench.end()
    bench.epoch -= 600_000
    bench.start()
    assert bench.tell() > first
    numbers = Numbers(5)
    numbers.pass_over(3)
    assert (numbers.take(), numbers.take(), numbers.last) == (5, 6, 6)


def random_events(bench: Bench, count: int) -> list[dict[str, Any]]:
    """Tells events of several tracks and cameras; returns them as listeners get them."""
    chance = random.Random(7)
    told = []
    now = bench.clock.wall_s
    for index in range(count):
        camera, track = chance.choice(("door", "yard", "hall")), chance.randrange(1, 30)
        known: dict[str, Any] = {}
        if chance.random() < 0.8:
            known = {"age": chance.uniform(0, 90), "emotion": chance.choice(EMOTIONS)}
        if chance.random() < 0.7:
            known |= {"gender": chance.choice(("male", "female")), "glasses": chance.choice(("none", "glasses"))}
        kind = chance.choice(("begin", "update", "end"))
        at = now - chance.choice((0, 10, 20, chance.uniform(0, 5000)))
        number = bench.tell(kind, track, camera, at=at, **known)  # type: ignore[arg-type]
        told.append(orjson.loads(bench.history.one(number) or b""))
        if index % 40 == 0:
            bench.write()
    bench.write()
    return told


def test_filters_and_statistics_agree_with_counting_by_hand(bench: Bench) -> None:
    told = random_events(bench, 300)
    told.sort(key=lambda one: (ms(one["captured_at"]), number_of(one["id"])), reverse=True)
    newest: dict[tuple[str, int], str] = {}
    for one in sorted(told, key=lambda one: number_of(one["id"]) or 0):
        newest[one["camera"], one["track_id"]] = one["id"]
    since, until = ms(told[250]["captured_at"]), ms(told[20]["captured_at"])

    def value(one: dict[str, Any], name: str) -> Any:
        return one["face"]["attributes"].get(name, {}).get("value")

    cases: list[tuple[dict[str, Any], Any]] = [
        ({}, lambda one: True),
        ({"cameras": ("door",)}, lambda one: one["camera"] == "door"),
        ({"cameras": ("door", "hall")}, lambda one: one["camera"] != "yard"),
        ({"kinds": ("begin", "end")}, lambda one: one["event"] != "update"),
        ({"since_ms": since}, lambda one: ms(one["captured_at"]) >= since),
        ({"since_ms": since, "until_ms": until}, lambda one: since <= ms(one["captured_at"]) < until),
        ({"latest": True}, lambda one: one["id"] in newest.values()),
        ({"conditions": (Condition("emotion", "happy"),)}, lambda one: value(one, "emotion") == "happy"),
        ({"conditions": (Condition("glasses", "none"),)}, lambda one: value(one, "glasses") == "none"),
        (
            {"conditions": (Condition("age", least=30, most=40), Condition("gender", "male")), "cameras": ("yard",)},
            lambda one: value(one, "age") is not None and 30 <= value(one, "age") <= 40
            and value(one, "gender") == "male" and one["camera"] == "yard",
        ),
    ]  # fmt: skip
    for wanted, by_hand in cases:
        expected = [one["id"] for one in told if by_hand(one)]
        assert [one["id"] for one in bench.documents(**wanted)] == expected, wanted
        assert expected
    started = [ms(one["started_at"]) for one in told]
    first, last, step = min(started) + 5000, max(started) - 5000, 600_000
    found = bench.history.statistics(Filter(since_ms=first, until_ms=last), step)
    counted = [one for one in told if one["id"] in newest.values() and first <= ms(one["started_at"]) < last]
    assert sum(found.steps.values()) == len(counted) > 20
    for place, tracks in found.steps.items():
        assert tracks == sum((ms(one["started_at"]) - first) // step == place for one in counted)
    ages = [int(value(one, "age") // 10) for one in counted if value(one, "age") is not None]
    assert found.ages == {age: ages.count(age) for age in set(ages)}
    for name, counts in (("emotion", found.emotions), ("gender", found.genders)):
        labels = [value(one, name) for one in counted if value(one, name) is not None]
        assert counts == {label: labels.count(label) for label in set(labels)}


def test_pages_have_every_event_once_while_new_ones_come(bench: Bench) -> None:
    told = {one["id"] for one in random_events(bench, 120)}
    seen: list[str] = []
    cursor: Cursor | None = None
    while True:
        some, cursor = bench.history.page(Filter(), cursor, 7)
        seen += [orjson.loads(one)["id"] for one in some]
        if cursor is None:
            break
        bench.tell()
        bench.write()
    assert len(seen) == len(set(seen)) == len(told)
    assert set(seen) == told


def test_the_newest_event_stands_for_its_track_also_once_it_is_deleted(bench: Bench) -> None:
    first, second = bench.tell("begin", emotion="sad"), bench.tell(emotion="happy")
    bench.write()
    assert [one["id"] for one in bench.documents(latest=True)] == [id_of(second)]
    future = bench.history.remove(second)
    bench.write()
    assert future.result(0) == 1
    assert [one["id"] for one in bench.documents(latest=True)] == [id_of(first)]
    assert bench.history.statistics(Filter(), 1000).emotions == {"sad": 1}
    again = bench.history.remove(second)
    bench.write()
    assert again.result(0) == 0


def test_tracks_that_a_run_left_open_are_ended_by_the_next(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tell("begin", 1)
    bench.tell("begin", 2)
    bench.tell("end", 2)
    bench.write()
    bench.start()
    (open_,) = bench.documents(latest=True, kinds=("end",), conditions=())[:1]
    ends = {one["track_id"]: one for one in bench.documents(latest=True)}
    assert (ends[1]["event"], ends[1]["reason"], ends[1]["seq"]) == ("end", "restart", 4)
    assert ends[2]["reason"] == "lost"
    assert open_["event"] == "end"
    bench.end()
    bench.start()
    assert len(bench.documents()) == 4


def test_tracks_that_another_node_has_ended_are_ended_as_such(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tell("begin", 1)
    bench.tell("begin", 2)
    bench.write()
    bench.start(ended={("door", bench.epoch, 2)})
    assert {one["track_id"]: one["reason"] for one in bench.documents(latest=True)} == {1: "restart", 2: "moved"}
    bench.end()
    bench.start()
    assert len(bench.documents()) == 4


def test_epochs_of_cameras_may_be_ahead_of_the_clock_of_this_machine(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.history.output.offer(bench.composer.event(event(1), bench.epoch + 10**9))
    bench.history.output.turn()
    bench.write()
    bench.start()
    assert [one["reason"] for one in bench.documents(latest=True)] == ["restart"]


def test_a_track_of_another_node_counts_in_that_nodes_statistics_alone(bench: Bench) -> None:
    lost = Composer("south", 1).event(event(5), 7)
    orphan = OpenTrack("south", 7, 5, lost.body)
    bench.history.output.offer(bench.composer.orphan("door", 9, orphan))
    bench.history.output.turn()
    bench.tell("begin", 6)
    bench.write()
    assert len(bench.documents()) == 2
    assert sum(bench.history.statistics(Filter(), 10**9).steps.values()) == 1


def test_deletion_by_camera_and_time_leaves_the_rest(bench: Bench) -> None:
    now = bench.clock.wall_s
    for age in range(10):
        for camera in ("door", "yard"):
            bench.tell(camera=camera, at=now - age * 60)
    bench.write()
    bench.tell(camera="door", at=now - 200)  # not written yet
    since, until = round((now - 300) * 1000), round((now - 100) * 1000)
    future = bench.history.remove(Filter(("door",), since_ms=since, until_ms=until))
    bench.write()
    assert future.result(0) == 5
    left = [one for one in bench.documents() if one["camera"] == "door"]
    assert len(left) == 6
    assert not [one for one in left if since <= ms(one["captured_at"]) < until]
    assert len(bench.documents(cameras=("yard",))) == 10
    everything = bench.history.remove(Filter())
    bench.write()
    assert everything.result(0) == 16
    assert bench.documents() == []
    assert bench.metrics.history_events._value.get() == 0


def test_indexes_are_used_by_every_question(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tell()
    bench.write()
    with sqlite3.connect(tmp_path / "history.sqlite3") as database:

        def plan(text: str, values: Any) -> str:
            return " / ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}", values))

        happy = (Condition("emotion", "happy"), Condition("glasses", "none"))
        for wanted in (
            Filter(), Filter(("a",)), Filter(("a", "b")), Filter(kinds=("end",), latest=True), Filter(conditions=happy),
            Filter(("a",), ("end",), 1, 2, happy, True),
        ):  # fmt: skip
            for before in (None, Cursor(5, 6)):
                found = plan(*page_sql(wanted, before, 100))
                assert "USING INDEX seen" in found, found
                assert "TEMP B-TREE" not in found, found
        assert "(at>? AND at<?)" in plan(*page_sql(Filter(since_ms=1, until_ms=2), None, 100))
        assert "(camera=? AND at>?" in plan(*page_sql(Filter(("a",), since_ms=1), None, 100))
        for text, values in statistics_sql(Filter(since_ms=1, until_ms=2), 1000):
            assert "SEARCH events USING COVERING INDEX begun (started>? AND started<?)" in plan(text, values)


def test_a_question_that_takes_too_long_is_given_up(bench: Bench) -> None:
    assert bench.history.store is not None
    bench.history.store.readers._limit_s = 0.0
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    with pytest.raises(TooSlow), bench.history.store.readers.connection() as connection:
        connection.execute(endless).fetchall()
    bench.history.store.readers._limit_s = 5.0
    assert bench.documents() == []


def test_without_hours_nothing_is_kept_and_listeners_are_served(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep_s=0.0, pictures=True)
    heard = bench.history.hub.listen(None, lambda item: True, lambda: None)[0]
    bench.tell()
    assert heard is not None
    (item,) = heard.take()
    assert orjson.loads(item.document)["picture"] is False
    with pytest.raises(NotKept):
        bench.documents()
    with pytest.raises(NotKept):
        bench.history.remove(Filter())
    assert list(tmp_path.iterdir()) == []
    assert bench.history.document() is None
