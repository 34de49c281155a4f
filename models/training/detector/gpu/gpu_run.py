"""A detector trained within minutes on a GPU, exported and judged, by one command that leaves nothing to do after it.

    python -m visaged.models.training.detector.gpu.gpu_run --data TRAVEL --out OUT --minutes 9

It is made for a machine that is lent for some minutes, without a network: 16 cores, a GPU, and Python 3.11 or newer
with PyTorch (with CUDA), numpy, OpenCV, onnx, onnxruntime and pydantic; without the last one everything but the metrics
is done. TRAVEL is what `travel` wrote. OUT gets, each of them small enough to be sent back,

- `last.pt`, the averaged weights, anew every minute: `train --resume` and `export` take it, whatever comes after;
- `detector.onnx`, exported when training ends, `RESERVE_S` before the time is over;
- `metrics.md`, the tables of AP and points, beside the network that training began from;
- `train.log`, what training printed.

What the command line has beyond the options below goes to `train`: `--batch 32`, `--side 256`, `--device cpu`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from visaged.models.training.common import command
from visaged.models.training.detector.feed import PACK_WEIGHTS

RESERVE_S = 60.0
"""Seconds kept for export and metrics; beside 16 cores they should need half of that."""

LEAST_TRAINING_S = 20.0
SAVE_EVERY_S = 60

WEIGHTS = PACK_WEIGHTS | {"clips": 0.06}

TRAINING = ("--shape", "m", "--device", "cuda", "--batch", "64", "--learning-rate", "1e-3")
"""Batches of 64: of the 1,900 samples a second that 15 cores should compose (7.8 ms each, one step in four with large
ones) they make 30 steps a second, slow enough for the many small kernels of each to be launched in time."""

SHARES = ("--samples", "100", "--decay-from", "40")
"""With a time limit these say only from which share of it on the learning rate falls."""

SHIPPED = Path(__file__).parents[3] / "weights"


def pack_weights(data: Path) -> dict[str, float]:
    """Return how often each pack that is there is drawn; raises `ValueError` if none is."""
    there = {name: weight for name, weight in WEIGHTS.items() if (data / f"{name}.tar").exists()}
    if not there:
        raise ValueError(f"{data} has none of the packs {', '.join(WEIGHTS)}")
    return there


def newest_shipped(directory: Path = SHIPPED) -> Path:
    """Return the shipped detector of the highest version; raises `ValueError` if there is none."""
    versions = {
        int(found[1]): path
        for path in directory.iterdir()
        if (found := re.search(r"^detector-v(\d+)\.onnx$", path.name))
    }
    if not versions:
        raise ValueError(f"{directory} has no detector; name one with --init")
    return versions[max(versions)]


def module(name: str, *options: str | Path) -> list[str]:
    """Return the command line of another program of this training."""
    return [sys.executable, "-u", "-m", f"visaged.models.training.{name}", *map(str, options)]


def run_and_keep(line: list[str], log: Path, limit_s: float) -> int:
    """Run a program, print what it prints and keep it in a file; end it after `limit_s`; return its exit code."""
    with log.open("w", encoding="utf-8") as file, subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 (our own programs)
        timer = threading.Timer(limit_s, process.kill)
        timer.start()
        assert process.stdout is not None
        for text in process.stdout:
            print(text, end="", flush=True)
            file.write(text)
            file.flush()
        code = process.wait()
        timer.cancel()
    return code


def parse(command_line: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; return what `train` gets of it too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of packs, by `travel`")
    parser.add_argument("--out", type=Path, required=True, help="directory for what comes back")
    parser.add_argument("--minutes", type=float, default=9.0, help="of everything together")
    parser.add_argument("--init", type=Path, help="exported detector to start from; by default the newest shipped one")
    parser.add_argument(
        "--processes",
        type=int,
        default=max(1, (os.cpu_count() or 1) - 1),
        help="that compose; one core is left to learn",
    )
    return parser.parse_known_args(command_line)


def main(command_line: list[str] | None = None) -> int:
    """Train, export, judge; return the first exit code that is not 0."""
    started = time.monotonic()
    arguments, more = parse(command_line)
    data, out = arguments.data, arguments.out
    limit_s: float = 60 * arguments.minutes

    def left_s() -> float:
        return max(started + limit_s - time.monotonic(), 1.0)

    training_s = limit_s - RESERVE_S
    if training_s < LEAST_TRAINING_S:
        least = (RESERVE_S + LEAST_TRAINING_S) / 60
        raise ValueError(f"--minutes must be {least:.2f} or more: export and metrics alone need {RESERVE_S:.0f} s")
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, network, metrics = out / "last.pt", out / "detector.onnx", out / "metrics.md"
    if checkpoint.exists():
        raise ValueError(f"{out} holds the checkpoint of another run")
    init = arguments.init or newest_shipped()
    options: list[str | Path] = [
        "--data",
        data,
        "--out",
        out,
        "--init",
        init,
        "--weights",
        json.dumps(pack_weights(data)),
    ]
    options += ["--minutes", f"{training_s / 60:.3f}", "--processes", str(arguments.processes)]
    options += ["--slim", "--save-every-s", str(SAVE_EVERY_S), "--keep-every", str(10**9), *TRAINING, *SHARES]
    if (data / "hard.csv").exists():
        options += ["--hard", data / "hard.csv"]
    codes = [run_and_keep(module("detector.train", *options, *more), out / "train.log", training_s + 10)]
    if not checkpoint.exists():
        return codes[0] or 1
    try:
        line = module("detector.export", checkpoint, network)
        codes.append(subprocess.run(line, check=False, timeout=left_s()).returncode)  # noqa: S603
        if network.exists():
            judged = [
                "--model",
                f"trained={network}",
                "--model",
                f"{init.stem}={init}",
                "--threads",
                str(arguments.processes),
            ]
            if (data / "copies.txt").exists():
                judged += ["--leave-out", str(data / "copies.txt")]
            line = module("evaluation.evaluate", "--data", data, "--only-accuracy", *judged)
            codes.append(run_and_keep(line, metrics, left_s()))
    except subprocess.TimeoutExpired as error:
        print(f"no time was left for {error.cmd[3]}", file=sys.stderr)
        codes.append(1)
    print(f"{', '.join(sorted(path.name for path in out.iterdir()))} in {time.monotonic() - started:.0f} s")
    return next((code if code > 0 else 1 for code in codes if code), 0)  # below 0: killed by a signal


if __name__ == "__main__":
    command.run(main)
