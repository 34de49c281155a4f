"""Counts and logs the messages that an output could not deliver."""

from __future__ import annotations

import logging

from visaged.pipelines.outputs.messages import Kind
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)


class Losses:
    """The losses of one output.

    Args:
        output: Name of the output.
        metrics: Counts the losses.
    """

    def __init__(self, output: str, metrics: Metrics) -> None:
        self._output = output
        self._lost = metrics.output_lost
        self._reported: set[tuple[str, str]] = set()
        self._complain = LimitedLog(log)

    def count(self, kind: Kind, cause: str, messages: int = 1, quietly: bool = False) -> None:
        """Count lost messages, and log them at a limited rate unless `quietly`."""
        self._lost.labels(self._output, kind, cause).inc(messages)
        if not quietly and cause != "offline":  # the link has logged that the broker is away
            self._complain("%s message lost: %s", kind, cause.replace("_", " "))

    def report(self, topic: str, cause: str, text: str) -> None:
        """Log why messages to a topic are set aside, once for each topic and cause."""
        if (topic, cause) not in self._reported:
            self._reported.add((topic, cause))
            log.warning("messages to %s %s; they are set aside and counted", topic, text)
