"""What it takes to get a trainable network back from its exported ONNX file.

Export folds batch normalisation into the convolutions. Here each normalisation gets the statistics that its inputs have
on real samples and the scale and shift that undo them: the same function, in a form that can be trained on. Residual
blocks that the file does not have are added as identities.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

Kernel = tuple[Tensor, Tensor]
"""A convolution's weight and bias."""


def read_weights(path: Path) -> tuple[list[Kernel], dict[str, Tensor]]:
    """Read an exported network.

    Args:
        path: the ONNX file.

    Returns:
        The kernels of all convolutions in the order in which they run, and every stored value by its name; float32.

    Raises:
        OSError: there is no such file.
        ValueError: it is no ONNX file, or it has no convolution with a stored weight and bias.
    """
    try:
        graph = onnx.load(str(path)).graph
    except OSError:
        raise
    except Exception as error:  # protobuf's own types, which onnx does not name
        raise ValueError(f"{path} is no ONNX file: {error}") from error
    values = {i.name: _tensor(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = _tensor(node.attribute[0].t)
        elif node.op_type == "Cast" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    if not nodes or any(len(n.input) < 3 or not values.keys() >= set(n.input[1:3]) for n in nodes):
        raise ValueError(f"{path} is no export of this training: it has no convolutions, or some without their weights")
    return [(values[n.input[1]], values[n.input[2]]) for n in nodes], values


def _tensor(stored: onnx.TensorProto) -> Tensor:
    return torch.tensor(numpy_helper.to_array(stored)).float()


def normalised_convolutions(model: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return every convolution that a normalisation follows, with that one, in the order of the modules."""
    found = []
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            for before, after in pairwise(module.children()):
                if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                    found.append((before, after))
    return found


def blocks_to_add(path: Path, optional: list[nn.Module], stages: list[list[nn.Module]], missing: int) -> set[nn.Module]:
    """Choose the blocks that a file lacks: the last of the optional ones, then of each stage, the deepest stage first.

    Args:
        path: the file, for the error.
        optional: blocks that may all be missing, in the order in which they run.
        stages: the blocks of each stage, of which the file has the first at least.
        missing: how many convolutions the network has and the file has not; a block has two.

    Raises:
        ValueError: no choice of blocks explains the difference.
    """
    spare = optional[::-1]
    left = [stage[1:] for stage in stages]
    while any(left):
        spare += [stage.pop() for stage in reversed(left) if stage]
    blocks, odd = divmod(missing, 2)
    if odd or not 0 <= blocks <= len(spare):
        difference = f"{missing} convolutions fewer" if missing > 0 else f"{-missing} convolutions more"
        raise ValueError(f"{path} is of another network: it has {difference} than the one to build")
    return set(spare[:blocks])


def copy_weight(path: Path, convolution: nn.Conv2d, weight: Tensor, *, may_widen: bool = False) -> None:
    """Copy a kernel's weight.

    Args:
        path: the file that it is of, for the error.
        convolution: gets the weight.
        weight: (outputs, inputs, height, width).
        may_widen: the convolution may have more outputs, which stay as they are.

    Raises:
        ValueError: the shapes differ.
    """
    outputs, expected = len(weight), tuple(convolution.weight.shape)
    if weight.shape[1:] != expected[1:] or outputs > expected[0] or (outputs < expected[0] and not may_widen):
        raise ValueError(f"{path} holds {tuple(weight.shape)} where the network has {expected}")
    convolution.weight.data[:outputs] = weight


def set_shift(norm: nn.BatchNorm2d, bias: Tensor) -> None:
    """Let a normalisation only add a folded bias, and 0 to the channels beyond it."""
    norm.running_mean.zero_()  # type: ignore[union-attr]
    norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
    # A residual block's second one starts at 0: left so, what is behind would be calibrated without the block.
    norm.weight.data.fill_(1)
    norm.bias.data.zero_()
    norm.bias.data[: len(bias)] = bias


def recalibrate(model: nn.Module, norms: list[nn.BatchNorm2d], batches: list[Tensor]) -> None:
    """Give normalisations the statistics of their inputs without changing what the network computes.

    Args:
        model: the network.
        norms: those of its normalisations that `set_shift` set.
        batches: real samples, each (B, 3, H, W) uint8 BGR.
    """
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
