"""How many 1080p25 cameras this machine carries at 5 analysed frames a second with no frame dropped.

Cameras are files that keep their own speed and loop, handed over as live cameras are (newest frame wins, drops
counted), by the same code as `visaged bench` (`visaged.daemon.bench`), which has less time and tries fewer numbers; a
network's share is not in it, and no attributes are read. A number of cameras is carried when over the whole measurement
no sampled frame was overtaken and at least 97 % of 5 frames a second were analysed. The bound is what all cores could
decode (25 frames a second) and detect (5) if they did nothing else. The plain loop's figure is its frames a second on
the same clip over 25, as it analyses every frame.

With `--idle` it counts cameras in front of which nobody is (`idle: keyframes`; a still picture with a sensor's noise,
at 4 Mb/s, a key frame every 2 seconds; `--idle=4`: every 4). Such a number is carried when every camera stayed idle, no
frame was dropped, and 97 % of the key frames had a result.
"""

from __future__ import annotations

import sys

from tests.benchmarks.clip import bench_clip
from tests.benchmarks.idle import DEMO, Encoding, encoded
from tests.benchmarks.throughput import CORES, FRAMES, bench, decode_seconds, detect_seconds, plain_loop
from visaged.daemon.bench.cameras import run_cameras
from visaged.daemon.bench.clips import Clip, Size
from visaged.daemon.bench.rig import Bench

SOURCE_FPS, FPS = 25.0, 5.0
SETTLE_S, MEASURE_S = 4.0, 15.0
IDLE_SETTLE_S = 12.0
TRIES = 3  # other tenants of a machine take a core for a moment


def carried(networks: Bench, clip: Clip, cameras: int) -> tuple[bool, str]:
    """Return whether that many cameras are carried, and the figures."""
    tried = run_cameras(networks, clip, cameras, MEASURE_S, SETTLE_S)
    return tried.good, (
        f"{cameras:3d} cameras: {tried.decoded:5.2f} decoded and {tried.analysed:4.2f} analysed frames a second each, "
        f"{tried.dropped:.0f} dropped, {tried.measured.cpu / tried.measured.seconds:.2f} of {CORES} cores busy"
    )


def idle_cameras(gop_s: int, numbers: list[int]) -> None:
    """Measure how many cameras are carried in front of which nobody is, and print."""
    networks = bench()
    encoding = Encoding(gop_s, noisy=True)
    path, _ = encoded(DEMO, encoding, empty=True)
    clip = Clip(path, Size("1080p", 1920, 1080, 4_000_000), "h264", 4e6)
    best, cameras = 0, numbers[0] if numbers else 20
    while True:
        settle_s = IDLE_SETTLE_S + 0.04 * cameras  # the cameras start one after another
        tried = run_cameras(networks, clip, cameras, MEASURE_S, settle_s, idle="keyframes", idle_after_s=1.0)
        busy = tried.measured.cpu / tried.measured.seconds
        awake = tried.decoded > 1.2 / gop_s
        good = not tried.dropped and not awake and tried.analysed >= 0.97 / gop_s * (1 - gop_s / MEASURE_S)
        print(f"  {cameras:3d} idle cameras: {tried.decoded:.2f} key frames decoded and {tried.analysed:.2f} told of a "
              f"second each, {tried.dropped} dropped, {busy:.2f} of {CORES} cores busy"
              f"{'' if good else '  <- not carried'}", flush=True)  # fmt: skip
        if not good:
            break
        best = cameras
        numbers = numbers[1:]
        cameras = numbers[0] if numbers else max(cameras + 5, int(cameras * min(2.0, 0.9 * CORES / busy)))
    print(f"capacity with a key frame every {gop_s} s: {best} idle 1080p25 cameras")


def main() -> None:
    """Measure and print."""
    idle = next((word for word in sys.argv[1:] if word.startswith("--idle")), None)
    if idle is not None:
        idle_cameras(int(idle.partition("=")[2] or 2), [int(word) for word in sys.argv[1:] if word.isdecimal()])
        return
    clip, networks = bench_clip(), bench()
    plain = plain_loop(clip, FRAMES)
    best = 0
    bound = CORES / (SOURCE_FPS * decode_seconds(clip, FRAMES // 2) + FPS * detect_seconds(clip, FRAMES // 4))
    for cameras in [int(n) for n in sys.argv[1:]] or range(max(1, int(bound * 0.6)), 100):
        good = False
        for _ in range(TRIES):
            good, text = carried(networks, Clip(clip, Size("1080p", 1920, 1080, 4_000_000), "h264", 4e6), cameras)
            print(f"  {text}{'' if good else '  <- not carried'}", flush=True)
            if good:
                break
        if not good:
            break
        best = cameras
    print(f"capacity at {FPS:g} analysed fps: {best} cameras with no drop, of {bound:.1f} that decode and detect alone "
          "would allow; the plain loop, every frame at "
          f"{plain:.1f} fps, carries {plain / SOURCE_FPS:.1f}: {best / (plain / SOURCE_FPS):.1f} x")  # fmt: skip


if __name__ == "__main__":
    main()
