"""Everything that `visaged bench` measures, one thing after another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from visaged.daemon.bench import machine
from visaged.daemon.bench.cameras import Carried, find_carried
from visaged.daemon.bench.clips import SIZES, Clip, make_clip_apart
from visaged.daemon.bench.pictures import Answered, measure_pictures
from visaged.daemon.bench.rig import Bench
from visaged.daemon.settings import Settings

LEAST_S = 20.0
"""Seconds below which a measurement would say nothing."""
_PICTURES_PART = 0.08
_LEAST_CAMERAS_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured.

    Attributes:
        bench: The networks.
        cameras: What is carried of each kind of camera.
        pictures: How single pictures are answered.
        seconds: How long it all took.
        daemons: Numbers of the visaged processes that ran at the beginning or at the end.
        load: Programs that wanted a core before it began; None where that is not known.
    """

    bench: Bench
    cameras: list[Carried]
    pictures: Answered
    seconds: float
    daemons: list[int]
    load: float | None

    def complaints(self) -> list[str]:
        """Return why the figures are low; empty if nothing was in the way."""
        allowed = machine.cores_allowed()
        found = []
        if self.daemons:
            numbers = ", ".join(map(str, self.daemons))
            found.append(f"a visaged daemon runs on this machine (process {numbers}); stop it while you measure")
        measured = [(one.clip.size.name, disturbance) for one in self.cameras for disturbance in one.disturbances]
        measured.append(("single pictures", self.pictures.disturbance))
        spoilt = [(name, one) for name, one in measured if one is not None and one.complaint(allowed) is not None]
        if spoilt:
            worst = max((one for _, one in spoilt), key=lambda one: one.stolen * machine.cores() + one.others)
            names = ", ".join(dict.fromkeys(name for name, _ in spoilt))
            found.append(f"while {names} were measured, {worst.complaint(allowed)}, at the worst")
        return found


def run_all(
    settings: Settings, demo: Path, folder: Path, seconds: float, report: Callable[[str, float], None]
) -> Outcome:
    """Measure everything, in about that many seconds; longer where clips take long to encode.

    Args:
        settings: The configuration; see `Bench`.
        demo: The bundled clip.
        folder: An empty folder for the clips.
        seconds: How long.
        report: Is told what is done, and which part of everything is done, 0..1.

    Raises:
        StartError: A network cannot be loaded.
        NoEncoder: The clips cannot be encoded here.
        BenchError: Something that is measured failed.
    """
    began = time.monotonic()
    load, daemons = machine.load_average(), set(machine.running_daemons())

    def done() -> float:
        return min(1.0, (time.monotonic() - began) / seconds)

    report("loading the networks", 0.0)
    bench = Bench(settings)
    clips: list[Clip] = []
    for size in SIZES:
        path = folder / f"{size.name}.mp4"
        what = f"{size.name}: encoding a clip"
        clips.append(make_clip_apart(demo, size, path, partial(_tell, report, what, done)))
    pictures_s = _PICTURES_PART * seconds
    report("single pictures", done())
    pictures = measure_pictures(bench, demo, pictures_s, lambda part: report("single pictures", done()))
    cameras: list[Carried] = []
    for index, clip in enumerate(clips):
        left = (began + seconds - time.monotonic()) / (len(clips) - index)
        cameras.append(find_carried(bench, clip, max(_LEAST_CAMERAS_S, left), lambda what, part: report(what, done())))
    daemons |= set(machine.running_daemons())
    return Outcome(bench, cameras, pictures, time.monotonic() - began, sorted(daemons), load)


def _tell(report: Callable[[str, float], None], what: str, done: Callable[[], float], part: float) -> None:
    report(what, done())
