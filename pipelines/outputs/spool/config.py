"""The configuration of the spool."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from visaged.pipelines.runtime.config import StrictConfig


class SpoolConfig(StrictConfig):
    """How many events wait on disk for the broker, and for how long."""

    max_mb: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Most megabytes of events that wait (an event has about 2 kB); beyond it the oldest are dropped, and counted."""
    max_age_h: Annotated[float, Field(ge=0.01, le=87_600)] = 168.0
    """Hours after which an event that still waits is dropped, and counted. Changes of the wall clock do not count."""
