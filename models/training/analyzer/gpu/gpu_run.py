"""An analyzer trained within minutes on a GPU, its teachers before it, exported and judged, by one command.

    python -m visaged.models.training.analyzer.gpu.gpu_run --travel TRAVEL --out OUT --seconds 520

It is made for a machine that is lent for some minutes, without a network: some cores, a GPU, and Python 3.11 or newer
with PyTorch, numpy, OpenCV, onnx and onnxruntime. TRAVEL is what `travel pack --held-out` wrote. At once run, each a
process of its own on the one GPU,

- two large networks, until `TEACHING` of the time is over;
- then three that learn from the mean of both: the shipped shape begun with the shipped weights (`grown`), the same
  from nothing (`fresh`), and a larger one from nothing (`wider`);
- the shipped shape on a quarter, half and all of the pictures, without a teacher and with equal steps: the learning
  curve.

OUT gets, each of them small enough to be sent back: `grown.pt`, `fresh.pt`, `wider.pt`, averaged weights, anew every
minute; the `.onnx` of each when all is over; `figures.jsonl`, held-out figures of every network; `run.log`, what all
processes printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TextIO

import cv2

from visaged.models.training.analyzer import travel
from visaged.models.training.analyzer.labelling.cache import PACKS
from visaged.models.training.common import command

RESERVE_S = 45.0
"""Seconds kept for the last figures and for export."""
TEACHING = 0.5
"""Share of the time that is the teachers'."""
LEAST_S = 90.0
SHARES = (0.25, 0.5, 1.0)
STUDENTS = ("grown", "fresh", "wider")

SHIPPED = Path(__file__).parents[3] / "weights"
FIRST = "analyzer-v1.onnx"


def module(name: str, *options: object) -> list[str]:
    """Return the command line of another program of this training."""
    return [sys.executable, "-u", "-m", f"visaged.models.training.analyzer.{name}", *map(str, options)]


class Processes:
    """Programs that run at once; what they print goes to one file and to this program's output.

    Args:
        log: the file.
        end: time of the monotonic clock at which whatever still runs is ended.
    """

    def __init__(self, log: TextIO, end: float) -> None:
        self._log, self._end, self._lock = log, end, threading.Lock()
        self._running: list[tuple[subprocess.Popen[str], threading.Thread, bool]] = []

    def start(self, line: list[str], *, vital: bool = False) -> None:
        """Start a program; when a vital one fails, all are ended, so that no more of the lent time is lost."""
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603 (our own programs)
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        self._running.append((process, reader, vital))

    def wait(self) -> list[int]:
        """Wait for all and return their exit codes."""
        while any(process.poll() is None for process, _, _ in self._running):
            failed = any(vital and process.returncode for process, _, vital in self._running)
            if failed or time.monotonic() > self._end:
                for process, _, _ in self._running:
                    process.kill()
            time.sleep(0.2)
        for _, reader, _ in self._running:
            reader.join(1)
        codes = [process.returncode for process, _, _ in self._running]
        self._running.clear()
        return codes

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for text in process.stdout:
            with self._lock:
                print(text, end="", flush=True)
                self._log.write(text)
                self._log.flush()


def parse(command_line: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--travel", type=Path, required=True, help="directory, by `travel pack --held-out`")
    parser.add_argument("--out", type=Path, required=True, help="directory for what comes back")
    parser.add_argument("--work", type=Path, help="directory for what does not; a temporary one if not given")
    parser.add_argument("--seconds", type=float, default=520, help="of everything together")
    parser.add_argument(
        "--init", type=Path, default=SHIPPED / FIRST, help="exported network that training goes on from"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--teachers", nargs="+", default=["t", "t"], help="their shapes")
    parser.add_argument("--curve-steps", type=int, default=3000, help="of each network of the learning curve; 0: none")
    return parser.parse_args(command_line)


def main(command_line: list[str] | None = None) -> int:
    """Unpack, train, export; return the first exit code that is not 0."""
    started = time.monotonic()
    arguments = parse(command_line)
    if arguments.seconds < LEAST_S:
        raise ValueError(f"--seconds must be {LEAST_S:.0f} or more: a GPU alone takes half of that to begin")
    if not arguments.init.exists():
        raise ValueError(f"{arguments.init} does not exist; name an exported network with --init")
    end = started + arguments.seconds
    cv2.setNumThreads(1)  # before `unpack` forks: a pool of threads does not survive it
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, (arguments.out / "run.log").open("w", encoding="utf-8") as log:
        work = arguments.work or Path(temporary)
        cache = work / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        for name in PACKS:
            if (arguments.travel / f"{name}.travel.npz").exists():
                travel.unpack(arguments.travel, name, cache)
        print(f"unpacked after {time.monotonic() - started:.0f} s", flush=True)
        processes = Processes(log, end)
        codes = train(arguments, processes, work, end - RESERVE_S)
        for name in STUDENTS:
            if (arguments.out / f"{name}.pt").exists():
                processes.start(module("export", arguments.out / f"{name}.pt", arguments.out / f"{name}.onnx"))
        codes += processes.wait()
    for path in arguments.out.glob("*.done"):
        path.unlink()
    print(f"{', '.join(sorted(path.name for path in arguments.out.iterdir()))} in {time.monotonic() - started:.0f} s")
    return next((code if code > 0 else 1 for code in codes if code), 0)  # below 0: killed by a signal


def train(arguments: argparse.Namespace, processes: Processes, work: Path, end: float) -> list[int]:
    """Run all trainings until a time of the monotonic clock; return their exit codes."""
    cache, held_out = work / "cache", work / "held_out.npz"
    processes.start(module("gpu.judge", "--cache", cache, "--out", held_out))
    left = end - time.monotonic()

    def learn(out: Path, seconds: float, *options: object, vital: bool = True) -> None:
        common = ["--cache", cache, "--figures", arguments.out / "figures.jsonl", "--held-out", held_out]
        common += ["--filler", arguments.init, "--device", arguments.device, "--batch", arguments.batch]
        line = module("gpu.learn", *common, "--out", out, "--seconds", f"{seconds:.0f}", *options)
        processes.start(line, vital=vital)

    large = [f"teacher{number}" for number in range(len(arguments.teachers))]
    named = [f"--learn={name}={shape}" for name, shape in zip(large, arguments.teachers, strict=True)]
    learn(work, TEACHING * left, *named)
    teachers = [f"--teacher={work / name}.pt" for name in large]
    shapes = (f"s:{arguments.init}", "s", "m")
    students = [f"--learn={name}={shape}" for name, shape in zip(STUDENTS, shapes, strict=True)]
    learn(arguments.out, left, *students, *teachers, "--seed", 1)
    for share in SHARES if arguments.curve_steps else ():
        curve = ["--share", share, "--steps", arguments.curve_steps, "--learn", f"curve{100 * share:.0f}=s"]
        learn(work, left, *curve, "--seed", 2, vital=False)
    return processes.wait()


if __name__ == "__main__":
    command.run(main)
