"""Taking a trained analyzer back from its exported ONNX file, so that anyone can train a shipped network further.

Blocks, channels and heads that the file does not have are added so that the function stays what it was: blocks as
identities, channels that nobody reads, heads that start at zero.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from visaged.models.training.analyzer.network import Analyzer, AnalyzerShape
from visaged.models.training.common.import_onnx import (
    blocks_to_add,
    copy_weight,
    normalised_convolutions,
    read_weights,
    recalibrate,
    set_shift,
)
from visaged.models.training.detector.network import Residual


def analyzer_from_onnx(path: Path, config: AnalyzerShape, batches: list[Tensor]) -> Analyzer:
    """Build a trainable network from an exported one.

    Args:
        path: the ONNX file.
        config: the network to build: channels of the trunk as in the file, as many residual blocks or more.
        batches: real crops, each (B, 3, 112, 112) uint8 BGR.

    Raises:
        OSError: there is no such file.
        ValueError: it is not the export of such a network.
    """
    kernels, values = read_weights(path)
    model = Analyzer(config)
    model.eval()
    pairs = normalised_convolutions(model)
    added = blocks_to_add(path, [], _stages(model), len(pairs) - len(kernels))
    skipped = {inner for block in added for inner in block.modules()}
    kept = [pair for pair in pairs if pair[0] not in skipped]
    for (convolution, norm), (weight, bias) in zip(kept, kernels, strict=True):
        copy_weight(path, convolution, weight, may_widen=True)
        set_shift(norm, bias)
    _copy_matrices(path, model, _by_module(values))
    recalibrate(model, [norm for _, norm in kept], batches)
    return model


def _by_module(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a file by the names that this network's parameters have."""
    named = {}
    for name, value in values.items():
        layer, _, kind = name.partition(".")[2].rpartition(".")
        named[f"{layer}.{kind}" if layer else name.rpartition(".")[2]] = value
    return named


def _stages(model: Analyzer) -> list[list[nn.Module]]:
    """Return the residual blocks of each stage of the trunk."""
    stages: list[list[nn.Module]] = []
    for module in model.trunk:
        if isinstance(module, Residual):
            stages[-1].append(module)
        else:
            stages.append([])
    return stages


def _copy_matrices(path: Path, model: Analyzer, values: dict[str, Tensor]) -> None:
    """Copy the linear layers; heads and inputs that the file does not have get a weight of zero."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    for name, layer in layers.items():
        if f"{name}.weight" not in values:
            if not name.startswith("heads."):
                raise ValueError(f"{path} is of another network: it has no matrix {name}")
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            continue
        weight = values[f"{name}.weight"]
        outputs, inputs = weight.shape
        if outputs > layer.out_features or inputs > layer.in_features:
            expected = tuple(layer.weight.shape)
            raise ValueError(f"{path} holds {tuple(weight.shape)} in {name} where the network has {expected}")
        layer.weight.data[:outputs, inputs:] = 0
        layer.weight.data[:outputs, :inputs] = weight
        layer.bias.data[:outputs] = values[f"{name}.bias"]
