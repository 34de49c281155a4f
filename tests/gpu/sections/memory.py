"""What a user sees when the GPU's memory, or what `gpu_memory_mb` allows of it, does not suffice."""

from __future__ import annotations

import numpy as np

from tests.gpu.report import Options, Report, Value
from tests.gpu.sections.machine import gpu_state
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.session import SessionConfig

_LEAST_MB = 256
_MANY = 64


def memory(report: Report, options: Options) -> None:
    """Run a batch that cannot fit, then one that can; then see what memory the usual batches take."""
    manifest = Manifest()
    name = manifest.default_detector(on_gpu=True).name
    many, side = (8, 320) if options.quick else (_MANY, 640)
    with report.guarded("small arena"):
        small = Detector.load(manifest, name, SessionConfig(options.provider, gpu_memory_mb=_LEAST_MB))
        for batch in (1, 4, 16, many, 1):
            report.attempt(f"arena of {_LEAST_MB} MB, batch {batch}", lambda b=batch: _run(small, b, side))
    with report.guarded("no limit"):
        free = Detector.load(manifest, name, SessionConfig(options.provider))
        for batch in (1, 16, many):
            report.attempt(f"no limit, batch {batch}", lambda b=batch: _run(free, b, side))
            report.attempt("  GPU memory then", lambda: gpu_state("memory.used,memory.total"))


def _run(detector: Detector, batch: int, side: int) -> dict[str, Value]:
    detector.detect(np.zeros((batch, side, side, 3), np.uint8))
    return {"ran": True}
