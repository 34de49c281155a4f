"""Run the benchmarks: all (the soak takes half an hour), or those named; options go to the one that is named."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

from tests.benchmarks import (
    bench_tracker,
    capacity,
    daemon,
    decoding,
    first_picture,
    fleet,
    hostile,
    idle,
    leaks,
    live,
    networks,
    open_page,
    overload,
    peers,
    pictures,
    sizes,
    spool,
    throughput,
)


def soak() -> None:
    """Measure what minutes, and thousands of reconnects, leave behind."""
    daemon.soak()
    leaks.main()


ALL: dict[str, Callable[[], None]] = {
    "throughput": throughput.main,
    "capacity": capacity.main,
    "idle": idle.main,
    "overload": overload.main,
    "age": daemon.age,
    "tracker": bench_tracker.main,
    "pictures": pictures.main,
    "beside": pictures.beside,
    "scaled": pictures.scaled,
    "sizes": sizes.main,
    "networks": networks.main,
    "hostile": hostile.main,
    "spool": spool.main,
    "live": live.main,
    "decoding": decoding.main,
    "first_picture": first_picture.main,
    "open_page": open_page.main,
    "fleet": fleet.main,
    "soak": soak,
    "peers": peers.main,
}
BY_NAME = {"peers"}
"""Benchmarks that run only where they are named: they need what is not installed with this program."""


def main() -> None:
    """Run the benchmarks."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), sys.argv[1:]))
    options = sys.argv[1 + len(names) :]
    names = names or [name for name in ALL if name not in BY_NAME]
    unknown = set(names) - set(ALL)
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    if options and len(names) != 1:
        sys.exit("options can be given to one benchmark alone")
    sys.argv[1:] = options
    for name in names:
        print(f"== {name}", flush=True)
        ALL[name]()


if __name__ == "__main__":
    main()
