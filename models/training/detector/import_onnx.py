"""Taking a trained detector back from its exported ONNX file, so that anyone can train a shipped network further.

Export folds batch normalisation into the convolutions. Here each normalisation gets the statistics that its inputs have
on real samples and the scale and shift that undo them: the same function, in a form that can be trained on. Residual
blocks that the file does not have, those of context first, are added as identities.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from visaged.models.training.detector.network import Detector, Residual
from visaged.models.training.detector.shapes import DetectorShape


def detector_from_onnx(path: Path, config: DetectorShape, batches: list[Tensor]) -> Detector:
    """Build a trainable network from an exported one.

    Args:
        path: the ONNX file.
        config: the network to build: channels as in the file, as many residual blocks or more.
        batches: real samples, each (B, 3, H, W) uint8 BGR.
    """
    folded = _folded_convolutions(path)
    model = Detector(config)
    added = _added_blocks(model, (len(_run_order(model, set())) - len(folded)) // 2)
    order = _run_order(model, added)
    for convolution, (weight, _) in zip(order, folded, strict=True):
        if convolution.weight.shape != weight.shape:
            expected = tuple(convolution.weight.shape)
            raise ValueError(f"{path} holds {tuple(weight.shape)} where the network has {expected}")
        convolution.weight.data.copy_(weight)
    normalisations = _normalisations(model)
    for convolution, (_, bias) in zip(order, folded, strict=True):
        if convolution in normalisations:
            norm = normalisations[convolution]
            norm.running_mean.zero_()  # type: ignore[union-attr]
            norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
            # A residual block's starts at 0: left so, what is behind would be calibrated without the block.
            norm.weight.data.fill_(1)
            norm.bias.data.copy_(bias)
        elif convolution.bias is not None:
            convolution.bias.data.copy_(bias)
    _recalibrate(model, [normalisations[c] for c in order if c in normalisations], batches)
    return model


def stem_channels(path: Path) -> int:
    """Return how many channels the first convolution of an exported network has: which shape it is of."""
    folded = _folded_convolutions(path)
    if not folded:
        raise ValueError(f"{path} holds no convolution")
    return len(folded[0][0])


def _folded_convolutions(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Read the weights and biases of all convolutions in the order in which they run."""
    graph = onnx.load(str(path)).graph
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    values |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    return [(torch.tensor(values[n.input[1]]), torch.tensor(values[n.input[2]])) for n in nodes]


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


def _added_blocks(model: Detector, missing: int) -> set[nn.Module]:
    """Choose the blocks that the file lacks: those of context, then the last of each stage, deepest stage first."""
    added = set[nn.Module](list(model.context)[-missing:] if missing > 0 else [])
    missing -= len(added)
    while missing > 0:
        for stage in reversed(model.stages):
            blocks = [m for m in stage.modules() if isinstance(m, Residual) and m not in added]
            if len(blocks) > 1 and missing > 0:
                added.add(blocks[-1])
                missing -= 1
    return added


def _normalisations(model: Detector) -> dict[nn.Conv2d, nn.BatchNorm2d]:
    """Map each convolution to the normalisation that follows it."""
    found = {}
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            children = list(module.children())
            for before, after in pairwise(children):
                if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                    found[before] = after
    return found


def _recalibrate(model: Detector, norms: list[nn.BatchNorm2d], batches: list[Tensor]) -> None:
    """Give the normalisations the statistics of their inputs without changing what the network computes."""
    sums = {norm: [torch.zeros(norm.num_features, dtype=torch.float64) for _ in range(3)] for norm in norms}

    def note(norm: nn.BatchNorm2d, inputs: tuple[Tensor], _: Tensor) -> None:
        x = inputs[0].double()
        sums[norm][0] += x.sum((0, 2, 3))
        sums[norm][1] += x.square().sum((0, 2, 3))
        sums[norm][2] += x.numel() / x.shape[1]

    hooks = [norm.register_forward_hook(note) for norm in norms]
    with torch.no_grad():
        for batch in batches:
            model.eval()(batch.float())
    for hook in hooks:
        hook.remove()
    for norm, (total, squares, count) in sums.items():
        mean = total / count
        variance = (squares / count - mean.square()).clamp(1e-8)
        norm.running_mean = mean.float()
        norm.running_var = variance.float()
        norm.weight.data = (variance + norm.eps).sqrt().float()
        norm.bias.data = norm.bias.data + mean.float()
