"""Run the kit: `python -m tests.gpu OUT [--provider cpu] [--quick] [--only NAMES] [--budget SECONDS]`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.gpu import report
from tests.gpu.environment import child_environment
from tests.gpu.report import Options, Report

# Most telling first; each with the most seconds that it may take. Each runs in a process of its own: a crash or a hang
# of a driver costs one section, and none inherits another's GPU memory.
SECTIONS: dict[str, tuple[str, float]] = {
    "machine": ("machine:machine", 20),
    "sessions": ("networks:sessions", 45),
    "equality": ("equality:equality", 45),
    "frames": ("frames:frames", 60),
    "turns": ("turns:turns", 30),
    "graphs": ("runtimes:graphs", 40),
    "decoding": ("decoding:decoding", 60),
    "batches": ("networks:batches", 60),
    "cameras": ("cameras:software", 60),
    "cameras-stay": ("cameras:stays", 60),
    "cameras-gpu": ("cameras:hardware", 60),
    "beside": ("beside:beside", 60),
    "cameras-graphs": ("cameras:graphs", 60),
    "tensorrt": ("runtimes:tensorrt", 90),
    "decoders": ("decoding:sessions", 50),
    "devices": ("runtimes:devices", 30),
    "pictures": ("pictures:pictures", 40),
    "memory": ("memory:memory", 30),
    "variants": ("networks:variants", 40),
}
_LEAST_S = 5.0


def main() -> None:
    """Run all sections, or those named."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description="Measure the daemon on a GPU.")
    parser.add_argument("out", type=Path, help="folder for table.txt, results.json and log.txt")
    parser.add_argument("--provider", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="only show that everything runs")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, in this order")
    parser.add_argument("--budget", type=float, default=480.0, help="most seconds in all")
    parser.add_argument("--clip", type=Path, help="a 1080p25 H.264 clip; else one is made from the demo")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.section:
        _run_here(arguments)
        return
    names = arguments.only.split(",")
    if unknown := set(names) - set(SECTIONS):
        sys.exit(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    _run_all(arguments, names)


def _run_here(arguments: argparse.Namespace) -> None:
    module, function = SECTIONS[arguments.section][0].split(":")
    options = Options(arguments.provider, arguments.quick, arguments.scratch, arguments.clip)
    section = getattr(importlib.import_module(f"tests.gpu.sections.{module}"), function)
    with Report(arguments.out).guarded(arguments.section):
        section(Report(arguments.out), options)


def _run_all(arguments: argparse.Namespace, names: list[str]) -> None:
    end = time.monotonic() + arguments.budget
    results: dict[str, list[dict[str, Any]]] = {}
    environment, notes = child_environment()
    with tempfile.TemporaryDirectory() as folder, (arguments.out / "log.txt").open("w") as log:
        clip = arguments.clip or _make_clip(Path(folder) / "clip.mp4", environment)
        (arguments.out / "table.txt").write_text("")
        results["environment"] = [{"name": name, "values": {"is": value}} for name, value in notes.items()]
        _show(arguments.out, "environment", results)
        for name in names:
            limit = min(SECTIONS[name][1], end - time.monotonic())
            rows = Path(folder) / f"{name}.jsonl"
            if limit < _LEAST_S:
                Report(rows).row(name, error="not run: the budget is used up")
            else:
                scratch = Path(folder) / name
                scratch.mkdir()
                command = [sys.executable, "-m", "tests.gpu", str(rows), "--section", name, "--scratch", str(scratch)]
                command += ["--provider", arguments.provider, "--clip", str(clip.resolve())]
                _run_section(command + ["--quick"] * arguments.quick, name, rows, limit, environment, log)
            results[name] = report.read(rows)
            _show(arguments.out, name, results)


def _run_section(
    command: list[str], name: str, rows: Path, limit: float, environment: dict[str, str], log: Any
) -> None:
    log.write(f"== {name}\n")
    log.flush()
    began = time.monotonic()
    # A group of its own, so that daemons that a section started end with it.
    with subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    ) as child:
        try:
            status = child.wait(limit)
            if status:
                Report(rows).row(name, error=f"the section ended with status {status}; see log.txt")
        except subprocess.TimeoutExpired:
            Report(rows).row(name, error=f"not finished after {limit:.0f} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    Report(rows).row("section", seconds=time.monotonic() - began)


def _make_clip(path: Path, environment: dict[str, str]) -> Path:
    subprocess.run([sys.executable, "-m", "tests.gpu.clip", str(path)], check=True, env=environment)
    return path


def _show(out: Path, section: str, results: dict[str, list[dict[str, Any]]]) -> None:
    text = report.table(section, results[section])
    print(text, flush=True)
    with (out / "table.txt").open("a") as file:
        file.write(text + "\n")
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
