"""Detectors of other makes: small networks in their output formats, through the manifest and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import tiny_networks
from visaged.models.detector import Detector
from visaged.models.errors import ModelError
from visaged.models.manifest import Manifest
from visaged.models.session import SessionConfig
from visaged.models.types import Image

CPU = SessionConfig(provider="cpu")
RED = (0, 0, 255)


def entry(style: str, **changes: Any) -> dict[str, Any]:
    form = tiny_networks.SCALES[style]
    return {
        "name": "red",
        "task": "detector",
        "file": "red.onnx",
        "input": {"name": "in", "layout": "NCHW", "dtype": "float32"}
        | {k: form[k] for k in ("colour", "mean", "scale")},
        "decoder": style,
        "strides": list(tiny_networks.STRIDES),
    } | changes


def load(folder: Path, style: str, batch_axis: bool = True, **changes: Any) -> Detector:
    tiny_networks.detector(folder / "red.onnx", style, batch_axis)
    return Detector.load(Manifest(tiny_networks.manifest(folder, entry(style, **changes))), "red", CPU)


def canvas(*cells: tuple[int, int, int], colour: tuple[int, int, int] = RED) -> Image:
    """Return a black 96 x 64 picture with cells (row, column, stride) of a colour, BGR."""
    picture = np.zeros((64, 96, 3), np.uint8)
    for row, column, stride in cells:
        picture[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride] = colour
    return picture


@pytest.mark.parametrize("style", ["scrfd", "yunet"])
@pytest.mark.parametrize("cell", [(0, 0, 8), (7, 11, 8), (2, 5, 16), (1, 2, 32)])
def test_a_red_cell_is_found_where_it_is(tmp_path: Path, style: str, cell: tuple[int, int, int]) -> None:
    (found,) = load(tmp_path, style, nms_iou=0.99).detect(canvas(cell)[None])
    row, column, stride = cell
    x, y = column * stride, row * stride
    if style == "scrfd":
        box = [float(x - stride), float(y - stride), float(x + stride), float(y + stride)]
    else:
        box = [x - stride / 2, y - stride / 2, x + 1.5 * stride, y + 1.5 * stride]
    match = np.abs(found.boxes - box).max(1) < 1e-3
    assert match.any()
    assert found.confidences[match] == pytest.approx(0.9, abs=1e-3)
    np.testing.assert_allclose(found.landmarks[match][0], [[x + stride / 4, y + stride / 2]] * 5, atol=1e-3)
    assert (np.diff(found.confidences) <= 0).all()


@pytest.mark.parametrize("style", ["scrfd", "yunet"])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (128, 128, 128)])
def test_other_colours_are_nothing(tmp_path: Path, style: str, colour: tuple[int, int, int]) -> None:
    (found,) = load(tmp_path, style).detect(canvas((1, 1, 32), colour=colour)[None])
    assert len(found) == 0


@pytest.mark.parametrize("style", ["scrfd", "yunet"])
def test_a_batch_is_the_same_as_one_by_one(tmp_path: Path, style: str) -> None:
    detector = load(tmp_path, style)
    batch = np.stack([canvas((0, 3, 8)), canvas(), canvas((1, 0, 32), (0, 4, 16))])
    together = detector.detect(batch)
    assert [len(found) for found in together] == [len(detector.detect(picture[None])[0]) for picture in batch]
    assert len(together[1]) == 0
    for found, picture in zip(together, batch, strict=True):
        np.testing.assert_array_equal(found.boxes, detector.detect(picture[None])[0].boxes)


def test_a_file_without_a_batch_axis_takes_one_at_a_time(tmp_path: Path) -> None:
    detector = load(tmp_path, "scrfd", batch_axis=False, max_batch=1)
    found = detector.detect(np.stack([canvas((0, 3, 8)), canvas(), canvas((1, 2, 32))]))
    assert [len(f) > 0 for f in found] == [True, False, True]


def test_outputs_may_have_other_names(tmp_path: Path) -> None:
    names = {"score": ["score_8", "score_16", "score_32"], "kps": ["kps_8", "kps_16", "kps_32"]}
    assert len(load(tmp_path, "scrfd", outputs=names).detect(canvas((1, 1, 32))[None])[0]) > 0
    with pytest.raises(ModelError, match=r"red lacks 448, .*outputs .*score_8"):
        load(tmp_path, "scrfd", outputs={"score": ["448", "score_16", "score_32"]})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"outputs": {"boxes": ["a", "b", "c"]}}, "decoder scrfd knows score, bbox, kps, not boxes"),
        ({"outputs": {"bbox": ["a"]}}, r"outputs\.bbox: needs a name for each of the 3 strides"),
        ({"decoder": "retinaface"}, "decoder"),
        ({"strides": [0]}, "strides"),
        ({"max_batch": 0}, "max_batch"),
        ({"input": {"name": "in", "mean": 1.0}}, "mean and scale need dtype float32"),
    ],
)
def test_entries_that_cannot_be(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        load(tmp_path, "scrfd", **changes)
