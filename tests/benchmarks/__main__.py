"""Run the benchmarks: all (the soak takes half an hour), or those named; options go to the one that is named."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks import (
    bench_tracker,
    capacity,
    daemon,
    hostile,
    idle,
    leaks,
    live,
    networks,
    open_page,
    overload,
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
    "open_page": open_page.main,
    "soak": soak,
}


def main() -> None:
    """Run the benchmarks."""
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    first = sys.argv.index(options[0]) if options else len(sys.argv)
    names, options = sys.argv[1:first] or list(ALL), sys.argv[first:]
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
