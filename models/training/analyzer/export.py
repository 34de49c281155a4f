"""Exporting a checkpoint's averaged weights to ONNX.

    python -m visaged.models.training.analyzer.export RUN/calibrated.pt analyzer.onnx

The file takes `crop` (B, 112, 112, 3) uint8 BGR and gives finished numbers: probabilities, years, degrees, crop pixels.
Large weights are stored in half precision and cast once when the file is loaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from visaged.models.training.analyzer.heads import AGES, POSE_UNIT, SIZE
from visaged.models.training.analyzer.network import Analyzer, load_checkpoint
from visaged.models.training.common import command
from visaged.models.training.common.export_onnx import store_half, take_bytes, traced, write
from visaged.models.training.common.pixels import MEAN, SCALE

OUTPUTS = (
    *("points", "age", "age_deviation", "female", "emotion", "mask", "glasses", "beard", "hat"),
    *("right_eye", "left_eye", "pose", "attractiveness", "quality", "blur"),
)


class ExportedOutputs(nn.Module):
    """The network from normalised pixels to the outputs of the file."""

    def __init__(self, model: Analyzer, deviation_scale: float, names: tuple[str, ...] = OUTPUTS) -> None:
        """Wrap a trained network.

        Args:
            model: the trained network, calibrated or not.
            deviation_scale: factor that corrects the standard deviation of the age head.
            names: the outputs of the file, in order.
        """
        super().__init__()
        self.model, self.names = model, names
        self.deviation_scale = deviation_scale

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, 112, 112) to the outputs of `names`: (B,), points (B, 106, 2), classes (B, K), pose (B, 3)."""
        raw = self.model.read(pixels)
        bins = torch.arange(float(AGES), device=pixels.device)
        chances = raw["age"].softmax(1)
        age = (chances * bins).sum(1)
        variance = (chances * (bins - age[:, None]).square()).sum(1)
        eyes = raw["eyes"].sigmoid()
        values = {
            "points": raw["points"],
            "age": age,
            "age_deviation": self.deviation_scale * variance.clamp(min=0.25).sqrt(),
            "emotion": raw["emotion"].softmax(1),
            "glasses": raw["glasses"].softmax(1),
            "pose": raw["pose"] * POSE_UNIT,
            "right_eye": eyes[:, 0],
            "left_eye": eyes[:, 1],
        }
        for name in ("female", "mask", "beard", "hat", "attractiveness", "quality", "blur"):
            values[name] = raw[name][:, 0].sigmoid()
        return tuple(values[name] for name in self.names)


def export(outputs: ExportedOutputs, path: Path) -> None:
    """Write the network to a file."""
    names = list(outputs.names)
    axes = {name: {0: "batch"} for name in ["pixels", *names]}
    network = traced(outputs, torch.zeros(2, 3, SIZE, SIZE), path, names, axes)
    take_bytes(network.graph, "crop", SIZE, SIZE)
    store_half(network.graph)
    write(network, path)


def largest_differences(outputs: ExportedOutputs, path: Path) -> dict[str, float]:
    """Compare the file with the network on noise and flat crops, by output."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    crop[3:] = rng.integers(0, 256, (2, 1, 1, 3))
    pixels = (torch.from_numpy(crop).permute(0, 3, 1, 2).float() - MEAN) * SCALE
    with torch.no_grad():
        expected = outputs.eval()(pixels)
    found = session.run(list(outputs.names), {"crop": crop})
    pairs = zip(outputs.names, found, expected, strict=True)
    return {name: float(np.abs(got - want.numpy()).max()) for name, got, want in pairs}


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--without", nargs="*", default=[], choices=OUTPUTS, help="outputs to leave out")
    arguments = parser.parse_args()
    model, checkpoint = load_checkpoint(arguments.checkpoint)
    names = tuple(name for name in OUTPUTS if name not in arguments.without)
    outputs = ExportedOutputs(model, float(checkpoint.get("deviation_scale", 1.0)), names)
    export(outputs, arguments.onnx)
    differences = largest_differences(outputs, arguments.onnx)
    text = ", ".join(f"{name} {value:.2g}" for name, value in differences.items())
    size = arguments.onnx.stat().st_size / 1e6
    print(f"{arguments.onnx}: {size:.2f} MB, after {checkpoint['seen']} samples; differs from PyTorch by {text}")


if __name__ == "__main__":
    command.run(main)
