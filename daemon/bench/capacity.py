"""How many cameras a node of a fleet is to carry, measured within some seconds at its first start and then remembered.

`visaged bench` tries numbers of cameras for a minute, on a machine that should be quiet. A node cannot wait for that,
and may start beside others. So a few cameras of 1080p, 25 frames a second and 4 Mb/s are read as fast as the machine
can, and it is counted what a second of such a camera costs in seconds of a core: that hardly depends on what other
programs do. Of the cores' time, `CARRIED` can be used before frames are dropped, and `MARGIN` of that is given away:
other scenes have more faces than the clip, and a node has messages, pictures and viewers to serve. Where a GPU
computes, cores are not what ends first, so there it counts how many cameras were read in the time.

The clip is made, and the networks are loaded, in a process of its own, which takes its memory with it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from visaged.daemon.bench import machine
from visaged.daemon.bench.cameras import saturate
from visaged.daemon.bench.clips import SIZES, SOURCE_FPS, NoEncoder, make_clip
from visaged.daemon.bench.rig import Bench, BenchError
from visaged.daemon.errors import StartError
from visaged.daemon.settings import Settings
from visaged.models.nvidia.driver import devices

log = logging.getLogger(__name__)

MARGIN = 0.8
"""Part of the cameras that a machine carries without a dropped frame that a fleet gives it."""
CARRIED = 0.78
"""Part of the cores' time that cameras take when as many are carried as can be. Measured: 10 cameras of 720p of the
12.8 that two cores would carry if they were never idle."""
FILE = "capacity.json"
MEASURE_S = 3.0
_ROUNDS = 3
_LONGEST_S = 600.0  # TensorRT builds engines for minutes
_DEMO = Path(__file__).parents[1] / "demo" / "demo.mp4"
_PARTS = ("models", "inference", "attributes", "min_confidence", "tracker")


class CapacityError(Exception):
    """The capacity cannot be measured; the text says why."""


def to_give(carried: float) -> float:
    """Return how many cameras a fleet gives to a machine that carries a number of them, to a tenth."""
    return round(MARGIN * carried, 1)


def measured_capacity(
    settings: Settings,
    folder: Path | None,
    version: str,
    stopping: threading.Event | None = None,
    seconds: float = MEASURE_S,
) -> float:
    """Return how many cameras of 1080p25 this machine is to carry with a configuration, in tenths of a camera.

    What was measured is kept in `capacity.json` in the state folder, and measured anew when visaged's version, the
    networks, how they run, the cameras' usual frames a second or decoder, or the machine's processor have changed.
    While others take the cores it is measured up to three times, each twice as long as the last, the best counts, and
    the next start measures anew.

    Args:
        settings: The configuration, of which models, inference, attributes, the tracker and the cameras are used.
        folder: The state folder; None keeps nothing, and measures at every call.
        version: Version of the program.
        stopping: Breaks the measurement off when it is set.
        seconds: How long is measured, after clip and networks are ready.

    Raises:
        CapacityError: It cannot be measured here.
    """
    question = _question(settings, version)
    known = None if folder is None else _remembered(folder / FILE, question)
    if known is not None:
        return known
    log.info("measuring how many cameras this machine carries; it takes cameras after that")
    began = time.monotonic()
    request = {"settings": question["settings"], "camera": question["camera"], "seconds": seconds}
    cache = settings.inference.cache or (None if folder is None else folder / "tensorrt")
    if cache is not None and cache.is_dir():  # engines that were built once are not built for this
        request["settings"]["inference"]["cache"] = str(cache)
    answer = _measure_apart(request, stopping or threading.Event())
    capacity = to_give(answer["carried"])
    fps = "every frame" if question["camera"]["fps"] is None else f"{question['camera']['fps']:g} frames a second"
    text = "this machine is to carry %.1f cameras of 1080p25 with %s analysed, measured in %.0f s"
    log.info(text, capacity, fps, time.monotonic() - began)
    if answer["low"]:
        log.warning("that is low, as %s; the next start measures it anew, or give the node a capacity", answer["low"])
    if folder is not None:
        _remember(folder / FILE, {"capacity": capacity, **answer, "of": question})
    return capacity


def usual(settings: Settings) -> dict[str, Any]:
    """Return the frames a second and the decoder that most cameras have; the usual ones where there is no camera."""
    pairs = Counter((camera.fps, camera.hardware) for camera in settings.cameras)
    fps, hardware = pairs.most_common(1)[0][0] if pairs else (5.0, "off")
    return {"fps": fps, "hardware": hardware}


def _question(settings: Settings, version: str) -> dict[str, Any]:
    """Return all that the capacity depends on, as plain data without secrets."""
    used = settings.model_dump(mode="json", include=set(_PARTS))
    used["http"] = {"long_side": settings.http.long_side}
    try:
        manifest = hashlib.sha256(settings.models.manifest.read_bytes()).hexdigest()
    except OSError:
        manifest = ""  # the daemon itself says what is wrong with it
    return {
        "version": version,
        "settings": used,
        "manifest": manifest,  # names the networks with their sums
        "camera": usual(settings),
        "processor": machine.processor(),
        "cores": round(machine.cores_allowed(), 2),
        "gpus": [str(one) for one in devices()],
    }


def _remembered(path: Path, question: dict[str, Any]) -> float | None:
    try:
        kept = json.loads(path.read_bytes())
        same = kept["of"] == json.loads(json.dumps(question)) and not kept["low"]
        return float(kept["capacity"]) if same and 0 <= kept["capacity"] < float("inf") else None
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be used, and the capacity is measured anew: %s", path, error)
    return None


def _remember(path: Path, document: dict[str, Any]) -> None:
    document |= {"measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(document, indent=1), encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        log.warning("the capacity cannot be kept in %s, and is measured at the next start too: %s", path, error)


def _measure_apart(request: dict[str, Any], stopping: threading.Event) -> dict[str, Any]:
    """Measure in another process, which ends when `stopping` is set."""
    with tempfile.TemporaryDirectory(prefix="visaged-capacity-") as folder:
        asked = Path(folder) / "request.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", __name__, str(asked)]
        with subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                said, trouble = _communicate(process, stopping)
            finally:
                process.kill()
    if process.returncode or not said.strip():
        why = trouble.strip().splitlines()[-1:] or [f"the process that measures ended with {process.returncode}"]
        raise CapacityError(f"how many cameras this machine carries cannot be measured: {why[0]}")
    answer: dict[str, Any] = json.loads(said)
    return answer


def _communicate(process: subprocess.Popen[str], stopping: threading.Event) -> tuple[str, str]:
    until_s = time.monotonic() + _LONGEST_S
    while True:
        try:
            return process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            if stopping.is_set():
                raise CapacityError("the measurement was broken off, because the daemon stops") from None
            if time.monotonic() > until_s:
                raise CapacityError(f"the measurement did not end within {_LONGEST_S:.0f} s") from None


def measure(settings: Settings, camera: dict[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    """Measure how many cameras are carried.

    Args:
        settings: The configuration; see `Bench`.
        camera: What `usual` returns.
        folder: An empty folder for the clip.
        seconds: How long.

    Returns:
        `carried`, the number of cameras; `cost`, seconds of a core that a second of one takes; `busy`, the part of the
        cores' time that was used; `low`, why the figures are low, or null; `provider`, what the networks ran on.

    Raises:
        StartError: A network cannot be loaded.
        NoEncoder: The clip cannot be encoded here.
        BenchError: What is measured failed.
    """
    size = next(one for one in SIZES if one.name == "1080p")
    bench, cores = Bench(settings), machine.cores_allowed()
    clip = make_clip(_DEMO, size, folder / "1080p.mp4")
    rounds: list[tuple[float, float, float, str | None]] = []
    for turn in range(_ROUNDS):
        try:
            full = saturate(bench, clip, seconds * 2**turn, **camera)
        except BenchError:  # on a machine that is very busy, the cameras may take longer to open
            if turn + 1 == _ROUNDS and not rounds:
                raise
            continue
        cameras = full.received / full.seconds / SOURCE_FPS
        if not cameras:
            continue
        cost, busy = full.cpu / full.seconds / cameras, full.cpu / full.seconds / cores
        never_idle = cameras if bench.detector.on_gpu else cores / cost
        low = None if full.disturbance is None else full.disturbance.complaint(cores)
        rounds.append((never_idle, cost, busy, low))
        if low is None:
            break
    if not rounds:
        raise BenchError("no frame was decoded in time")
    low = rounds[-1][3]
    never_idle, cost, busy, _ = max(rounds, key=lambda one: one[0])
    return {
        "carried": round(CARRIED * never_idle, 2),
        "cost": round(cost, 4),
        "busy": round(busy, 3),
        "low": low,
        "provider": bench.detector.provider,
    }


def _main(path: str) -> int:
    """Measure what a file asks for, print the answer, and return the exit code."""
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    settings = Settings.model_validate(request["settings"] | {"state_dir": None})
    try:
        print(json.dumps(measure(settings, request["camera"], Path(path).parent, request["seconds"])))  # noqa: T201
    except (StartError, NoEncoder, BenchError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    code = _main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of libraries are not waited for, some of which abort a process that ends around them
