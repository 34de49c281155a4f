"""What the teachers' numbers mean together: head pose from two sources, open eyes, glasses, and where to doubt them.

Measured on 1,100 portraits and 1,000 faces of UTKFace, seen upright, and looked at on sheets:

- Pose: the 106 points and the face mesh agree best by far (correlation of yaw 0.98, pitch 0.88, roll 0.9). Yaw and
  pitch of head-pose-estimation-adas-0001 follow them at 0.93 and 0.75 to 0.8 with slopes of 1.35 and 0.55, those of
  ZQCNN's pose_gaze at 0.93 and 0.7; its roll says nothing about upright crops. Both sources come to some 50 degrees in
  a full profile, where pose_gaze says up to 70: take them as at least that.
- Eyes: lids of the 106 and 98 points close with the eyes (they agree at 0.8); lids of the face mesh do not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visaged.models.geometry import angles_of, rotations
from visaged.models.training.analyzer.labelling.crops import FloatArray

Eyes = tuple[tuple[tuple[int, int], ...], ...]
"""For either eye three pairs of upper and lower lid, and last the corners."""

# Rigid points of MediaPipe's mesh in centimetres, x right, y down, z away: the mean shape of 1,100 portraits by
# Procrustes analysis, made symmetric, and tilted so that their median pitch is 0.
_MESH_HEAD: dict[int, tuple[float, float, float]] = {
    10: (0.00, -6.07, -1.57),
    151: (0.00, -4.50, -1.88),
    9: (0.00, -2.86, -2.06),
    168: (0.00, -1.28, -1.86),
    6: (0.00, -0.49, -2.28),
    197: (0.00, 0.22, -2.76),
    195: (0.00, 0.86, -3.27),
    5: (0.00, 1.55, -3.80),
    4: (0.00, 2.37, -4.03),
    1: (0.00, 3.01, -3.80),
    2: (0.00, 3.60, -2.23),
    33: (-4.54, -0.86, 0.39),
    263: (4.54, -0.86, 0.39),
    133: (-1.76, -0.70, -0.18),
    362: (1.76, -0.70, -0.18),
    127: (-6.94, -0.60, 5.36),
    356: (6.94, -0.60, 5.36),
    234: (-6.84, 0.77, 5.86),
    454: (6.84, 0.77, 5.86),
    93: (-6.74, 2.18, 5.97),
    323: (6.74, 2.18, 5.97),
    98: (-1.72, 3.36, -1.42),
    327: (1.72, 3.36, -1.42),
    117: (-5.26, 0.74, 0.46),
    346: (5.26, 0.74, 0.46),
    50: (-4.88, 2.26, -0.10),
    280: (4.88, 2.26, -0.10),
    70: (-5.70, -2.37, 0.44),
    300: (5.70, -2.37, 0.44),
    107: (-1.46, -2.99, -2.00),
    336: (1.46, -2.99, -2.00),
}
_MESH_INDEX = np.array(list(_MESH_HEAD), np.intp)
_MESH_MODEL = np.array(list(_MESH_HEAD.values())) - np.mean(list(_MESH_HEAD.values()), 0)

PITCH_OF_106 = 4.0
"""Added to the pitch that `head_pose` reads from the teacher's 106 points: their median on 1,100 portraits is -4."""

LIDS_106: Eyes = (((53, 57), (72, 73), (54, 56), (52, 55)), ((59, 63), (75, 76), (60, 62), (58, 61)))
LIDS_98: Eyes = (((61, 67), (62, 66), (63, 65), (60, 64)), ((69, 75), (70, 74), (71, 73), (68, 72)))

LID_CLOSED, LID_MAYBE_CLOSED, LID_MAYBE_OPEN, LID_OPEN = 0.11, 0.14, 0.175, 0.20
"""Lid openings as parts of the eye's width: closed below the first, open above the last; below the second and above
the third the eye network must agree. Seen on sheets of portraits and UTKFace: laughing and stern eyes lie between."""

LID_MIDDLE = 0.16
"""Where open and closed are equally likely."""

GLASSES, NO_GLASSES = -5.0, 2.0
"""Scores that are believed: between -5 and -3 half of those seen were deep-set eyes, fringes and wrinkles."""

DARK_LENS = 0.55
"""Below this `lens_ratio`, something that may be glasses hides the eyes."""

MISPLACED = 15.0
"""Percent: above this disagreement the crop mostly shows the face at a wrong place."""


def spread(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return (N,) degrees of the turn between two lists of (N, 3) poses."""
    between = np.swapaxes(rotations(one), 1, 2) @ rotations(other)
    cosine = (np.trace(between, axis1=1, axis2=2) - 1) / 2
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))), np.float32)


def mesh_pose(points: FloatArray) -> FloatArray:
    """Return (N, 3) yaw, pitch, roll of (N, 468, 3) mesh points by a rigid fit (Kabsch 1976)."""
    rigid = np.asarray(points[:, _MESH_INDEX], np.float64)
    rigid = rigid - rigid.mean(1, keepdims=True)
    u, _, v = np.linalg.svd(np.swapaxes(rigid, 1, 2) @ _MESH_MODEL)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ v))[:, None]
    return angles_of(u @ v)


def lid_opening(points: FloatArray, eyes: Eyes) -> FloatArray:
    """Return (N, 2) how far the lids are apart, in parts of the eye's width, left to right in the picture."""

    def distance(pair: tuple[int, int]) -> FloatArray:
        return np.asarray(np.linalg.norm(points[:, pair[0]] - points[:, pair[1]], axis=1), np.float32)

    gaps = [np.mean([distance(pair) for pair in lids], 0) / np.maximum(distance(c), 1.0) for *lids, c in eyes]
    return np.stack(gaps, 1).astype(np.float32)


def eye_open(by_106: FloatArray, by_98: FloatArray, state: FloatArray, pose: FloatArray) -> FloatArray:
    """Return (N, 2) probability that an eye is open, NaN where nothing is sure.

    The lids of both landmark networks decide, where they agree; half closed eyes need the eye network on their side.
    The far eye of a face turned aside is not judged.
    """
    opening = (by_106 + by_98) / 2
    probability = 1 / (1 + np.exp(-(opening - LID_MIDDLE) / 0.02))
    sure = (opening < LID_CLOSED) | ((opening > LID_OPEN) & ((state > 0.1) | (opening > 0.24)))
    sure |= (opening < LID_MAYBE_CLOSED) & (state < 0.25)
    sure |= (opening > LID_MAYBE_OPEN) & (state > 0.75)
    sure &= np.abs(by_106 - by_98) < 0.09
    sure[:, 0] &= pose[:, 0] > -40  # looking to the picture's left hides the picture's left eye
    sure[:, 1] &= pose[:, 0] < 40
    return np.where(sure, probability, np.nan).astype(np.float32)


def lens_ratio(crops: NDArray[np.uint8]) -> FloatArray:
    """Return (N,) the grey value about the eyes by that of the cheeks: low in sunglasses, and in shade.

    Args:
        crops: (N, 160, 160, 3).
    """
    grey = crops.astype(np.float32).mean(-1)
    eyes = np.concatenate([grey[:, 66:75, 57:74], grey[:, 66:75, 87:104]], 2).mean((1, 2))
    cheeks = np.concatenate([grey[:, 84:92, 56:68], grey[:, 84:92, 92:104]], 2).mean((1, 2))
    return np.asarray(eyes / np.maximum(cheeks, 1), np.float32)


def doubt(arrays: dict[str, FloatArray], covered: NDArray[np.bool_]) -> None:
    """Return whether there are glasses, and strike out what no teacher can have seen, in place."""
    score = arrays["glasses_score"]
    arrays["glasses"] = np.where(score < GLASSES, 1.0, np.where(score > NO_GLASSES, 0.0, np.nan)).astype(np.float32)
    dark = (score < 0) & (arrays["lens_ratio"] < DARK_LENS)
    misplaced = arrays["points_disagreement"] > MISPLACED
    arrays["eye_open"][dark | misplaced] = np.nan
    arrays["glasses"][misplaced] = np.nan
    for key in ("points_disagreement", "eye_open", "glasses"):
        arrays[key][covered] = np.nan
