"""Picture packs of a few pictures, as `visaged.models.training` reads them, and faces that are easy to measure."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

COLUMNS = ["image", "width", "height", "x", "y", "w", "h"]
COLUMNS += [f"{axis}{i}" for i in range(1, 6) for axis in "xy"] + ["score", "source"]

# Of the face that `paint` draws, in parts of its width and height from its left top: eyes, nose, mouth corners.
POINTS = np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.3, 0.75], [0.7, 0.75]])
# One colour a point, BGR, far from one another, from the face and from any grey.
COLOURS = ((0, 0, 255), (255, 0, 0), (0, 255, 0), (255, 0, 255), (0, 255, 255))
FACE = (255, 255, 255)


def jpeg(image: Image, quality: int = 95) -> bytes:
    """The picture as a file."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def row(image: str, box: Sequence[float] = (), points: NDArray[Any] | None = None, **more: Any) -> dict[str, Any]:
    """A row of a pack's CSV: a face by left, top, width, height, or a picture without one."""
    values: dict[str, Any] = {"image": image} | dict(zip("xywh", box, strict=False)) | more
    if points is not None:
        values |= dict(zip(COLUMNS[7:17], points.reshape(-1).tolist(), strict=True))
    return values


def write(folder: Path, pack: str, pictures: Mapping[str, bytes], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `PACK.tar` and `PACK.csv`."""
    with tarfile.open(folder / f"{pack}.tar", "w") as tar:
        for name, data in pictures.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with (folder / f"{pack}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def paint(image: Image, box: Sequence[int]) -> NDArray[np.float32]:
    """Draw a white face with five coloured discs into left, top, right, bottom; return where they are, (5, 2) pixels.

    Points and boxes are in pixels' edges, as boxes are everywhere: a box of left 10 begins where the pixel 10 begins.
    """
    left, top, right, bottom = box
    image[top:bottom, left:right] = FACE
    points = np.array([left, top]) + POINTS * [right - left, bottom - top]
    for (x, y), colour in zip(points, COLOURS, strict=True):
        radius = 0.09 * (right - left)
        # In sixteenths of a pixel; OpenCV's 0 is the first pixel's centre.
        centre = round((x - 0.5) * 16), round((y - 0.5) * 16)
        cv2.circle(image, centre, round(radius * 16), colour, -1, cv2.LINE_AA, 4)
    return points.astype(np.float32)


def disc(image: Image, index: int, within: Sequence[float]) -> NDArray[np.float64] | None:
    """Return where the point `index` is seen inside left, top, right, bottom, in pixels' edges; None if it is not."""
    left, top = (max(0, int(v)) for v in within[:2])
    part = image[top : int(np.ceil(within[3])), left : int(np.ceil(within[2]))].astype(float)
    colour = np.array(COLOURS[index], float)
    # 1 where it is the disc's colour, 0 where it is the face's or as far away.
    weight = 1 - np.linalg.norm(part - colour, axis=2) / np.linalg.norm(np.array(FACE) - colour)
    weight[weight < 0.35] = 0
    if weight.sum() < 2:
        return None
    rows, columns = np.mgrid[: part.shape[0], : part.shape[1]]
    centre = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    return centre + 0.5 + [left, top]
