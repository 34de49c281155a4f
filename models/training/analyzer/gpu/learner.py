"""One network that learns from batches which others may learn from too: its steps, its average, its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visaged.models.training.analyzer.network import Analyzer
from visaged.models.training.common.running import build_optimizer, save

Raw = dict[str, Tensor]

_MOST_GRADIENT = 5.0
_AVERAGING = 0.999


class Learner:
    """A network in training.

    Args:
        name: of its checkpoint.
        model: the network, on the device on which it learns.
        weight_decay: strength of the decay of kernels and matrices.
    """

    def __init__(self, name: str, model: Analyzer, weight_decay: float) -> None:
        self.name, self.model = name, model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = deepcopy(model).eval().requires_grad_(False)
        self._optimizer = build_optimizer(model, 1e-3, weight_decay)
        if next(model.parameters()).is_cuda:
            for group in self._optimizer.param_groups:
                group["fused"] = True
        self._steps = 0
        pairs = list(zip(model.state_dict().values(), self.averaged.state_dict().values(), strict=True))
        self._own = [own for own, _ in pairs if own.is_floating_point()]
        self._average = [average for own, average in pairs if own.is_floating_point()]

    def learn(self, images: Tensor, loss_of: Callable[[Raw], tuple[Tensor, Raw]], rate: float) -> Raw:
        """Take one step.

        Args:
            images: (B, 3, 112, 112) float32 BGR 0..255.
            loss_of: raw outputs to the scalar to minimise, and to scalars to report.
            rate: the learning rate.

        Returns:
            The scalars to report, still on the device.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            outputs = self.model(images)
        loss, terms = loss_of({name: value.float() for name, value in outputs.items()})
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _MOST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._steps += 1
        keep = min(_AVERAGING, (self._steps + 1) / (self._steps + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, self._own, 1 - keep)  # one call in place of 200
        return terms

    def save(self, directory: Path, training: dict[str, Any], seen: int) -> Path:
        """Write the averaged weights as a checkpoint that `load_checkpoint` and `export` take; return its path."""
        state = {name: value.cpu() for name, value in self.averaged.state_dict().items()}
        path = directory / f"{self.name}.pt"
        content = {"network": asdict(self.model.config), "training": training, "seen": seen}
        save(path, content | {"model": state, "averaged": state, "optimizer": None})
        return path
