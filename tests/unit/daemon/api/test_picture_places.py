"""Places of pictures: one is taken for as long as a thread works on it, whoever still waits for the answer."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from visaged.daemon.api.pictures import Pictures
from visaged.daemon.http.problems import Problem
from visaged.daemon.http.settings import HttpSettings
from visaged.models.search import Scales
from visaged.pipelines.attributes import NoReader
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.images.analyze import PictureAnalyzer
from visaged.pipelines.images.job import PictureQuery
from visaged.pipelines.jobs import Job
from visaged.pipelines.runtime.metrics import Metrics

PICTURE = Path(__file__).parents[4] / "daemon" / "demo" / "picture.jpg"


class SlowBatcher(Batcher):
    """Keeps the thread that submits, as a picture does that takes long to decode."""

    def __init__(self) -> None:
        super().__init__(max_batch=1, max_wait_s=0.0, max_pictures=16)
        self.gate, self.begun = threading.Event(), 0

    def submit(self, picture: Job) -> None:
        self.begun += 1
        assert self.gate.wait(30)
        super().submit(picture)


async def outcome(pictures: Pictures, data: bytes) -> str:
    try:
        async with pictures.request():
            await pictures.analyse(data, PictureQuery(0.5))
    except Problem as problem:
        return problem.kind
    return "answered"


def test_a_thread_that_nobody_waits_for_keeps_its_place() -> None:
    async def scene() -> None:
        batcher = SlowBatcher()
        # A picture of 0.59 megapixels; there is room for twice the largest.
        settings = HttpSettings(max_waiting=3, deadline_s=0.3, max_megapixels=0.6)
        analyzer = PictureAnalyzer(batcher, NoReader(), Scales(640), settings.max_pixels, settings.deadline_s)
        pictures = Pictures(settings, analyzer, {}, Metrics())
        data = PICTURE.read_bytes()
        async with asyncio.timeout(30):
            assert await asyncio.gather(*(outcome(pictures, data) for _ in range(2))) == ["overloaded"] * 2
            assert batcher.begun == 2
            # There is a place left, and no room.
            assert await outcome(pictures, data) == "overloaded"
            assert batcher.begun == 2
            with pytest.raises(Problem) as refused, pictures.place(), pictures.place():
                raise AssertionError("two of three places are still taken")
            assert refused.value.kind == "overloaded"
            batcher.gate.set()
            while True:
                try:
                    with pictures.place(), pictures.place(), pictures.place():
                        break
                except Problem:
                    await asyncio.sleep(0.01)
            # There is room again; it is late all the same, as nobody computes anything here.
            assert await outcome(pictures, data) == "overloaded"
            assert batcher.begun == 3

    asyncio.run(scene())
