"""What can be measured on a face without a network: head pose, blur, quality of a shot."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from visaged.models.types import Image

# An average adult head in centimetres, x to the picture's right, y down, z away from the camera, for a face that looks
# straight into it: the anthropometric model behind POSIT demos (P. Martins, glAnthropometric3DModel, ISR Coimbra) in
# the selection that K. Lin's "head-pose-estimation" made popular, with the axes turned to the camera's. Index: which of
# the 106 points it is.
_HEAD_106: dict[int, tuple[float, float, float]] = {
    33: (-6.826, -6.761, -4.402),  # brow, picture's left, outer end
    37: (-1.330, -7.122, -6.904),
    38: (1.330, -7.122, -6.904),
    42: (6.826, -6.761, -4.402),
    52: (-5.311, -5.485, -3.988),  # eye, picture's left, outer corner
    55: (-1.790, -5.394, -4.413),
    58: (1.790, -5.394, -4.413),
    61: (5.311, -5.485, -3.988),
    47: (-2.006, -1.410, -6.166),  # nostril wings
    51: (2.006, -1.410, -6.166),
    84: (-2.774, 2.081, -5.049),  # mouth corners
    90: (2.774, 2.081, -5.049),
    16: (0.0, 7.416, -4.070),  # chin
}
_INDEX_106 = np.array(list(_HEAD_106), np.intp)
_MODEL_106 = np.array(list(_HEAD_106.values()))
# The same head at the five points: eye centres, tip of the nose, mouth corners. The height of the nose is set so that
# the median pitch of 2,248 portrait photos is 0.
_MODEL_5 = np.array(
    [(-3.551, -5.439, -4.2), (3.551, -5.439, -4.2), (0.0, -1.05, -7.9), (-2.774, 2.081, -5.049), (2.774, 2.081, -5.049)]
)


_FIT_106, _FIT_5 = (np.linalg.pinv(model - model.mean(0)) for model in (_MODEL_106, _MODEL_5))  # (3, N)


class HeadPose(NamedTuple):
    """Angles of a head in degrees, as the camera sees it.

    Attributes:
        yaw: Positive when the face turns to the picture's right.
        pitch: Positive when it looks up.
        roll: Positive when it tilts clockwise in the picture.
    """

    yaw: float
    pitch: float
    roll: float


def head_pose(points: ArrayLike) -> HeadPose:
    """Return the pose of a head from its landmarks by scaled orthography.

    The first step of POSIT (DeMenthon and Davis, "Model-based object pose in 25 lines of code", IJCV 1995): a linear
    least-squares fit of an average head, then the nearest true rotation. It needs no lens data: cameras report none.

    Args:
        points: (106, 2) or (5, 2) pixels of the picture.
    """
    image = np.asarray(points, np.float64)
    fit = _FIT_5
    if len(image) == 106:
        image, fit = image[_INDEX_106], _FIT_106
    affine = fit @ (image - image.mean(0))  # (3, 2)
    u, _, v = np.linalg.svd(affine.T, full_matrices=False)
    rows = u @ v  # (2, 3): the first two rows of the rotation
    rotation = np.vstack([rows, np.cross(rows[0], rows[1])])
    return HeadPose(*map(float, angles_of(rotation[None])[0]))


def rotations(angles: ArrayLike) -> NDArray[np.float64]:
    """Return (N, 3, 3) rotations from the head's axes to the camera's for (N, 3) yaw, pitch, roll in degrees."""
    yaw, pitch, roll = np.radians(np.asarray(angles, np.float64)).T
    away = -np.stack([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), -np.cos(yaw) * np.cos(pitch)], -1)
    level = np.stack([np.cos(yaw), np.zeros_like(yaw), np.sin(yaw)], -1)
    right = level * np.cos(roll)[:, None] + np.cross(away, level) * np.sin(roll)[:, None]
    return np.stack([right, np.cross(away, right), away], -1)


def angles_of(rotation: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (N, 3) yaw, pitch, roll in degrees of (N, 3, 3) rotations from the head's axes to the camera's.

    Yaw and pitch are undone before roll is read, so that a face turned aside but level has none.
    """
    x, y, z = -np.moveaxis(rotation[:, :, 2], 1, 0)
    level = np.stack([-z, np.zeros_like(z), x], -1) / np.maximum(np.hypot(x, z), 1e-9)[:, None]
    down, right = np.cross(rotation[:, :, 2], level), rotation[:, :, 0]
    roll = np.arctan2((right * down).sum(1), (right * level).sum(1))
    angles = np.degrees(np.stack([np.arctan2(x, -z), np.arcsin(np.clip(-y, -1, 1)), roll], -1))
    return np.asarray(angles, np.float32)


def turned(angles: ArrayLike, degrees: ArrayLike) -> NDArray[np.float32]:
    """Return (N, 3) poses after the picture is turned clockwise by (N,) degrees.

    Roll grows by the same angle where yaw and pitch are 0; elsewhere these change too, as the head's axis turns with
    the picture.
    """
    angle = np.radians(np.asarray(degrees, np.float64))
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 1, 0], turn[:, 0, 1], turn[:, 2, 2] = np.sin(angle), -np.sin(angle), 1
    return angles_of(turn @ rotations(angles))


def blur(crop: Image) -> float:
    """Return how blurred an aligned crop is, 0 sharp to 1 without any detail.

    Variance of the Laplacian (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000) over the
    central half, divided by the variance of the grey values so that contrast and light do not count, and squashed by
    1 / (1 + 20 v): 0.5 is where eyes and lips begin to lose their edges at 112 px.

    Args:
        crop: (H, W, 3) uint8 BGR.
    """
    height, width = crop.shape[:2]
    centre = crop[height // 4 : height - height // 4, width // 4 : width - width // 4]
    grey = cv2.cvtColor(centre, cv2.COLOR_BGR2GRAY)
    contrast = float(grey.var())
    if contrast < 1.0:
        return 1.0
    edges = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return 1.0 / (1.0 + 20.0 * edges / contrast)


def shot_quality(
    boxes: NDArray[np.float32], confidences: NDArray[np.float32], landmarks: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return how much a face can be trusted to show, 0..1, from its geometry alone.

    The product of the detector's confidence, the size (a face of 112 px and more counts fully, smaller ones by their
    height) and the cosines of yaw and pitch from the five points. Cheap enough for every face of every frame; it picks
    the frames whose attributes are read and a track's best shot.

    Args:
        boxes: (N, 4) xyxy pixels.
        confidences: (N,) 0..1.
        landmarks: (N, 5, 2) pixels.
    """
    size = np.minimum(1.0, (boxes[:, 3] - boxes[:, 1]) / 112.0)
    # The product of both cosines is how far the face's normal points at the camera.
    affine = np.einsum("mp,npk->kmn", _FIT_5, landmarks)  # (2, 3, N); the fit does not see where the face is
    (ax, ay, az), (bx, by, bz) = affine
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx  # the normal; np.cross takes ten times as long
    frontal = z / np.maximum(np.sqrt(x * x + y * y + z * z), 1e-9)
    quality: NDArray[np.float64] = confidences * size * np.clip(frontal, 0.0, 1.0)
    return quality
