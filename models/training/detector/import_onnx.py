"""Taking a trained detector back from its exported ONNX file, so that anyone can train a shipped network further.

Residual blocks that the file does not have, those of context first, are added as identities.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from visaged.models.training.common.import_onnx import (
    blocks_to_add,
    copy_weight,
    normalised_convolutions,
    read_weights,
    recalibrate,
    set_shift,
)
from visaged.models.training.detector.network import Detector, Residual
from visaged.models.training.detector.shapes import DetectorShape


def detector_from_onnx(path: Path, config: DetectorShape, batches: list[Tensor]) -> Detector:
    """Build a trainable network from an exported one.

    Args:
        path: the ONNX file.
        config: the network to build: channels as in the file, as many residual blocks or more.
        batches: real samples, each (B, 3, H, W) uint8 BGR.

    Raises:
        OSError: there is no such file.
        ValueError: it is not the export of such a network.
    """
    kernels, _ = read_weights(path)
    model = Detector(config)
    stages = [[m for m in stage.modules() if isinstance(m, Residual)] for stage in model.stages]
    missing = len(_run_order(model, set())) - len(kernels)
    order = _run_order(model, blocks_to_add(path, list(model.context), stages, missing))
    normalisations = dict(normalised_convolutions(model))
    for convolution, (weight, bias) in zip(order, kernels, strict=True):
        copy_weight(path, convolution, weight)
        if convolution in normalisations:
            set_shift(normalisations[convolution], bias)
        elif convolution.bias is not None:
            convolution.bias.data.copy_(bias)
    recalibrate(model, [normalisations[c] for c in order if c in normalisations], batches)
    return model


def stem_channels(path: Path) -> int:
    """Return the number of channels of an exported network's first convolution, which shows the shape it is of.

    Raises:
        OSError: there is no such file.
        ValueError: it is not the export of a network.
    """
    kernels, _ = read_weights(path)
    return len(kernels[0][0])


def _run_order(model: Detector, without: set[nn.Module]) -> list[nn.Conv2d]:
    """Return the convolutions in the order in which they run, without those inside the given blocks."""
    order: list[nn.Conv2d] = []
    skipped = {inner for block in without for inner in block.modules()}

    def note(module: nn.Module, *_: object) -> None:
        assert isinstance(module, nn.Conv2d)
        order.append(module)

    wanted = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m not in skipped]
    hooks = [m.register_forward_hook(note) for m in wanted]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return order
