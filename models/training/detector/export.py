"""Exporting a checkpoint's averaged weights to ONNX.

    python -m visaged.models.training.detector.export RUN/last.pt detector.onnx

The file takes (B, H, W, 3) uint8 BGR. The scores' logistic function and the distances' softplus are left to the decoder
`cells`, which computes them for the few cells that hold a face: inside the graph they cost a twentieth of its time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from visaged.models.training.common import command
from visaged.models.training.common.export_onnx import store_half, take_bytes, traced, write
from visaged.models.training.common.pixels import MEAN, SCALE
from visaged.models.training.detector.network import Detector, load_checkpoint
from visaged.models.training.detector.shapes import STRIDES


class ExportedOutputs(nn.Module):
    """The network from normalised pixels to the outputs of the file."""

    def __init__(self, model: Detector) -> None:
        """Wrap a trained network."""
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, H, W) to the cells of each stride, (B, H/s, W/s, 15), as `visaged.models.decoders` reads them."""
        return tuple(maps.permute(0, 2, 3, 1) for maps in self.model.maps(pixels))


def export(model: Detector, path: Path, *, half: bool = False) -> None:
    """Write the network to a file, with its weights in half precision if asked for."""
    names = [f"cells_{stride}" for stride in STRIDES]
    axes = {"pixels": {0: "batch", 2: "height", 3: "width"}}
    axes |= {f"cells_{s}": {0: "batch", 1: f"rows_{s}", 2: f"columns_{s}"} for s in STRIDES}
    network = traced(ExportedOutputs(model.eval()), torch.zeros(2, 3, 320, 384), path, names, axes)
    take_bytes(network.graph, "image", "height", "width")
    if half:
        store_half(network.graph)
    write(network, path)


def largest_difference(model: Detector, path: Path) -> float:
    """Compare the file with the network on noise of two sizes."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = ExportedOutputs(model.eval()).eval()
    rng, worst = np.random.default_rng(0), 0.0
    for shape in ((1, 320, 320, 3), (3, 384, 640, 3)):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        pixels = (torch.from_numpy(image).permute(0, 3, 1, 2).float() - MEAN) * SCALE
        with torch.no_grad():
            expected = outputs(pixels)
        for got, want in zip(session.run(None, {"image": image}), expected, strict=True):
            worst = max(worst, float(np.abs(got - want.numpy()).max()))
    return worst


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--half", action="store_true", help="store the weights in half precision: half the file")
    arguments = parser.parse_args()
    model, checkpoint = load_checkpoint(arguments.checkpoint)
    export(model, arguments.onnx, half=arguments.half)
    difference = largest_difference(model, arguments.onnx)
    print(f"{arguments.onnx}: after {checkpoint['seen']} samples; differs from PyTorch by at most {difference:.2g}")


if __name__ == "__main__":
    command.run(main)
