"""SIGHUP: reloads the configuration, or ends the program if its terminal was closed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def install(reload: Callable[[], object], stop: Callable[[], object]) -> None:
    """Handle SIGHUP on systems that have it.

    A terminal that is closed sends SIGHUP too. A program that was started there would go on unseen, so it ends, as
    programs do that do not handle the signal.

    Args:
        reload: Reads the configuration again.
        stop: Ends the program.
    """
    if not hasattr(signal, "SIGHUP"):
        return
    terminals = [number for number in (0, 1, 2) if os.isatty(number)]

    def on_hangup(*_: object) -> None:
        is_gone = any(not os.isatty(number) for number in terminals)
        (stop if is_gone else reload)()

    signal.signal(signal.SIGHUP, on_hangup)
