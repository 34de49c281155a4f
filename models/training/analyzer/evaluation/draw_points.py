"""Draw the order of the 106 points: `python -m visaged.models.training.analyzer.evaluation.draw_points P.npz OUT.svg`.

`P.npz` is a file of crops as `label` writes it. The picture shows the mean of many faces, which is nobody's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from visaged.models.training.common import command

_SCALE = 9.0
_LINES = [  # runs of points that lie on one line, closed ones end where they begin
    [*range(33)],
    [33, 34, 35, 36, 37, 67, 66, 65, 64, 33],
    [38, 39, 40, 41, 42, 71, 70, 69, 68, 38],
    [43, 44, 45, 46],
    [47, 48, 49, 50, 51],
    [78, 80, 82],
    [79, 81, 83],
    [52, 53, 72, 54, 55, 56, 73, 57, 52],
    [58, 59, 75, 60, 61, 62, 76, 63, 58],
    [*range(84, 96), 84],
    [*range(96, 104), 96],
]


def main() -> None:
    """Write the picture."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    points = np.load(source)["points"]
    points = points[np.isfinite(points).all((1, 2))].astype(np.float64).mean(0) * _SCALE
    points -= points.min(0) - 30
    width, height = points.max(0) + 30
    middle = points[:, 0].mean()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" '
        f'font-size="11"><title>The 106 points, numbered from 0</title><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for line in _LINES:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points[line])
        parts.append(f'<polyline points="{path}" fill="none" stroke="#9bb8d3" stroke-width="1.5"/>')
    for index, (x, y) in enumerate(points):
        near = np.hypot(*(points - (x, y)).T) < 6  # the pupils have two numbers each
        if near[:index].any():
            continue
        text = ", ".join(str(other) for other in np.flatnonzero(near))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="#c0392b"/>')
        contour = index <= 32
        dx = (-9 if x < middle else 4) if contour else 3
        anchor = ' text-anchor="end"' if contour and x < middle else ""
        dy = 13 if index in (96, 100) else -4  # the corners of both lips lie close together
        parts.append(f'<text x="{x + dx + (4 if anchor else 0):.1f}" y="{y + dy:.1f}"{anchor}>{text}</text>')
    target.write_text("\n".join([*parts, "</svg>\n"]))


if __name__ == "__main__":
    command.run(main)
