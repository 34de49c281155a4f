"""How both networks normalise pixels; needs no PyTorch."""

MEAN, SCALE = 128.0, 1 / 64
"""Pixels become (value - MEAN) * SCALE. MEAN is a whole number so that ONNX's DequantizeLinear does it in one step."""
