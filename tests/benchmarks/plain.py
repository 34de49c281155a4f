"""What one would write first: OpenCV and ONNX Runtime with their defaults around the same networks.

`python -m tests.benchmarks.plain PORT` serves `POST /faces` with it: FastAPI, a picture as the body, faces as JSON.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import cv2
import numpy as np
import onnxruntime
import uvicorn
from fastapi import Body, FastAPI

from tests.benchmarks.plain_detector import PlainDetector
from visaged.daemon.settings import ModelSettings
from visaged.models.alignment import similarity
from visaged.models.manifest import Manifest
from visaged.models.types import Detections, Image


class PlainNetworks:
    """The shipped networks in sessions with default options, which use all cores for each call."""

    def __init__(self, names: ModelSettings | None = None) -> None:
        names = names or ModelSettings()
        manifest = Manifest()
        assert names.analyzer is not None
        self.analyzer = manifest.analyzer(names.analyzer)
        self.detect = PlainDetector(names.detector).detect
        self._analyze = onnxruntime.InferenceSession(
            str(manifest.file(self.analyzer)), providers=["CPUExecutionProvider"]
        )
        self._template = np.array(self.analyzer.input.template)

    def read(self, image: Image, faces: Detections) -> dict[str, Any]:
        """Return the analyzer's raw outputs for the faces of a picture."""
        size = self.analyzer.input.size
        crops = [cv2.warpAffine(image, similarity(p, self._template), (size, size)) for p in faces.landmarks]
        names = [head.output for head in self.analyzer.heads]
        return dict(zip(names, self._analyze.run(names, {self.analyzer.input.name: np.stack(crops)}), strict=True))


def create_app() -> FastAPI:
    """Return the server that one would write first."""
    app = FastAPI()
    networks = PlainNetworks()

    @app.post("/faces")
    def faces(body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> dict[str, Any]:
        image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        found = networks.detect(image)  # type: ignore[arg-type]
        read = networks.read(image, found) if len(found) else {}  # type: ignore[arg-type]
        return {
            "boxes": found.boxes.tolist(),
            "confidences": found.confidences.tolist(),
            "landmarks": found.landmarks.tolist(),
            "attributes": {name: value.tolist() for name, value in read.items()},
        }

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(), port=int(sys.argv[1]), log_level="warning", access_log=False)
