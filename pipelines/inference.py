"""The inference workers: they take batches of jobs, run the networks on them, and deliver the results.

By default there are two workers for a GPU, and on a CPU one for each core. On a CPU they share a session with a single
thread, because that is faster than one worker whose session has many threads. All steps of a frame run in the worker
that has it in flight, so that nothing needs a lock between stages.

Failures are contained. If a network fails on a batch, each job is run again by itself. A job on which the detector
fails again has no result; one on which the analyzer fails again has no new attributes, and its tracks and events go on.
A network that fails on all of several batches in a row ends the process, because it is broken. Any other exception
from a job costs the result of that job alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from visaged.models import search
from visaged.models.detector import Detector
from visaged.models.search import Look
from visaged.models.types import Detections
from visaged.pipelines.attributes import AttributeReader, Reading, Request
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.jobs import InferenceFailed, Job
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.progress import beat
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

# A picture of 50 megapixels on a canvas of 4096 px takes a small computer some ten seconds.
_SLOW = 2.0
_PATIENCE = {"tensorrt": 4.0, "cuda": 4.0, "openvino": 4.0}
"""How many times as long as usual a step of a batch may take, by provider, before the worker counts as stalled: for
each new shape CUDA and TensorRT search for their fastest algorithms, and OpenVINO compiles the network."""


@dataclass(slots=True, eq=False)
class _Work:
    """A job in a batch; `readings` is None if the analyzer failed on it."""

    job: Job
    looks: Sequence[Look]
    found: Detections = field(default_factory=Detections.empty)
    requests: Sequence[Request] = ()
    readings: Sequence[Reading] | None = ()


class Inference:
    """The work of the inference workers.

    Args:
        batcher: Queue from which jobs are taken.
        detector: Finds faces.
        reader: Reads the attributes of faces.
        metrics: Counts failed batches, and times the detector.
        clock: Returns monotonic seconds.
    """

    # Batches in a row on which a network fails before it counts as broken.
    _MOST_FAILURES = 8

    def __init__(
        self,
        batcher: Batcher,
        detector: Detector,
        reader: AttributeReader,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batcher = batcher
        self._detector = detector
        self._reader = reader
        self._clock = clock
        self._failed = metrics.failed_batches
        self._seconds = metrics.inference.labels(detector.name)
        self._sizes = metrics.batch_size.labels(detector.name)
        self._failures = 0
        self._failures_lock = threading.Lock()
        self._patience = _PATIENCE.get(detector.provider, _SLOW)
        self._complain = LimitedLog(log, logging.ERROR)

    def run(self, stopping: threading.Event) -> None:
        """Compute batches until `stopping` is set and no job is left.

        Raises:
            InferenceFailed: The networks failed on several batches in a row.
        """
        while True:
            beat()
            batch = self._batcher.take(0.25)
            if batch:
                self._serve(batch)
            elif stopping.is_set():
                return

    def _serve(self, batch: list[Job]) -> None:
        started_s = self._clock()
        failures: list[Exception] = []
        beat(self._patience)
        try:
            work = [one for job in batch if (one := self._started(job, started_s)) is not None]
            if work:
                self._compute(work, started_s, failures)
        finally:
            self._batcher.done(batch)
        if work:
            self._count(failures)

    def _count(self, failures: list[Exception]) -> None:
        """Count batches that failed one after another, over all workers.

        Args:
            failures: Exceptions of networks that failed on a whole batch; cleared here. An exception holds the
                variables of the functions that it passed, so these must not hold it: the batch would stay in memory.
        """
        with self._failures_lock:
            if not failures:
                self._failures = 0
                return
            self._failures += 1
            failure = failures[0]
            failures.clear()
            if self._failures >= self._MOST_FAILURES:
                raise InferenceFailed(f"the networks failed {self._failures} times in a row: {failure}") from failure

    def _compute(self, work: list[_Work], started_s: float, failures: list[Exception]) -> None:
        """Compute a batch and deliver the results; exceptions of networks that failed on all of it go to `failures`."""
        lost = self._attempt("detector", self._detect, work, failures)
        for one in work:
            one.looks = ()
        for one in lost:
            one.job.fail()
        work = [one for one in work if one not in lost and self._observed(one)]
        unread = self._attempt("analyzer", self._read, [one for one in work if one.requests], failures)
        for one in unread:
            one.readings = None
        for one in work:
            with self._contained(one.job):
                one.job.conclude(one.readings, started_s)

    def _attempt(
        self, network: str, run: Callable[[Sequence[_Work]], None], work: list[_Work], failures: list[Exception]
    ) -> list[_Work]:
        """Run a network over some work; return what it failed on, and if that is all, add the exception to `failures`.

        Pictures come from outside, and the network may fail on one of them. If a batch of several fails, each job is
        run again by itself, so that the other jobs get their results.
        """
        if not work:
            return []
        beat(self._patience)
        try:
            run(work)
        except Exception as error:
            self._failed.inc()
            self._complain("the %s failed on a batch of %d: %s: %s", network, len(work), type(error).__name__, error)
            log.debug("the failed batch", exc_info=error)
            lost = self._apart(run, work) if len(work) > 1 else work
            if len(lost) == len(work):
                failures.append(error)
            return lost
        return []

    def _apart(self, run: Callable[[Sequence[_Work]], None], work: list[_Work]) -> list[_Work]:
        """Run each job alone; return those that fail again."""
        lost = []
        for one in work:
            beat(self._patience)
            try:
                run([one])
            except Exception as error:
                log.debug("%s failed again by itself", one.job, exc_info=error)
                lost.append(one)
        return lost

    def _detect(self, work: Sequence[_Work]) -> None:
        began = self._clock()
        found = search.find(self._detector, [one.looks for one in work])
        self._seconds.observe(self._clock() - began)
        self._sizes.observe(len(work))
        for one, detections in zip(work, found, strict=True):
            one.found = detections

    def _read(self, work: Sequence[_Work]) -> None:
        readings = self._reader.read([asked for one in work for asked in one.requests])
        if len(readings) != sum(len(one.requests) for one in work):
            raise ValueError(f"the analyzer returned {len(readings)} readings, not one for every face")
        begin = 0
        for one in work:
            end = begin + len(one.requests)
            one.readings = readings[begin:end]
            begin = end

    def _started(self, job: Job, now_s: float) -> _Work | None:
        with self._contained(job):
            if job.start(now_s):
                return _Work(job, job.looks())
        return None

    def _observed(self, one: _Work) -> bool:
        with self._contained(one.job):
            one.job.release()
            one.requests = one.job.observe(one.found)
            return True
        return False

    @contextlib.contextmanager
    def _contained(self, job: Job) -> Iterator[None]:
        """Contain an exception from a step of a job: only this job fails."""
        try:
            yield
        except Exception as error:
            self._complain("a %s could not be worked on: %s: %s", job, type(error).__name__, error)
            log.debug("the failed %s", job, exc_info=error)
            job.fail()
