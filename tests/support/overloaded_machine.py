"""A machine that is simulated, for what sheds load: cameras' threads and inference workers share its cores.

Time goes on in steps of some milliseconds. A camera sends 25 pictures a second, and a key frame at the beginning of
each group; what its thread has not read waits, and is as old as that. Workers come before cameras' threads, as in the
daemon, and the threads share what is left. What is asked of a camera is heeded as its thread does it (`Thinning`), and
measured as `CameraSet.loads` does it. Nothing reads a clock.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from visaged.pipelines.batcher import Batcher
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.shedding.load import CameraLoad
from visaged.pipelines.shedding.processor import Usage
from visaged.pipelines.shedding.shedding import Shedding
from visaged.pipelines.source.demand import FULL, Demand
from visaged.pipelines.source.times.thinning import Thinning
from visaged.pipelines.source.times.timeline import Sampler

STEP_S = 0.004
FPS, SOURCE_FPS = 5.0, 25


@dataclass(slots=True)
class Picture:
    """A picture in work: when it was taken, whether it is a key frame, whether to analyse it, and what it takes."""

    taken_s: float
    is_key: bool
    is_kept: bool
    left_s: float


@dataclass(slots=True)
class Cam:
    """A camera with its thread and its lane.

    Attributes:
        name: Its name.
        begins_s: When it sends its first picture, which is a key frame.
        has_face: Whether somebody is there all the time.
        group: Pictures from key frame to key frame.
        analysed: Pictures that were analysed.
        key_frames: Those of them that are key frames.
        ages_s: Their ages when the result was there.
    """

    name: str
    begins_s: float
    has_face: bool
    group: int
    analysed: int = 0
    key_frames: int = 0
    ages_s: list[float] = field(default_factory=list)
    demand: Demand = FULL
    thinning: Thinning = field(default_factory=lambda: Thinning(FPS))
    sampler: Sampler = field(default_factory=lambda: Sampler(FPS))
    read: int = 0
    is_whole: bool = True
    decoded: Picture | None = None
    waiting: Picture | None = None
    is_in_flight: bool = False
    lag_s: float = 0.0
    worked_s: float = 0.0
    offered: int = 0
    overtaken: int = 0


class OverloadedMachine:
    """A machine and its cameras, of which every second one shows faces.

    Args:
        cameras: How many.
        cores: Number of cores, and of workers.
        others: Cores that other programs take.
        every_s: Seconds between the starts of cameras.
        group_s: Seconds between key frames.
        all_faces: Whether all show faces.
        decode_s: Processor time of a picture; of a key frame five times as much.
        analyse_s: Processor time of a worker for a picture.

    Attributes:
        cams: The cameras.
        reduced: The most cameras that were reduced, at each time.
    """

    def __init__(
        self,
        cameras: int,
        cores: int = 2,
        others: float = 0.0,
        every_s: float = 0.13,
        group_s: float = 2.0,
        all_faces: bool = False,
        decode_s: float = 0.0065,
        analyse_s: float = 0.013,
    ) -> None:
        self.now_s = 100.0
        self.cams = [
            Cam(f"c{n}", self.now_s + n * every_s, all_faces or n % 2 == 0, round(group_s * SOURCE_FPS))
            for n in range(cameras)
        ]
        self.reduced: list[int] = []
        self._cores, self._others = cores, others
        self._decode_s, self._analyse_s = decode_s, analyse_s
        self._chance = random.Random(1)
        self._queue: list[Cam] = []
        self._workers: list[tuple[Cam, Picture] | None] = [None] * cores
        self._spent_s = 0.0
        usage = _Usage(self)
        self._shedding = Shedding(self, Batcher(1, 0.0, 1), None, Metrics(), lambda: self.now_s, usage)

    def run(self, seconds: float) -> None:
        """Go on for some seconds."""
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            free_s = self._work((self._cores - self._others) * STEP_S)
            self._decode(free_s)
            self._shedding.tick()
            self.reduced.append(sum(demand != FULL for demand in self._shedding.demands.values()))

    def forget(self) -> None:
        """Measure from now on."""
        self.reduced.clear()
        for cam in self.cams:
            cam.analysed = cam.key_frames = 0
            cam.ages_s.clear()

    def age_s(self, part: float) -> float:
        """Return the age that this part of the results does not exceed."""
        ages_s = sorted(age_s for cam in self.cams for age_s in cam.ages_s)
        return ages_s[int(part * len(ages_s))]

    def loads(self) -> list[CameraLoad]:
        """See `shedding.Cameras`."""
        return [
            CameraLoad(one.name, 0, FPS, 0.0 if one.has_face else math.inf, one.lag_s, one.worked_s, one.offered,
                       one.overtaken)
            for one in self.cams if one.begins_s <= self.now_s
        ]  # fmt: skip

    def demand(self, demands: Mapping[str, Demand]) -> None:
        """See `shedding.Cameras`."""
        for cam in self.cams:
            cam.demand = demands.get(cam.name, FULL)

    def usage(self) -> tuple[float, float]:
        """Return the processor time of the cameras and workers since the last call, and of all, in seconds."""
        spent_s, self._spent_s = self._spent_s, 0.0
        return spent_s, self._others

    def _work(self, free_s: float) -> float:
        """Let the workers work for a step; return the processor time that is left."""
        for number in range(len(self._workers)):
            left_s = min(STEP_S, free_s)
            while left_s > 1e-9:
                if self._workers[number] is None and self._queue:
                    cam = self._queue.pop(0)
                    picture, cam.waiting, cam.is_in_flight = cam.waiting, None, True
                    assert picture is not None
                    picture.left_s = self._analyse_s * self._chance.uniform(0.8, 1.3)
                    self._workers[number] = cam, picture
                work = self._workers[number]
                if work is None:
                    break
                cam, picture = work
                done_s = min(left_s, picture.left_s)
                left_s, free_s = left_s - done_s, free_s - done_s
                self._spent_s += done_s
                picture.left_s -= done_s
                if picture.left_s <= 1e-9:
                    self._workers[number], cam.is_in_flight = None, False
                    cam.analysed += 1
                    cam.key_frames += picture.is_key
                    cam.ages_s.append(self.now_s - picture.taken_s)
                    if cam.waiting is not None:
                        self._queue.append(cam)
        return free_s

    def _decode(self, free_s: float) -> None:
        """Let the cameras' threads share what the workers have left of a step."""
        active = [cam for cam in self.cams if self._reads(cam)]
        self._chance.shuffle(active)
        for cam in active:
            cam.worked_s += STEP_S
            left_s = min(STEP_S, free_s, max(STEP_S * 0.1, self._cores * STEP_S / len(active)))
            while left_s > 1e-9 and self._reads(cam):
                assert cam.decoded is not None
                done_s = min(left_s, cam.decoded.left_s)
                cam.decoded.left_s -= done_s
                left_s, free_s = left_s - done_s, free_s - done_s
                self._spent_s += done_s
                if cam.decoded.left_s <= 1e-9:
                    picture, cam.decoded = cam.decoded, None
                    if picture.is_kept:
                        self._offer(cam, picture)

    def _offer(self, cam: Cam, picture: Picture) -> None:
        cam.offered += 1
        if cam.waiting is not None:
            cam.overtaken += 1
        elif not cam.is_in_flight:
            self._queue.append(cam)
        cam.waiting = picture

    def _reads(self, cam: Cam) -> bool:
        """Read until there is something to decode; return whether there is."""
        while cam.decoded is None:
            taken_s = cam.begins_s + cam.read / SOURCE_FPS
            if taken_s > self.now_s:
                return False
            is_key = cam.read % cam.group == 0
            cam.read += 1
            cam.lag_s = self.now_s - taken_s
            decode = cam.thinning.heed(cam.demand, taken_s, is_key, decoding_is_cheap=False)
            cam.is_whole = decode == "all" and (cam.is_whole or is_key)
            if cam.is_whole or (decode == "key_frames" and is_key):
                cam.sampler.set_fps(cam.thinning.fps)
                takes_s = self._decode_s * (5 if is_key else 1) * self._chance.uniform(0.7, 1.3)
                cam.decoded = Picture(taken_s, is_key, cam.sampler.keep(taken_s), takes_s)
        return True


class _Usage(Usage):
    """How busy the simulated cores are."""

    def __init__(self, machine: OverloadedMachine) -> None:
        super().__init__(machine._cores, lambda: machine.now_s, lambda: 0.0)
        self._machine = machine
        self._last_s = machine.now_s

    def look(self) -> tuple[float, float]:
        spent_s, others = self._machine.usage()
        passed_s, self._last_s = self._machine.now_s - self._last_s, self._machine.now_s
        if not passed_s:
            return 0.0, 0.0
        own = min(1.0, spent_s / passed_s / self.allowed)
        return own, min(1.0, own + others / self.allowed)
