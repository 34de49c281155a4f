"""The API of events: what is asked for is found, and what is asked wrongly is answered clearly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from tests.support.events_api import EventsApi, talk
from tests.support.history_bench import Bench, shot_at
from visaged.daemon.events.schemas import EVENT, EVENTS, STATISTICS
from visaged.daemon.http.settings import ApiKeySettings, HttpSettings


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A history with some events: of two cameras, one a minute, the newest now."""
    bench = Bench(tmp_path, pictures=True)
    for minutes in range(11, -1, -1):
        at = bench.clock.wall_s - 60 * minutes
        known = {"emotion": ("happy", "sad")[minutes % 2], "age": 20.0 + minutes, "gender": "female"}
        bench.tell("begin", 12 - minutes, ("door", "yard")[minutes % 3 == 0], at=at, **known)
    bench.write()
    yield bench
    bench.end()


def test_events_by_pages(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        first = (await api.get("/v1/events?limit=5")).json()
        second = (await api.get(f"/v1/events?limit=5&cursor={first['next']}")).json()
        third = (await api.get(f"/v1/events?limit=5&cursor={second['next']}")).json()
        found = [event["track_id"] for page in (first, second, third) for event in page["events"]]
        assert found == list(range(12, 0, -1))
        assert third["next"] is None
        assert first.keys() == EVENTS["properties"].keys()
        assert first["events"][0].keys() == EVENT["properties"].keys() - {"moved_from"}

    talk(bench, test)


@pytest.mark.parametrize(
    ("query", "tracks"),
    [
        ("camera=yard", [12, 9, 6, 3]),
        ("camera=yard,door&limit=1", [12]),
        ("kind=end", []),
        ("kind=begin,end&limit=2", [12, 11]),
        ("attribute=emotion:happy&limit=2", [12, 10]),
        ("attribute=emotion:happy&attribute=age:24..26", [8, 6]),
        ("attribute=age:..21", [12, 11]),
        ("attribute=age:30.5..", [1]),
        ("attribute=glasses:none", []),
        ("latest=true&limit=1", [12]),
        ("camera=nobody", []),
    ],
)
def test_filters(bench: Bench, query: str, tracks: list[int]) -> None:
    async def test(api: EventsApi) -> None:
        answer = await api.get(f"/v1/events?{query}")
        assert [event["track_id"] for event in answer.json()["events"]] == tracks

    talk(bench, test)


def test_times_with_zones(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        now = datetime.fromtimestamp(bench.clock.wall_s - 1, UTC)  # of the newest event
        since, until = now - timedelta(minutes=3), now - timedelta(minutes=1)
        there = until + timedelta(hours=5, minutes=30)
        for text in (until.isoformat().replace("+00:00", "Z"), f"{there:%Y-%m-%dT%H:%M:%S}+05:30"):
            answer = await api.get(f"/v1/events?since={quote(since.isoformat())}&until={quote(text)}")
            assert [event["track_id"] for event in answer.json()["events"]] == [10, 9], answer.text

    talk(bench, test)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("since=yesterday", "since is no time; write it as 2026-11-21T08:06:27Z"),
        ("since=2026-11-21T08:06:27", "since has no time zone"),
        ("until=2026-11-21", "until is no time"),
        ("until=2026-11-21T08:06:27+01:00", "%2B"),
        ("since=2026-13-21T08:06:27Z", "a time that does not exist"),
        ("since=2026-11-21T08:06:27%2B99:00", "a time that does not exist"),
        ("since=9999-12-31T23:59:59-14:00", "after the year 9999 in UTC"),
        ("until=9999-12-31T23:59:59.9999Z", "after the year 9999 in UTC"),
        ("since=0001-01-01T00:00:00%2B14:00", "before the year 1"),
        ("since=2026-11-21T08:06:27Z&until=2026-11-21T08:06:27Z", "since must be before until"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=1e9", "limit"),
        ("limit=-1", "limit"),
        ("latest=perhaps", "latest"),
        ("kind=begin,gone", "kind is none of begin, update, end"),
        ("kind=", "kind is none of"),
        ("camera=", "camera is no name"),
        ("camera=a/b", "camera is no name"),
        ("camera=%27%20OR%201=1--", "camera is no name"),
        ("camera=" + ",".join(f"c{number}" for number in range(101)), "100 cameras at most"),
        ("cursor=x", "cursor is none of this API's"),
        ("cursor=1.99999999999999999999", "cursor is none"),
        ("cursor=1.9223372036854775808", "cursor is none"),
        ("cursor=1);DROP TABLE events;--", "cursor is none"),
        ("attribute=happy", "attribute is not NAME:VALUE"),
        ("attribute=emotion:", "attribute is not NAME:VALUE"),
        ("attribute=emotion:ecstatic", "emotion is one of calm, happy, sad"),
        ("attribute=emotion:happy' OR '1'='1", "emotion is one of"),
        ("attribute=head_pose:1..2", "there are age, emotion, gender, glasses"),
        ("attribute=x\") OR 1=1:a", "names none that can be searched for"),
        ("attribute=age:30", "age is a number: give from and to, as in age:30..40"),
        ("attribute=age:a..b", "age is a number"),
        ("attribute=age:..", "age is a number"),
        ("attribute=age:nan..1", "age is a number"),
        ("attribute=age:1..inf", "age is a number"),
        ("&".join(["attribute=age:1..2"] * 11), "10 times at most"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_answered_with_what_to_write(bench: Bench, query: str, says: str) -> None:
    async def test(api: EventsApi) -> None:
        answer = await api.client.get("/v1/events?" + quote(query, safe="=&+%:"))
        assert answer.status_code == 400, answer.text
        assert answer.json()["type"] == "urn:visaged:problem:invalid-parameter"
        assert says in answer.json()["detail"]
        assert len((await api.get("/v1/events")).json()["events"]) == 12

    talk(bench, test)


@pytest.mark.parametrize(
    "id", ["1-1", "x", "1-2-3", "%00", "..%2f..%2fetc%2fpasswd", "1'%20OR%20'1'='1", "9" * 300, "%F0%9F%98%80", "-1-1"]
)
def test_ids_of_no_event(bench: Bench, id: str) -> None:
    async def test(api: EventsApi) -> None:
        for answer in (await api.get(f"/v1/events/{id}"), await api.delete(f"/v1/events/{id}")):
            assert answer.status_code == 404, answer.text
        assert (await api.get(f"/v1/events/{id}/best.jpg")).status_code == 404

    talk(bench, test)


def test_an_event_its_picture_and_their_end(bench: Bench) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    look = shot_at((200, 100, 360, 260), bench.clock.wall_s)
    bench.see(noise, look, first=50)
    bench.tell("begin", 50, look=look)  # not written yet

    async def test(api: EventsApi) -> None:
        bench.write()
        (event,) = (await api.get("/v1/events?limit=1")).json()["events"]
        path = f"/v1/events/{event['id']}"
        assert (await api.get(path)).json() == event
        assert event["picture"] is True
        picture = await api.get(f"{path}/best.jpg")
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
        assert picture.headers["cache-control"] == "private, max-age=300"
        assert picture.content[:3] == b"\xff\xd8\xff"
        again = await api.get(f"{path}/best.jpg", **{"If-None-Match": picture.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = (await api.get("/v1/events?limit=2")).json()["events"][1]
        without = await api.get(f"/v1/events/{other['id']}/best.jpg")
        assert (without.status_code, without.json()["type"]) == (404, "urn:visaged:problem:no-picture")
        assert (await api.delete(path)).json() == {"deleted": 1}
        for gone in (await api.get(path), await api.get(f"{path}/best.jpg"), await api.delete(path)):
            assert gone.status_code == 404
            assert "it was deleted" in gone.json()["detail"]
        assert picture.content[5000:5064] not in bench.disk()

    talk(bench, test)


def test_deleting_many(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        refused = await api.delete("/v1/events?camera=door&attribute=emotion:happy")
        assert refused.status_code == 400
        assert "nothing was deleted" in refused.json()["detail"]
        assert (await api.delete("/v1/events?camera=yard")).json() == {"deleted": 4}
        since = datetime.fromtimestamp(bench.clock.wall_s - 150, UTC).isoformat()
        assert (await api.delete(f"/v1/events?since={quote(since)}")).json() == {"deleted": 2}
        assert (await api.delete("/v1/events")).json() == {"deleted": 6}
        assert (await api.get("/v1/events")).json() == {"events": [], "next": None}

    talk(bench, test)


def test_deleting_takes_what_management_takes(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        for headers in ({"Host": "shop.example"}, {"X-Forwarded-For": "192.0.2.1"}):
            assert (await api.delete("/v1/events", **headers)).status_code == 403
        form = await api.delete("/v1/events", **{"Content-Type": "text/plain"})
        assert form.status_code == 415

    talk(bench, test)

    async def reader(api: EventsApi) -> None:
        assert (await api.delete("/v1/events")).status_code == 403

    key = ApiKeySettings(name="shop", sha256="0" * 64)
    talk(bench, reader, settings=HttpSettings(host="0.0.0.0", keys=[key]))


def test_statistics(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        until = datetime.fromtimestamp(bench.clock.wall_s, UTC)
        since = until - timedelta(minutes=6)
        query = f"since={quote(since.isoformat())}&until={quote(until.isoformat())}&step_s=120"
        answer = (await api.get(f"/v1/statistics?{query}")).json()
        assert answer.keys() == STATISTICS["properties"].keys()
        assert [step["tracks"] for step in answer["tracks"]] == [2, 2, 2]  # one began a second before each minute
        assert answer["tracks"][1]["from"] == (since + timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        assert answer["ages"] == [{"from": 20, "to": 30, "tracks": 6}]
        assert answer["emotions"] == {"happy": 3, "sad": 3}
        assert answer["genders"] == {"female": 6}
        yard = (await api.get(f"/v1/statistics?{query}&camera=yard")).json()
        assert sum(step["tracks"] for step in yard["tracks"]) == 2
        day = (await api.get("/v1/statistics")).json()
        assert len(day["tracks"]) == 24
        for query, says in (
            ("step_s=0", "step_s"),
            ("step_s=1", "step_s makes 86400 steps of the time; 10000 are the most"),
            ("since=2099-01-01T00:00:00Z", "since must be before until"),
            ("until=now", "until is no time"),
        ):
            wrong = await api.get(f"/v1/statistics?{query}")
            assert wrong.status_code == 400
            assert says in wrong.json()["detail"]

    talk(bench, test)


def test_without_a_history_answers_say_what_to_set(tmp_path: Path) -> None:
    async def test(api: EventsApi) -> None:
        for answer in (
            await api.get("/v1/events"), await api.get("/v1/events/1-1"), await api.get("/v1/events/1-1/best.jpg"),
            await api.get("/v1/statistics"), await api.delete("/v1/events"), await api.delete("/v1/events/1-1"),
        ):  # fmt: skip
            assert (answer.status_code, answer.json()["type"]) == (409, "urn:visaged:problem:no-history")
            assert "set history.keep_hours" in answer.json()["detail"]

    talk(Bench(tmp_path, keep_s=0.0), test)


def test_a_disk_that_is_away_is_said(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        assert bench.folder is not None
        bench.folder.rename(bench.folder.with_name("aside"))
        bench.folder.write_text("no folder")
        bench.write(5.0)
        for answer in (await api.get("/v1/events"), await api.delete("/v1/events"), await api.get("/v1/statistics")):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "the history cannot be used now" in answer.json()["detail"]

    talk(bench, test)


def test_too_many_questions_at_once_are_refused(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        answers = await asyncio.gather(*(api.get("/v1/events?limit=500") for _ in range(100)))
        codes = [answer.status_code for answer in answers]
        assert codes.count(200) >= 32
        assert set(codes) == {200, 503}
        assert (await api.get("/v1/events")).status_code == 200

    talk(bench, test)
