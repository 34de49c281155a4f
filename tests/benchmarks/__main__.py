"""Run the benchmarks: all (the soak takes half an hour), or those named."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks import (
    bench_tracker,
    capacity,
    daemon,
    hostile,
    leaks,
    live,
    networks,
    open_page,
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
    "open_page": open_page.main,
    "soak": soak,
}


def main() -> None:
    """Run the benchmarks."""
    names = sys.argv[1:] or list(ALL)
    unknown = set(names) - set(ALL)
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    sys.argv[1:] = []
    for name in names:
        print(f"== {name}", flush=True)
        ALL[name]()


if __name__ == "__main__":
    main()
