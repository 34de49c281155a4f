"""The command: `python -m tests.fuzz`. Ends with exit code 1 where it found something."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.campaign import Report
from tests.fuzz.oracle import Bounds
from tests.fuzz.session import TARGETS, Session


def main() -> int:
    """Fuzz, and print the number of inputs and every finding."""
    options = _options()
    names = [options.target] if options.target else list(TARGETS)
    findings = Path(options.findings)
    total = 0
    with tempfile.TemporaryDirectory() as folder, Session(Path(folder), options.seed, _bounds(options)) as session:
        if options.replay:
            reports = [session.campaign(options.target).replay([path.read_bytes() for path in options.replay])]
        else:
            reports = session.run(names, options.seconds)
        for report in reports:
            total += len(report.findings)
            _show(report, findings)
    return 1 if total else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz a daemon of one's own.")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together (default: 60)")
    parser.add_argument("--target", choices=TARGETS, help="this one alone; all in turn if left out")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same inputs (default: 1)")
    parser.add_argument("--held-s", type=float, default=Bounds().held_s, help="longest time of /healthz meanwhile")
    parser.add_argument("--findings", default="findings", help="folder for the inputs of findings")
    parser.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="send these files alone; takes --target")
    options = parser.parse_args()
    if options.replay and not options.target:
        parser.error("--replay takes --target, to know where to send the files")
    return options


def _bounds(options: argparse.Namespace) -> Bounds:
    return Bounds(held_s=options.held_s)


def _show(report: Report, folder: Path) -> None:
    print(f"{report.target}: {report.inputs} inputs, {len(report.findings)} findings", flush=True)
    for finding in report.findings:
        paths = finding.save(folder)
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        print(f"  {finding.complaint.kind}: {finding.complaint.text}\n    {paths[0]}{more}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
