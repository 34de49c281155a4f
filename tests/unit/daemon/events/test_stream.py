"""The event stream: events and cameras as they come, what a listener missed, and those that do not listen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.events_api import EventsApi, talk
from tests.support.history_bench import Bench
from visaged.daemon.events import stream
from visaged.pipelines.history.kept import id_of


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty history."""
    return Bench(tmp_path / "state")


def test_cameras_first_then_what_happens(bench: Bench) -> None:
    bench.tell("begin")  # of the past, which nobody asks for

    async def test(api: EventsApi) -> None:
        async with api.listening() as heard:
            cameras = await heard.until("camera", 2)
            assert [camera.data["camera"] for camera in cameras] == ["door", "yard"]
            number = bench.tell("update", age=30.0)
            (face,) = await heard.until("face", 1)
            assert face.id == face.data["id"] == id_of(number)
            assert face.data == (await asyncio.to_thread(_one, bench, number))
            assert heard.text.startswith(b"retry: 2000\n\n")
            assert heard.status == 200

    talk(bench, test)


def _one(bench: Bench, number: int) -> Any:
    return orjson.loads(bench.history.one(number) or b"null")


def test_changes_of_cameras_are_told_and_nothing_else_of_them(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        async with api.listening("/v1/events/stream?camera=door") as heard, api.listening() as other:
            await heard.until("camera", 1)
            await other.until("camera", 2)
            api.view.documents["door"]["age_ms"] = 99  # changes with every frame
            bench.history.hub.changed()
            await asyncio.sleep(0.15)
            api.view.documents["door"]["tracks"] = 1
            api.view.documents["yard"]["tracks"] = 1
            bench.history.hub.changed()
            told = await heard.until("camera", 2)
            assert told[1].data == {"camera": "door", "state": "streaming", "tracks": 1, "age_ms": 99}
            await other.until("camera", 4)
            del api.view.documents["door"]
            bench.history.output.forget("door")
            assert (await heard.until("removed", 1))[0].data == {"camera": "door"}
            assert len(heard.of("camera")) == 2
        assert not bench.history.hub._watchers

    talk(bench, test)


def test_filters_by_camera_and_kind(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        async with api.listening("/v1/events/stream?camera=yard&kind=end,begin") as heard:
            await heard.until("camera", 1)
            bench.tell("begin", camera="door")
            bench.tell("update", camera="yard")
            bench.tell("end", camera="yard")
            (face,) = await heard.until("face", 1)
            assert (face.data["camera"], face.data["event"]) == ("yard", "end")

    talk(bench, test)


def test_last_event_id_brings_what_was_missed_from_disk_and_memory(bench: Bench) -> None:
    bench.history.hub._most_remembered = 20
    numbers = []
    for index in range(600):
        numbers.append(bench.tell())
        if index < 590:
            bench.write(0.0)

    async def test(api: EventsApi) -> None:
        async with api.listening(**{"last-event-id": id_of(numbers[9])}) as heard:
            await heard.until("face", 590)
            numbers.append(bench.tell())
            faces = await heard.until("face", 591)
            assert [face.id for face in faces] == [id_of(number) for number in numbers[10:]]
            assert not heard.of("gap")
        future = bench.history.remove(numbers[20])
        bench.write()
        assert future.result(0) == 1
        async with api.listening(**{"last-event-id": id_of(numbers[9])}) as heard:
            faces = await heard.until("face", 590)
            assert len(heard.of("gap")) == 1
            assert id_of(numbers[20]) not in [face.id for face in faces]

    talk(bench, test)


@pytest.mark.parametrize("id", ["1-1", "8000000000000-1"])
def test_an_id_of_another_history_is_a_gap_and_what_comes_is_told(bench: Bench, id: str) -> None:
    async def test(api: EventsApi) -> None:
        async with api.listening(**{"last-event-id": id}) as heard:
            await heard.until("gap", 1)
            await asyncio.sleep(0)
            number = bench.tell()
            assert (await heard.until("face", 1))[-1].id == id_of(number)

    talk(bench, test)


def test_an_id_that_is_none_is_refused(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        for headers, path in (({"last-event-id": "x"}, ""), ({}, "?kind=x"), ({}, "?camera=%00")):
            answer = await api.get(f"/v1/events/stream{path}", **headers)
            assert answer.status_code == 400, answer.text

    talk(bench, test)


def test_without_a_history_what_is_remembered_is_told_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep_s=0.0)
    numbers = [bench.tell() for _ in range(5)]

    async def test(api: EventsApi) -> None:
        async with api.listening(**{"last-event-id": id_of(numbers[1])}) as heard:
            assert [face.id for face in await heard.until("face", 3)] == [id_of(number) for number in numbers[2:]]
            assert not heard.of("gap")

    talk(bench, test)


def test_a_history_that_cannot_be_read_is_a_gap(bench: Bench) -> None:
    bench.history.hub._most_remembered = 2
    numbers = [bench.tell() for _ in range(5)]
    bench.write()

    async def test(api: EventsApi) -> None:
        assert bench.folder is not None
        bench.folder.rename(bench.folder.with_name("aside"))
        bench.folder.write_text("no folder")
        bench.write(5.0)
        async with api.listening(**{"last-event-id": id_of(numbers[0])}) as heard:
            assert [face.id for face in await heard.until("face", 2)] == [id_of(number) for number in numbers[3:]]
            assert len(heard.of("gap")) == 1

    talk(bench, test)


def test_a_listener_that_takes_nothing_is_disconnected(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        async with api.listening() as slow, api.listening() as quick:
            await slow.until("camera", 2)
            await quick.until("camera", 2)
            slow.taking.clear()
            for count in range(1, 401):
                bench.tell()
                if count % 50 == 0:
                    await quick.until("face", count)
            await slow.end()
            assert slow.task.cancelled()
            assert not slow.over  # not an end that looks like one
            bench.tell()
            assert len(await quick.until("face", 401)) == 401
        assert api.viewers._taken == 0

    talk(bench, test)


def test_all_end_when_the_daemon_does(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        async with api.listening() as one, api.listening() as other:
            await one.until("camera", 2)
            await other.until("camera", 2)
            api.viewers.close()
            await one.end()
            await other.end()
            assert one.over
            assert other.over
        assert not bench.history.hub._listeners

    talk(bench, test)


def test_seats_are_few_and_head_takes_none(bench: Bench) -> None:
    async def test(api: EventsApi) -> None:
        async with api.listening() as heard:
            await heard.until("camera", 2)
            refused = await api.get("/v1/events/stream")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
            head = await api.client.head("/v1/events/stream")
            assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream")
        async with api.listening() as heard:
            await heard.until("camera", 2)

    talk(bench, test, most_viewers=1)


def test_silence_is_broken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_ALIVE_S", 0.01)

    async def test(api: EventsApi) -> None:
        async with api.listening() as heard:
            async with asyncio.timeout(10):
                while heard.text.count(b": alive\n\n") < 3:
                    await asyncio.sleep(0.01)

    talk(bench, test)
