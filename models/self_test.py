"""The self test of a network: it is run once at start to see that it takes and gives what its manifest entry says.

Loading a file shows that it is a network with the right names. Wrong types, shapes and numbers show only when it runs;
the self test reports them to the author of the entry at start, before any camera's frame meets them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.errors import ModelError
from visaged.models.manifest import Head
from visaged.models.preprocess import canvas_for
from visaged.models.types import FloatArray, Image

_BATCH = 3
_LONG_SIDE = 320
_PICTURES = ((16, 9), (4, 3), (1, 1), (9, 16))
"""Width to height of cameras' pictures: their canvases have three shapes, lying or standing."""

_ROUNDING = 0.01
_SAME = 0.05
"""Tolerance, absolute and relative, between outputs in a batch and alone: half precision, another order of sums."""


def self_test(model: Detector | Analyzer) -> None:
    """Run a network on noise, alone and in a batch; a detector on every shape of canvas.

    Args:
        model: The loaded network.

    Raises:
        ModelError: The network fails, or gives something else than its entry says; the text says for which input, and
            what to check.
    """
    noise = np.random.default_rng(0)
    if isinstance(model, Analyzer):
        _test_analyzer(model, noise)
        return
    for size in (1, _BATCH):
        for width, height in _PICTURES:
            canvas = canvas_for(width, height, _LONG_SIDE, model.multiple_of)
            pictures = noise.integers(0, 256, (size, canvas.height, canvas.width, 3), np.uint8)
            _run(model, model.detect, pictures)


def _test_analyzer(model: Analyzer, noise: np.random.Generator) -> None:
    side = model.aligner.size
    crops = noise.integers(0, 256, (_BATCH, side, side, 3), np.uint8)
    crops[0] = 0  # not all alike: a head of noise alone hardly says two things
    alone = [reading for crop in crops for reading in _run(model, model.analyze, crop[None])]
    for readings in (alone, _run(model, model.analyze, crops)):
        for index, reading in enumerate(readings):
            for name, value in reading.items():
                _check(model.name, model.heads[name], value)
                if not np.allclose(value, alone[index][name], _SAME, _SAME, equal_nan=True):
                    raise ModelError(
                        f"model {model.name}: output {model.heads[name].output} of head {name} differs for a face "
                        f"alone and in a batch of {_BATCH}: its first axis is not the batch, or it has other numbers "
                        f"than kind {model.heads[name].kind} reads"
                    )


def _run(model: Detector | Analyzer, work: Callable[[Image], list[Any]], images: Image) -> list[Any]:
    size, height, width = images.shape[:3]
    try:
        return work(images)
    except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
        hint = "" if isinstance(error, ModelError) else "; compare its entry's input: layout, dtype, size"
        if size > 1:
            hint += "; one at a time it runs: "
            hint += (
                "max_batch: 1 in its entry says so" if isinstance(model, Detector) else "export it with a free batch"
            )
        raise ModelError(f"model {model.name} fails on {size} x {width}x{height} pixels: {error}{hint}") from error


def _check(name: str, head: Head, value: FloatArray) -> None:
    """Compare one reading, as `Analyzer.analyze` gives it, with its head."""
    shape = {
        "points": (head.count, 2),
        "number": (2,),
        "classes": (len(head.labels),),
        "binary": (2,),
        "score": (1,),
        "angles": (3,),
    }[head.kind]
    wrong = ""
    numbers = value[:1] if head.kind == "number" and head.deviation is None else value
    if value.shape != shape:
        wrong = f"gives {value.shape} a face where kind {head.kind} needs {shape}"
    elif not np.isfinite(numbers).all():
        wrong = "gives numbers that are not finite"
    elif head.kind in ("classes", "binary", "score") and (value.min() < -_ROUNDING or value.max() > 1 + _ROUNDING):
        wrong = (
            f"gives {value.min():.3g} to {value.max():.3g} where 0..1 is needed: the export lacks its last activation"
        )
    elif head.kind == "classes" and abs(float(value.sum()) - 1) > _ROUNDING:
        wrong = f"gives probabilities whose sum is {value.sum():.3g}, not 1"
    elif head.kind == "number" and head.deviation is not None and value[1] <= 0:
        wrong = f"gives a standard deviation of {value[1]:.3g}"
    if wrong:
        raise ModelError(f"model {name}: output {head.output} of head {head.name} {wrong}")
