"""What both exporters do: trace a network, and let the file take bytes.

Cast, mean and scale are one DequantizeLinear, so that zero padding is the mean exactly as in training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from visaged.models.training.common.pixels import MEAN, SCALE

OPSET = 17
_LEAST_STORED_HALF = 1000
"""Initializers with at least so many numbers are stored in half precision by `store_half`."""


def traced(
    outputs: nn.Module, pixels: Tensor, path: Path, names: list[str], axes: dict[str, dict[int, str]]
) -> onnx.ModelProto:
    """Write a network to a file, and return what the file holds.

    Args:
        outputs: maps normalised pixels to the outputs of the file.
        pixels: an example, (B, 3, H, W) float32.
        path: the file.
        names: the names of the outputs, in order.
        axes: names of the axes of any size, by `pixels` and the names of the outputs.
    """
    torch.onnx.export(
        outputs.eval(),
        (pixels,),
        path,
        input_names=["pixels"],
        output_names=names,
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )
    return onnx.load(str(path))


def take_bytes(graph: onnx.GraphProto, name: str, height: int | str, width: int | str) -> None:
    """Let a graph take images (B, height, width, 3) uint8 BGR in place of normalised pixels.

    Args:
        graph: changed: gets layout, cast and normalisation before its first node.
        name: the name of the input.
        height: pixels, or the name of an axis of any size.
        width: pixels, or the name of an axis of any size.
    """
    graph.input.remove(graph.input[0])
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", height, width, 3]))
    graph.initializer.append(numpy_helper.from_array(np.array(SCALE, np.float32), "pixel_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(MEAN, np.uint8), "pixel_mean"))
    inputs = ["planes", "pixel_scale", "pixel_mean"]
    graph.node.insert(0, helper.make_node("Transpose", [name], ["planes"], name="layout", perm=[0, 3, 1, 2]))
    graph.node.insert(1, helper.make_node("DequantizeLinear", inputs, ["pixels"], name="normalise"))


def store_half(graph: onnx.GraphProto) -> None:
    """Store large weights as float16, which halves the file; ONNX Runtime folds the casts when it loads it."""
    casts = []
    for weight in list(graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _LEAST_STORED_HALF:
            continue
        half = f"{weight.name}_half"
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [weight.name], name=f"{weight.name}_cast", to=TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)


def write(network: onnx.ModelProto, path: Path) -> None:
    """Check a network and write it to a file."""
    onnx.checker.check_model(network)
    onnx.save(network, str(path))
