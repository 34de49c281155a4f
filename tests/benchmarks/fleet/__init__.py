"""What a fleet costs: `python -m tests.benchmarks fleet`, with the name of a part for that alone."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks.fleet import simulate

PARTS: dict[str, Callable[[list[str]], None]] = {"--simulate": simulate.main}
"""The parts by their options; each takes the options after its own."""


def main() -> None:
    """Run the part that is named, or all."""
    options = sys.argv[1:]
    if options and options[0] not in PARTS:
        sys.exit(f"no part {options[0]}; there are {', '.join(PARTS)}")
    for name in options[:1] or PARTS:
        PARTS[name](options[1:])
