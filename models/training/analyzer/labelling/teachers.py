"""Labelling networks of others, as they are asked: which part of the face each one sees and what its numbers mean.

None of them is part of visaged; openvino reads all of their formats. Every network sees the face upright and at a
fixed place: a square of the aligned crop's plane, cut out of the original picture, so that nothing is lost by going
through the crop's 160 pixels. Where a face lies in that plane was measured on 300 portraits: YuNet's box is there
67.5 wide and 91.9 high about (80.0, 80.7).

Networks differ in what they call 0: the outer border of the input or the centre of its first pixel. Points of a picture
and of its mirror image agree only when that is read right: both landmark networks mean the border (0.05 px of
difference on average, against 0.8 px otherwise), the face mesh the centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models import openvino
from visaged.models.alignment import Matrix, invert, transform
from visaged.models.training.analyzer.heads import MIRROR_106, QUALITY_SIZES
from visaged.models.training.analyzer.labelling.crops import Face, FloatArray, Image, chain, cut

FACE_CENTRE = (80.0, 80.7)
FACE_SIDE = 91.9
"""YuNet's box in the plane of the crop: its centre and its longer side, medians of 300 portraits."""


class Network:
    """A network with a fixed batch size; a shorter last batch is filled up with zeros.

    Args:
        path: any format that openvino reads.
        batch: pictures a call.
        threads: processor threads.
    """

    def __init__(self, path: Path, batch: int = 32, threads: int = 1) -> None:
        core = openvino.package().Core()
        model = core.read_model(str(path))
        shape = list(model.inputs[0].partial_shape)
        model.reshape({model.inputs[0]: [batch, *(d.get_length() for d in shape[1:])]})
        self._batch = batch
        self._compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})
        names = [sorted(output.names)[0] if output.names else str(i) for i, output in enumerate(model.outputs)]
        self._names = [name.split(":")[0] for name in names]

    def __call__(self, inputs: NDArray[np.float32]) -> dict[str, FloatArray]:
        """Return each output by name, flattened to (N, values), for (N, ...) inputs."""
        parts: list[list[FloatArray]] = [[] for _ in self._names]
        for start in range(0, len(inputs), self._batch):
            chunk = inputs[start : start + self._batch]
            count = len(chunk)
            if count < self._batch:
                chunk = np.concatenate([chunk, np.zeros((self._batch - count, *chunk.shape[1:]), np.float32)])
            for part, value in zip(parts, self._compiled(chunk).values(), strict=True):
                part.append(np.array(value, np.float32).reshape(self._batch, -1)[:count])
        return {name: np.concatenate(part) for name, part in zip(self._names, parts, strict=True)}


@dataclass(frozen=True, slots=True)
class View:
    """A square of the crop's plane as a network's input.

    Attributes:
        size: pixels of the input, across.
        side: edge of the square, in crop pixels.
        centre: centre of the square, in crop pixels.
        angle: degrees by which the face stands turned clockwise in the input.
        mirrored: left and right are exchanged.
        height: pixels of the input, down; 0 for a square.
    """

    size: int
    side: float
    centre: tuple[float, float] = FACE_CENTRE
    angle: float = 0.0
    mirrored: bool = False
    height: int = 0

    def matrix(self) -> Matrix:
        """Return the transform from the crop to the input, before mirroring."""
        scale, angle = self.size / self.side, np.deg2rad(self.angle)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.array([self.size, self.height or self.size]) / 2 - 0.5
        return np.hstack([turn, (middle - turn @ np.array(self.centre))[:, None]])

    def cut(self, face: Face, matrix: Matrix) -> Image:
        """Return the (height, size, 3) uint8 BGR input; `matrix` takes the picture to the crop."""
        image = cut(face.image, chain(matrix, self.matrix()), self.size, self.height)
        return image[:, ::-1] if self.mirrored else image

    def to_crop(self, points: FloatArray, corner: float = 0.5) -> FloatArray:
        """Return (..., 2) points of the input in pixels of the crop.

        Args:
            points: pixels of the input.
            corner: what the network calls the centre of the first pixel.
        """
        points = np.asarray(points, np.float32) - np.float32(corner)
        if self.mirrored:
            points = np.stack([self.size - 1 - points[..., 0], points[..., 1]], -1)
        return transform(points, invert(self.matrix()))


def views(faces: Sequence[Face], view: View) -> NDArray[np.uint8]:
    """Return (N, size, size, 3) uint8 BGR."""
    return np.stack([view.cut(face, face.matrix()) for face in faces])


class Landmarks106:
    """ZQCNN's 106 points (zuoqing1988/ZQCNN, MIT): the mean over several views, mirrored ones among them.

    Views of a face differ by 3.4 % of the eye distance from each other; the mean is quieter and mirrors exactly.
    """

    VIEWS = tuple(
        View(112, factor * FACE_SIDE, angle=angle, mirrored=mirrored)
        for factor, angle in ((1.0, 0.0), (1.1, 5.0), (1.1, -5.0))
        for mirrored in (False, True)
    )

    def __init__(self, teachers: Path, threads: int = 1) -> None:
        self._net = Network(teachers / "landmarks106.pb", threads=threads)

    def each(self, faces: Sequence[Face]) -> FloatArray:
        """Return (views, N, 106, 2) pixels of the crop."""
        found = []
        for view in self.VIEWS:
            grey = np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in views(faces, view)])
            answer = next(iter(self._net(grey[..., None].astype(np.float32)).values()))
            points = view.to_crop(answer.reshape(-1, 106, 2) * view.size)
            found.append(points[:, MIRROR_106] if view.mirrored else points)
        return np.stack(found)

    def __call__(self, faces: Sequence[Face]) -> FloatArray:
        """Return (N, 106, 2) float32 pixels of the crop."""
        return np.asarray(self.each(faces).mean(0), np.float32)


class Landmarks98:
    """PFLD_GhostOne's 98 points in the order of WFLW (AnthonyF333/PFLD_GhostOne, Apache-2.0): the second opinion."""

    VIEW = View(112, FACE_SIDE)
    # Same place by name and, on 1,100 portraits, on average: contour, upper brows, nose, eyes, lips, pupils.
    # fmt: off
    SAME_98 = np.array([
        *range(38), *range(42, 47), *range(51, 62), 63, 64, 65, *range(67, 70), 71, 72, 73, 75, 62, 66, 70, 74,
        *range(76, 98),
    ], np.intp)
    SAME_106 = np.array([*range(64), 72, 73, 75, 76, *range(84, 106)], np.intp)
    # fmt: on

    def __init__(self, teachers: Path, threads: int = 1) -> None:
        self._net = Network(teachers / "landmarks98.onnx", 1, threads)  # its graph holds the batch size fast

    def __call__(self, faces: Sequence[Face]) -> FloatArray:
        """Return (N, 98, 2) float32 pixels of the crop."""
        images = views(faces, self.VIEW).transpose(0, 3, 1, 2).astype(np.float32) / 255
        points = self._net(np.ascontiguousarray(images))["output"].reshape(-1, 98, 2)
        return self.VIEW.to_crop(points * self.VIEW.size)


class FaceMesh:
    """MediaPipe's face mesh (Apache-2.0): 468 points with depth. Its lids do not close; its shape is good for pose."""

    # 1.4: where it is surest that there is a face.
    VIEW = View(192, 1.4 * FACE_SIDE)

    def __init__(self, teachers: Path, threads: int = 1) -> None:
        self._net = Network(teachers / "face_mesh468.tflite", 16, threads)

    def __call__(self, faces: Sequence[Face]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return (N, 468, 3) points, those of the mirrored faces in the mirror, and (N,) presence as a logit."""
        images = views(faces, self.VIEW)[..., ::-1].astype(np.float32) / 255
        (plain, presence), (mirrored, other) = (
            sorted(self._net(np.ascontiguousarray(x)).values(), key=lambda value: -value.shape[1])
            for x in (images, images[:, :, ::-1])
        )
        presence = np.asarray(np.minimum(presence, other)[:, 0], np.float32)
        return plain.reshape(-1, 468, 3), mirrored.reshape(-1, 468, 3), presence


class EyeState:
    """Open Model Zoo's open-closed-eye-0001 (Apache-2.0): how open one eye is, the mean over three sizes of the patch.

    A weak witness: many open eyes of dark or wrinkled faces look closed to it.
    """

    SIDES = (20.0, 24.0, 28.0)

    def __init__(self, teachers: Path, threads: int = 1) -> None:
        self._net = Network(teachers / "open_closed_eye.onnx", 64, threads)

    def __call__(self, faces: Sequence[Face], points: FloatArray) -> FloatArray:
        """Return (N, 2) 0..1, left to right in the picture, for (N, 106, 2) points in pixels of the crop."""
        patches = []
        for face, at in zip(faces, points, strict=True):
            matrix = face.matrix()
            for corners in ((52, 55), (58, 61)):
                x, y = at[list(corners)].mean(0)
                patches += [View(32, side, (float(x), float(y))).cut(face, matrix) for side in self.SIDES]
        images = (np.stack(patches).transpose(0, 3, 1, 2).astype(np.float32) - 127) / 255
        answer = next(iter(self._net(np.ascontiguousarray(images)).values()))[:, 1]
        return np.asarray(answer.reshape(len(faces), 2, len(self.SIDES)).mean(2), np.float32)


class Glasses:
    """SlinkoIgor/glasses_detector (Apache-2.0): below 0 with glasses; the mean over three cuts and mirrors."""

    VIEWS = tuple(View(128, side, (80.0, y), height=64) for side, y in ((72.0, 68.0), (72.0, 72.0), (80.0, 70.0)))

    def __init__(self, teachers: Path, threads: int = 1) -> None:
        self._net = Network(teachers / "glasses.tflite", 32, threads)

    def __call__(self, faces: Sequence[Face]) -> FloatArray:
        """Return (N,) the mean score."""
        scores = []
        for view in self.VIEWS:
            images = views(faces, view)[..., ::-1].astype(np.float32)
            for x in (images, images[:, :, ::-1]):
                scores.append(next(iter(self._net(np.ascontiguousarray(x)).values()))[:, 0])
        return np.asarray(np.mean(scores, 0), np.float32)


class Quality:
    """LightQNet (KaenChan/lightqnet, MIT): how well a face can be recognised, at several resolutions."""

    def __init__(self, teachers: Path, threads: int = 1) -> None:
        self._net = Network(teachers / "quality.pb", 32, threads)

    def __call__(self, crops: NDArray[np.uint8]) -> FloatArray:
        """Return (N, 5) 0..1 for (N, 112, 112, 3) uint8 BGR inputs, shrunk to `QUALITY_SIZES` first."""
        scores = []
        for side in QUALITY_SIZES:
            images = []
            for crop in crops:
                small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
                large = cv2.resize(small, (112, 112), interpolation=cv2.INTER_LINEAR)
                # It knows faces by ArcFace's template, whose 112 pixels are 95 of ours.
                images.append(cv2.resize(large[2:97, 8:103], (96, 96), interpolation=cv2.INTER_LINEAR)[..., ::-1])
            inputs = np.stack(images).astype(np.float32) / np.float32(128) - np.float32(1)
            scores.append(next(iter(self._net(inputs).values()))[:, 0])
        return np.stack(scores, 1)
