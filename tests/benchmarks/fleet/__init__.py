"""What a fleet does: `python -m tests.benchmarks fleet`, with the option that names a part.

`--simulate`, as without an option, is the coordinator of a large fleet alone. The others are fleets on real
Ray clusters on this machine: `--kills [N]`, `--throughput [SECONDS]`, and `--cut [SECONDS]`, which needs root.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


def _simulate(options: list[str]) -> None:
    from tests.benchmarks.fleet import simulate

    simulate.main(options)


def _kills(options: list[str]) -> None:
    from tests.benchmarks.fleet import kills

    kills.main(*map(int, options))


def _throughput(options: list[str]) -> None:
    from tests.benchmarks.fleet import throughput

    throughput.main(*map(float, options))


def _cut(options: list[str]) -> None:
    from tests.benchmarks.fleet import cut

    cut.main(*map(float, options))


PARTS: dict[str, Callable[[list[str]], None]] = {
    "--simulate": _simulate,
    "--kills": _kills,
    "--throughput": _throughput,
    "--cut": _cut,
}
"""The parts by their options; each takes what follows."""


def main() -> None:
    """Run the part that is named."""
    name, *options = sys.argv[1:] or ["--simulate"]
    if name not in PARTS:
        sys.exit(f"no part {name}; there are {', '.join(PARTS)}")
    PARTS[name](options)
