"""The shipped detector as one would use it first: ONNX Runtime with its defaults, pictures scaled by OpenCV.

It needs `visaged.models` alone, so that it runs in the environments of other programs too.
"""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime

from visaged.models.decoders import DECODERS, Batch
from visaged.models.detector import suppress
from visaged.models.manifest import Manifest
from visaged.models.types import Detections, Image


class PlainDetector:
    """The detector in a session with default options, which uses all cores for each call.

    Args:
        name: A detector of the manifest; None for the one that the daemon takes on a CPU.
    """

    def __init__(self, name: str | None = None) -> None:
        manifest = Manifest()
        self.entry = manifest.detector(name) if name else manifest.default_detector(on_gpu=False)
        self._session = onnxruntime.InferenceSession(str(manifest.file(self.entry)), providers=["CPUExecutionProvider"])

    def detect(self, image: Image) -> Detections:
        """Return the faces of an (H, W, 3) BGR picture, in its pixels."""
        scale = 640 / max(image.shape[:2])
        width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
        canvas = np.zeros((-height % 32 + height, -width % 32 + width, 3), np.uint8)
        canvas[:height, :width] = cv2.resize(image, (width, height))
        decoder = DECODERS[self.entry.decoder]
        names = self.entry.output_names(decoder.kinds)
        values = self._session.run(names, {self.entry.input.name: canvas[None]})
        keys = [(kind, stride) for kind in decoder.kinds for stride in self.entry.strides]
        batch = Batch(1, *canvas.shape[:2])
        (found,) = decoder.decode(dict(zip(keys, values, strict=True)), self.entry.strides, batch, self.entry.threshold)
        found = suppress(found, self.entry.nms_iou)
        return Detections(found.boxes / scale, found.confidences, found.landmarks / scale)
