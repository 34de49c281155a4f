"""How many 1080p25 cameras this machine carries at 5 analysed frames a second with no frame dropped.

Cameras are files that keep their own speed and loop, handed over as live cameras are (newest frame wins, drops
counted); a network's share is not in it. A number of cameras is carried when over the whole measurement no sampled
frame was overtaken and at least 97 % of 5 frames a second were analysed. The bound is what all cores could decode (25
frames a second) and detect (5) if they did nothing else. The plain loop's figure is its frames a second on the same
clip over 25, as it analyses every frame.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.benchmarks.clip import bench_clip
from tests.benchmarks.throughput import CORES, FRAMES, Rig, decode_seconds, detect_seconds, plain_loop
from visaged.pipelines.source.video import SourceConfig

SOURCE_FPS, FPS = 25.0, 5.0
SETTLE_S, MEASURE_S = 4.0, 15.0
TRIES = 3  # other tenants of a machine take a core for a moment


def carried(clip: Path, cameras: int) -> tuple[bool, str]:
    """Return whether that many cameras are carried, and the figures."""
    rig = Rig([SourceConfig(url=str(clip), fps=FPS, loop=True)] * cameras)
    for worker in rig.workers:
        worker.start()
    for index, worker in enumerate(rig.readers):
        time.sleep(0.02 + 0.013 * (index % 3))  # cameras do not send their frames in step
        worker.start()
    time.sleep(SETTLE_S)
    before = [rig.count(what) for what in ("received", "analysed", "dropped")]
    began = time.perf_counter()
    cpu = time.process_time()
    time.sleep(MEASURE_S)
    seconds = time.perf_counter() - began
    busy = (time.process_time() - cpu) / seconds
    received, analysed, dropped = (
        rig.count(what) - old for what, old in zip(("received", "analysed", "dropped"), before, strict=True)
    )
    rig.stop()
    received_rate, analysed_rate = received / seconds / cameras, analysed / seconds / cameras
    good = dropped == 0 and analysed_rate >= 0.97 * FPS
    return good, (
        f"{cameras:3d} cameras: {received_rate:5.2f} decoded and {analysed_rate:4.2f} analysed frames a second each, "
        f"{dropped:.0f} dropped, {busy:.2f} of {CORES} cores busy"
    )


def main() -> None:
    """Measure and print."""
    clip = bench_clip()
    plain = plain_loop(clip, FRAMES)
    best = 0
    bound = CORES / (SOURCE_FPS * decode_seconds(clip, FRAMES // 2) + FPS * detect_seconds(clip, FRAMES // 4))
    for cameras in [int(n) for n in sys.argv[1:]] or range(max(1, int(bound * 0.6)), 100):
        good = False
        for _ in range(TRIES):
            good, text = carried(clip, cameras)
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
