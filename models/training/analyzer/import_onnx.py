"""Taking a trained analyzer back from its exported ONNX file, so that anyone can train a shipped network further.

Export folds batch normalisation into the convolutions; here each gets back statistics measured on real crops and the
scale and shift that undo them. Blocks, channels and heads that the file does not have are added so that the function
stays what it was: blocks as identities, channels that nobody reads, heads that start at zero.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from visaged.models.training.analyzer.heads import MEAN, POINTS, SCALE, SIZE
from visaged.models.training.analyzer.network import Analyzer, AnalyzerShape
from visaged.models.training.detector.network import Residual


def analyzer_from_onnx(path: Path, config: AnalyzerShape, batches: list[Tensor]) -> Analyzer:
    """Build a trainable network from an exported one.

    Args:
        path: the ONNX file.
        config: the network to build: channels of the trunk as in the file, as many residual blocks or more.
        batches: real crops, each (B, 3, 112, 112) uint8 BGR.
    """
    kernels, values = _read(path)
    model = Analyzer(config)
    model.eval()
    pairs = _convolutions(model)
    added = _added_blocks(model, (len(pairs) - len(kernels)) // 2)
    skipped = {inner for block in added for inner in block.modules()}
    kept = [pair for pair in pairs if pair[0] not in skipped]
    for (kernel, norm), (weight, bias) in zip(kept, kernels, strict=True):
        outputs = len(weight)
        if kernel.weight.shape[1:] != weight.shape[1:] or len(kernel.weight) < outputs:
            raise ValueError(f"{path} holds {tuple(weight.shape)} where the network has {tuple(kernel.weight.shape)}")
        kernel.weight.data[:outputs] = weight
        norm.running_mean.zero_()  # type: ignore[union-attr]
        norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
        norm.weight.data.fill_(1)  # a residual block's second one begins at zero
        norm.bias.data.zero_()
        norm.bias.data[:outputs] = bias
    _take_matrices(model, values, len(kernels[-1][0]))
    _recalibrate(model, [norm for kernel, norm in kept], batches)
    return model


def _read(path: Path) -> tuple[list[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Read kernels and biases of all convolutions as they run, and all other weights by this network's names."""
    graph = onnx.load(str(path)).graph
    values = {i.name: torch.tensor(numpy_helper.to_array(i)).float() for i in graph.initializer}
    values |= {
        node.output[0]: values[node.input[0]]
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in values
    }
    kernels = [(values[n.input[1]], values[n.input[2]]) for n in graph.node if n.op_type == "Conv"]
    named = {}
    for name, value in values.items():
        layer, _, kind = name.partition(".")[2].rpartition(".")
        named[f"{layer}.{kind}" if layer else name.rpartition(".")[2]] = value
    return kernels, named


def _convolutions(model: Analyzer) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return every convolution with the normalisation behind it, in the order in which they run."""
    found = []
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            for before, after in pairwise(module.children()):
                if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                    found.append((before, after))
    return found


def _added_blocks(model: Analyzer, missing: int) -> set[nn.Module]:
    """Choose the blocks that the file lacks: the last of each stage, deepest stage first."""
    stages: list[list[nn.Module]] = []
    for module in model.trunk:
        if isinstance(module, Residual):
            stages[-1].append(module)
        else:
            stages.append([])
    added = set[nn.Module]()
    while missing > 0:
        for stage in reversed(stages):
            if len(stage) > 1 and missing > 0:
                added.add(stage.pop())
                missing -= 1
    return added


def _take_matrices(model: Analyzer, values: dict[str, Tensor], spatial: int) -> None:
    """Copy the linear layers; what the file does not have starts at zero."""
    places = spatial * (SIZE // 16) ** 2
    for name, layer in [*model.heads.named_children(), ("overall", model.overall), ("local", model.local)]:
        prefix = name if name in ("overall", "local") else f"heads.{name}"
        assert isinstance(layer, nn.Linear)
        if name in model.heads:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if f"{prefix}.weight" not in values:
            continue
        weight, bias = values[f"{prefix}.weight"], values[f"{prefix}.bias"]
        if name == "local":
            layer.weight.data[: len(weight), places:] = 0  # channels of the map that the file does not have
            layer.weight.data[: len(weight), :places] = weight
        elif name == "overall":
            layer.weight.data[:] = weight
        else:
            overall = model.overall.out_features
            layer.weight.data[:, : weight.shape[1]] = weight
            assert overall < weight.shape[1]
        layer.bias.data[: len(bias)] = bias
    for name in ("shape", "points"):
        layer = getattr(model, name)
        layer.weight.data[:] = values[f"{name}.weight"]
        layer.bias.data[:] = values[f"{name}.bias"]
    assert len(model.points.bias) == 2 * POINTS


def _recalibrate(model: Analyzer, norms: list[nn.BatchNorm2d], batches: list[Tensor]) -> None:
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
            model.eval().read((batch.float() - MEAN) * SCALE)
    for hook in hooks:
        hook.remove()
    for norm, (total, squares, count) in sums.items():
        mean = total / count
        variance = (squares / count - mean.square()).clamp(1e-8)
        norm.running_mean = mean.float()
        norm.running_var = variance.float()
        norm.weight.data = (variance + norm.eps).sqrt().float()
        norm.bias.data = norm.bias.data + mean.float()
