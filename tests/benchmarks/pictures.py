"""Single pictures over HTTP: how many a second, how evenly, and what they do to cameras beside them.

`pictures` prints, from interleaved rounds with the same networks on a 720p JPEG with three faces:

1. answers a second over those of the server that one would write first (`tests.benchmarks.plain`), eight clients; both
   as it is and with `http.long_side: 640`, since that server looks at pictures at 640 px alone;
2. latency at 80 % of its own rate, pictures coming at even intervals and at random ones (Poisson).

`beside` prints what 32 clients do to two running cameras in two minutes, and to the daemon's memory. `scaled` prints
what decoding large JPEGs at reduced scale saves.
"""

from __future__ import annotations

import io
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml
from PIL import Image

from tests.benchmarks.clip import bench_clip
from tests.benchmarks.daemon import percentile
from tests.benchmarks.load import Load, closed, paced
from tests.benchmarks.plain import PlainNetworks
from tests.integration.pictures import encoded
from tests.support.broker import free_port
from tests.support.process import ManagedProcess
from tests.unit import fakes
from visaged.pipelines.images.decode import load

ROUNDS = 5
SECONDS = 8.0
CLIENTS = 8
FACES = "/v1/faces?landmarks=106"


def picture() -> bytes:
    """Return a 720p JPEG with three faces: a moment of the demo, one of its two faces pasted in once more."""
    image = fakes.demo_image(fakes.TWO_FACES_S).copy()
    left, top, right, bottom = fakes.TWO_FACES[1]
    width, height = right - left, bottom - top
    image[top - 60 : bottom + 60, 700 : 700 + width + 60] = image[top - 60 : bottom + 60, left - 30 : right + 30]
    assert height > 0
    found = PlainNetworks().detect(image)
    assert image.shape == (720, 1280, 3)
    assert len(found) == 3, f"{len(found)} faces are in the benchmark's picture"
    return encoded(Image.fromarray(image[..., ::-1]))


@contextmanager
def visaged(cameras: int = 0, long_side: int | None = None) -> Iterator[tuple[int, ManagedProcess]]:
    """Start the daemon, with a looped clip for each camera at 5 analysed frames a second; yields its port.

    Pictures are searched on canvases up to `long_side` px; None leaves that to the daemon.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        clip = str(bench_clip()) if cameras else ""
        document = {
            "node": "bench",
            "cameras": [{"name": f"camera{i}", "url": clip, "loop": True, "fps": 5} for i in range(cameras)],
            "mqtt": {"embedded": True, "port": free_port()},
            "http": {"port": port} if long_side is None else {"port": port, "long_side": long_side},
            "log": {"level": "warning"},
            "state_dir": None,
        }
        config = Path(folder) / "visaged.yaml"
        config.write_text(yaml.safe_dump(document))
        with ManagedProcess([sys.executable, "-m", "visaged.daemon", "run", "--config", str(config)]) as process:
            _wait_for(port)
            yield port, process


@contextmanager
def plain() -> Iterator[int]:
    """Start the server that one would write first; yields its port."""
    port = free_port()
    with ManagedProcess([sys.executable, "-m", "tests.benchmarks.plain", str(port)]):
        _wait_for(port)
        yield port


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=5):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _rate(port: int, path: str, body: bytes) -> float:
    load = closed(port, path, body, CLIENTS, SECONDS)
    assert not load.failed, load.failed[:3]
    return len(load.seconds) / SECONDS


def _tail(load: Load) -> tuple[float, float]:
    assert not load.failed, load.failed[:3]
    milliseconds = [1000 * value for value in load.seconds]
    return percentile(milliseconds, 50), percentile(milliseconds, 99)


def main() -> None:
    """Measure rate and latency, and print them."""
    body = picture()
    with ExitStack() as stack:
        first = stack.enter_context(plain())
        ours, _ = stack.enter_context(visaged())
        at_640, _ = stack.enter_context(visaged(long_side=640))
        for port, path in ((first, "/faces"), (ours, FACES), (at_640, FACES)):
            closed(port, path, body, CLIENTS, 2)
        rows = []
        for _ in range(ROUNDS):
            rates = _rate(first, "/faces", body), _rate(ours, FACES, body), _rate(at_640, FACES, body)
            rows.append((*rates, rates[1] / rates[0], rates[2] / rates[0]))
            text = "  plain {:5.1f} a second   visaged {:5.1f}, {:5.1f} with long_side 640   {:.2f} and {:.2f} x"
            print(text.format(*rows[-1]), flush=True)
        slow, fast, faster, ratio, ratio_640 = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"pictures, 720p JPEG with three faces, {CLIENTS} clients, medians of {ROUNDS} rounds: "
              f"{fast:.1f} a second, {ratio:.2f} x the plain server ({slow:.1f}); "
              f"with http.long_side 640 {faster:.1f}, {ratio_640:.2f} x")  # fmt: skip
        for name, port, path, rate in (("plain", first, "/faces", slow), ("visaged", ours, FACES, fast)):
            pace = 0.8 * rate
            even = [index / pace for index in range(int(pace * 30))]
            rng, moment, random_times = random.Random(1), 0.0, []
            for _ in even:
                moment += rng.expovariate(pace)
                random_times.append(moment)
            for kind, due in (("even", even), ("random", random_times)):
                load = paced(port, path, body, due, 64)
                p50, p99 = _tail(load)
                print(f"latency at 80 % of its rate, {kind} arrivals, {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
                      f"{p99 / p50:.1f} x; {load.refused} refused")  # fmt: skip


def _analysed(port: int, cameras: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    counts = [float(line.split()[-1]) for line in lines if line.startswith("visaged_frames_analysed_total{")]
    assert len(counts) == cameras
    return sum(counts)


def _resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def beside(minutes: float = 2.0, cameras: int = 2, clients: int = 32) -> None:
    """Measure what clients do to cameras, and print it."""
    body = picture()
    with visaged(cameras=cameras) as (port, process):
        time.sleep(5)
        began, count = time.monotonic(), _analysed(port, cameras)
        time.sleep(30)
        alone = (_analysed(port, cameras) - count) / (time.monotonic() - began)
        closed(port, FACES, body, clients, 15)
        early = _resident_mb(process.pid)
        began, count = time.monotonic(), _analysed(port, cameras)
        load = closed(port, FACES, body, clients, minutes * 60)
        loaded = (_analysed(port, cameras) - count) / (time.monotonic() - began)
        late = _resident_mb(process.pid)
    print(f"{clients} clients for {minutes:g} minutes beside {cameras} cameras at 5 analysed fps: "
          f"{len(load.seconds)} answers, {load.refused} refused with Retry-After, {len(load.failed)} errors; "
          f"analysed frames {alone:.2f} -> {loaded:.2f} a second ({100 * (loaded / alone - 1):+.1f} %); "
          f"memory {early:.0f} -> {late:.0f} MB")  # fmt: skip
    for text in load.failed[:3]:
        print(f"  {text}")


def scaled() -> None:
    """Measure decoding of large JPEGs at full and at reduced scale, and print both."""
    small = Image.open(io.BytesIO(picture()))
    for width, height in ((1280, 720), (1920, 1080), (4000, 2250), (8000, 4500)):
        file = io.BytesIO()
        small.resize((width, height)).save(file, "JPEG", quality=90)
        data = file.getvalue()
        times: dict[str, list[float]] = {"whole": [], "reduced": []}
        for _ in range(5):
            for name, least in (("whole", None), ("reduced", 1280)):
                began = time.perf_counter()
                load(data, 250_000_000, least)
                times[name].append(1000 * (time.perf_counter() - began))
        whole = statistics.median(times["whole"])
        print(f"decoding {width} x {height}: " + ", ".join(
            f"{name} {statistics.median(values):.1f} ms ({whole / statistics.median(values):.1f} x)"
            for name, values in times.items()))  # fmt: skip


if __name__ == "__main__":
    main()
