"""How a run goes: its samples, its learning rate by samples or by time, its end."""

from __future__ import annotations

import math
from dataclasses import dataclass

LAST_SECONDS = 5.0
"""What a run with a time limit keeps of it for its last step and its last checkpoint."""


def learning_rate(peak: float, step: int, warmup_steps: int, progress: float) -> float:
    """Return the rate: a linear warm-up, constant, and a cosine to zero as `progress` (clipped) goes from 0 to 1."""
    progress = min(max(progress, 0.0), 1.0)
    return peak * min(1.0, (step + 1) / warmup_steps) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How a run of either network learns; the checkpoint carries it.

    Attributes:
        samples: total number, counted from the first run on.
        decay_from: number of samples from which on the learning rate falls.
        batch: samples per process and step.
        learning_rate: the highest rate, reached at the end of the warm-up.
        warmup_steps: steps at the start of this run in which the rate rises.
        weight_decay: strength of the decay of kernels and matrices; biases and normalisation have none.
        averaging: share of the old average that a step keeps.
        packs: how often each pack is drawn.
        minutes: after so many, counted from the start of the program, the run ends, however many samples it has seen;
            the rate then falls from the share `decay_from / samples` of that time on. None: no limit.
    """

    samples: int
    decay_from: int
    batch: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    averaging: float
    packs: dict[str, float]
    minutes: float | None = None

    def rate(self, step: int, seen: int, elapsed_s: float) -> float:
        """Return the learning rate at a step of this run, `seen` samples in all runs and some seconds after its start.

        Args:
            step: number of the step in this run, from 0.
            seen: samples in all runs.
            elapsed_s: seconds since the program was started.
        """
        if self.minutes is None:
            progress = (seen - self.decay_from) / max(self.samples - self.decay_from, 1)
        else:
            start = self.decay_from / self.samples
            progress = (elapsed_s / self._last_s - start) / max(1 - start, 1e-6)
        return learning_rate(self.learning_rate, step, self.warmup_steps, progress)

    def is_over(self, seen: int, elapsed_s: float) -> bool:
        """Return whether there is no next step."""
        return seen >= self.samples if self.minutes is None else elapsed_s >= self._last_s

    @property
    def _last_s(self) -> float:
        """When the last step ends, in seconds from the start of the program."""
        assert self.minutes is not None
        return max(60 * self.minutes - LAST_SECONDS, 1e-3)
