"""The analyzer: a foreign one through the manifest, and the shipped one on real faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import tiny_networks
from visaged.models.analyzer import Analyzer
from visaged.models.manifest import Manifest
from visaged.models.session import SessionConfig
from visaged.models.types import Image

CPU = SessionConfig(provider="cpu")
ENTRY = {
    "name": "red",
    "task": "analyzer",
    "file": "red.onnx",
    "input": {
        "name": "in",
        "layout": "NCHW",
        "dtype": "float32",
        "colour": "RGB",
        "mean": 127.5,
        "scale": 1 / 127.5,
        "size": 32,
        "template": [[10, 12], [22, 12], [16, 18], [11, 24], [21, 24]],
    },
    "heads": [
        {"name": "flushed", "kind": "binary", "output": "redness", "labels": ["pale", "flushed"]},
        {"name": "redness", "kind": "score", "output": "redness"},
        {"name": "heat", "kind": "number", "output": "redness", "unit": "parts"},
    ],
}


def test_a_foreign_analyzer_drops_in_by_its_entry(tmp_path: Path) -> None:
    tiny_networks.analyzer(tmp_path / "red.onnx")
    analyzer = Analyzer.load(Manifest(tiny_networks.manifest(tmp_path, dict(ENTRY))), "red", CPU)
    crops: Image = np.zeros((3, 32, 32, 3), np.uint8)
    crops[0] = (0, 0, 255)
    crops[2] = (255, 255, 0)
    red, black, cyan = analyzer.analyze(crops)
    np.testing.assert_allclose(red["flushed"], [0, 1], atol=1e-5)
    np.testing.assert_allclose(black["redness"], [0.5], atol=1e-5)
    np.testing.assert_allclose(cyan["heat"], [0, np.nan], atol=1e-5)
    assert analyzer.aligner.size == 32
    assert analyzer.points_head is None
    # The crops go in as the aligner gives them: uint8 BGR, and come to no harm.
    assert crops[0, 0, 0].tolist() == [0, 0, 255]


def test_the_shape_is_the_entry_s(tmp_path: Path) -> None:
    tiny_networks.analyzer(tmp_path / "red.onnx")
    analyzer = Analyzer.load(Manifest(tiny_networks.manifest(tmp_path, dict(ENTRY))), "red", CPU)
    with pytest.raises(Exception, match="invalid dimensions"):
        analyzer.analyze(np.zeros((1, 30, 30, 3), np.uint8))
