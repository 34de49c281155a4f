"""How many single pictures a second are answered: by the parts behind `POST /v1/faces`, without HTTP itself."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import orjson

from visaged.daemon.api.pictures import Pictures
from visaged.daemon.bench.clips import first_picture
from visaged.daemon.bench.machine import Disturbance, Watch
from visaged.daemon.bench.rig import Bench, BenchError
from visaged.daemon.specs import face_threshold
from visaged.models.search import Scales
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.images.analyze import PictureAnalyzer
from visaged.pipelines.images.job import PictureQuery
from visaged.pipelines.outputs.documents import face_document
from visaged.pipelines.runtime.metrics import Metrics

CLIENTS = 8
_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Answered:
    """How single pictures were answered.

    Attributes:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        faces: Faces found in it.
        long_side: The longest canvas on which it is searched, `http.long_side`.
        clients: How many pictures are sent at a time, each when the one before is answered.
        a_second: Answers a second.
        half_ms: Milliseconds within which half of the answers came.
        most_ms: Milliseconds within which 99 % of the answers came.
        disturbance: What others took of the machine; None where that cannot be found out.
    """

    width: int
    height: int
    faces: int
    long_side: int
    clients: int
    a_second: float
    half_ms: float
    most_ms: float
    disturbance: Disturbance | None


def measure_pictures(
    bench: Bench, demo: Path, seconds: float, report: Callable[[float], None] = lambda part: None
) -> Answered:
    """Have a picture of the demo analysed again and again for some seconds.

    Raises:
        BenchError: A picture could not be analysed.
    """
    image = first_picture(demo)
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    batcher = bench.batcher()
    workers = bench.inference(batcher)
    for worker in workers:
        worker.start()
    try:
        work = _Work(_pictures(bench, batcher), encoded, bench)
        asyncio.run(work.run(0.2 * seconds, lambda part: report(0.2 * part)))  # what is new to memory and caches
        watch = Watch()
        began = time.monotonic()
        asyncio.run(work.run(0.8 * seconds, lambda part: report(0.2 + 0.8 * part)))
        passed, disturbance = time.monotonic() - began, watch.disturbance()
    finally:
        for job in batcher.close():
            job.drop("shutdown")
        for worker in workers:
            worker.stop()
    times = work.milliseconds
    percents = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
    return Answered(
        image.shape[1], image.shape[0], work.faces, bench.settings.http.long_side, CLIENTS, len(times) / passed,
        percents[49], percents[98], disturbance,
    )  # fmt: skip


def _pictures(bench: Bench, batcher: Batcher) -> Pictures:
    """Return what analyses pictures for the API, put together as the daemon does it."""
    settings, heads = bench.settings, bench.reader.heads
    scales = Scales.of(bench.detector, settings.inference.long_side, settings.http.long_side)
    analyzer = PictureAnalyzer(
        batcher,
        bench.reader,
        scales,
        settings.http.max_pixels,
        settings.http.deadline_s,
        decode_in_workers=not bench.detector.on_gpu,
    )
    pictures = Pictures(settings.http, analyzer, heads, Metrics(), bench.detector.floor)
    threshold = face_threshold(settings, bench.detector)
    pictures.configure(settings.enabled(set(heads)), threshold, settings.least(heads))
    return pictures


class _Work:
    """Clients that each send a picture when the one before is answered."""

    def __init__(self, pictures: Pictures, picture: bytes, bench: Bench) -> None:
        self._pictures = pictures
        self._picture = picture
        self._bench = bench
        self._query = PictureQuery(pictures.threshold, pictures.attributes)
        self.milliseconds: list[float] = []
        self.faces = 0

    async def run(self, seconds: float, report: Callable[[float], None]) -> None:
        """Send pictures for some seconds, and wait for their answers."""
        self.milliseconds = []
        end = time.monotonic() + seconds
        clients = [asyncio.create_task(self._client(end)) for _ in range(CLIENTS)]
        while (left := end - time.monotonic()) > 0 and not any(client.done() for client in clients):
            report(1 - left / seconds)
            self._bench.check()
            await asyncio.sleep(min(0.2, left))
        await asyncio.gather(*clients)

    async def _client(self, end: float) -> None:
        while not self.milliseconds or time.monotonic() < end:
            began = time.monotonic()
            try:
                result = await self._pictures.analyse(self._picture, self._query)
            except Exception as error:
                raise BenchError(f"a picture could not be analysed: {type(error).__name__}: {error}") from error
            orjson.dumps({"faces": [face_document(face, tracked=False) for face in result.faces]})
            self.faces = len(result.faces)
            self.milliseconds.append(1000 * (time.monotonic() - began))
