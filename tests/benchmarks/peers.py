"""What other programs do on this machine with the same clip, in one run, beside this one.

    python -m tests.benchmarks peers [--venv FOLDER] [--yunet FILE] [--install]

- `visaged`: the daemon's own parts, as `throughput` and `capacity` measure them;
- `plain`: a loop of OpenCV's `VideoCapture` and ONNX Runtime with its defaults, the same network;
- `inference`: the InferencePipeline of Roboflow's `inference`, its defaults, the same network as custom logic. It needs
  an environment of its own of seven gigabytes, which `--install` makes in `--venv` (`.bench/peers`);
- `yunet`: OpenCV's `FaceDetectorYN` in the same loop, where `--yunet` names its network, of OpenCV's model zoo
  (`face_detection_yunet_2023mar.onnx`): another network, at the same size of picture.

First every frame is searched as fast as it goes, the programs in turn, `--rounds` times. Then as many cameras as are
carried send 25 frames a second, of which five are searched; they are carried when 97 % of those are. All are files that
keep their own speed, so the network's share is in no figure. Memory is the most of the whole process with four cameras.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.clip import CACHE, ROOT, bench_clip
from tests.benchmarks.peer_loops import CORES, FPS, SOURCE_FPS
from visaged.daemon.bench.machine import processor

PACKAGE = "inference-cpu>=1.8,<2"
LEAST = 0.97
TRIES = 2
"""Other programs take a core for a moment, so a number that is not carried is tried again."""
MEMORY_CAMERAS = 4


class Programs:
    """The programs that can run here.

    Args:
        clip: What all of them read.
        venv: The environment of `inference`.
        yunet: The network of `FaceDetectorYN`; None to leave it out.
        shim: A folder in which `visaged.models` can be imported from, for that environment.
    """

    def __init__(self, clip: Path, venv: Path, yunet: Path | None, shim: Path) -> None:
        self._clip, self._yunet = clip, yunet
        self._pythons = {"visaged": sys.executable, "plain": sys.executable}
        self._paths = {"inference": str(shim)}
        if python_of(venv).exists():
            self._pythons["inference"] = str(python_of(venv))
        if yunet is not None:
            self._pythons["yunet"] = sys.executable
        self.names = list(self._pythons)
        self.versions: dict[str, dict[str, str]] = {}

    def run(self, name: str, cameras: int, seconds: float) -> dict[str, Any]:
        """Run one; return what it printed."""
        command = [self._pythons[name], "-m", "tests.benchmarks.peer_loops", name, str(self._clip)]
        command += [str(cameras), str(seconds), *([str(self._yunet)] if name == "yunet" else [])]
        path = self._paths.get(name) or os.environ.get("PYTHONPATH", "")
        # Its telemetry and its look for GPUs have nothing to do with what is measured.
        quiet = {
            "PYTHONPATH": path,
            "TELEMETRY_OPT_OUT": "True",
            "METRICS_ENABLED": "False",
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | quiet,
            capture_output=True,
            text=True,
            timeout=180 + seconds,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self.versions[name] = told["versions"]
        return told


def python_of(venv: Path) -> Path:
    """Return the interpreter of an environment."""
    return venv / "bin" / "python"


def install(venv: Path) -> None:
    """Make the environment of `inference`."""
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([python_of(venv), "-m", "pip", "install", "--quiet", PACKAGE], check=True)


@contextmanager
def models_alone() -> Iterator[Path]:
    """Yield a folder from which `visaged.models` can be imported, and nothing else of `visaged`."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "visaged"
        package.mkdir()
        (package / "models").symlink_to(ROOT / "models")
        yield Path(folder)


def carried(programs: Programs, name: str, fps: float, seconds: float) -> int:
    """Return the most cameras of which 97 % of the frames are searched.

    Args:
        programs: The programs.
        name: Which of them.
        fps: Frames a second that it searches of files, for a first guess.
        seconds: How long each number is measured.
    """

    def good(cameras: int) -> bool:
        for _ in range(TRIES):
            rate = programs.run(name, cameras, seconds)["fps"]
            print(f"  {name}: {cameras} cameras, {rate / cameras:.2f} searched a second of each", flush=True)
            if rate >= LEAST * FPS * cameras:
                return True
        return False

    guess = cameras = max(1, round(fps / SOURCE_FPS))
    while cameras and not good(cameras):
        cameras -= 1
    while cameras >= guess and good(cameras + 1):
        cameras += 1
    return cameras


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks peers", description=__doc__.split("\n")[0])
    parser.add_argument("--venv", type=Path, default=CACHE / "peers", help="environment of `inference` (.bench/peers)")
    parser.add_argument("--install", action="store_true", help="make that environment; it takes seven gigabytes")
    parser.add_argument("--yunet", type=Path, metavar="FILE", help="the network of OpenCV's FaceDetectorYN")
    parser.add_argument("--rounds", type=int, default=3, help="how often every frame is searched (3)")
    parser.add_argument("--seconds", type=float, default=10, help="how long each measurement lasts (10)")
    arguments = parser.parse_args()
    if arguments.install and not python_of(arguments.venv).exists():
        install(arguments.venv)
    if not python_of(arguments.venv).exists():
        print(
            f"no environment in {arguments.venv}: `inference` is left out; --install makes it and takes 7 GB",
            flush=True,
        )
    with models_alone() as shim:
        programs = Programs(bench_clip(), arguments.venv, arguments.yunet, shim)
        measure(programs, arguments.rounds, arguments.seconds)


def measure(programs: Programs, rounds: int, seconds: float) -> None:
    """Measure all programs and print the table."""
    rates: dict[str, list[float]] = {name: [] for name in programs.names}
    faces: dict[str, float] = {}
    for _ in range(rounds):
        for name in programs.names:
            told = programs.run(name, 0, seconds)
            rates[name].append(told["fps"])
            faces[name] = told["faces"]
        print("  every frame: " + ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items()), flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        name: statistics.median(one / own for one, own in zip(rates["visaged"], values, strict=True))
        for name, values in rates.items()
    }
    cameras = {name: carried(programs, name, medians[name], seconds) for name in programs.names}
    memory = {name: programs.run(name, MEMORY_CAMERAS, seconds)["memory_mb"] for name in programs.names}
    print(f"{processor()}, {CORES} cores; 1080p25 H.264, 4 Mb/s; {rounds} rounds of {seconds:g} s")
    print("| program | every frame | visaged does | cameras at 5 a second | memory, 4 cameras | faces a frame |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in programs.names:
        versions = ", ".join(f"{package} {version}" for package, version in programs.versions[name].items())
        print(
            f"| {name} ({versions}) | {medians[name]:.0f} a second | {ratios[name]:.2f} x | {cameras[name]} | "
            f"{memory[name]:.0f} MB | {faces[name]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
