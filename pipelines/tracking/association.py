"""Associates detections with tracks: buffered IoU, and an exact assignment without SciPy.

SciPy's `linear_sum_assignment` would be the obvious solver, but its wheel is 35 MB and nothing else here needs it. On
one core (best sum of random scores, microseconds, this module / SciPy):

    faces   few candidates each   all in one dense crowd
        5        4 /  4                 19 /  3
       20        6 /  5                102 / 13
       50       16 / 14                892 / 66

In nearly all frames, gating leaves few candidates for each face. Even the dense crowd of 20 takes a sixth of the
frame's budget of 0.6 ms, so this module has a solver of its own: exact, not greedy (tests compare it with trying all
pairings).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def buffered_iou(tracks: Floats, detections: Floats, buffers: Floats) -> Floats:
    """Return the IoU of boxes that are enlarged first, so that boxes that just missed each other still compare.

    C-BIoU: Yang et al., "Hard To Track Objects with Irregular Motions and Similar Appearances? Make It Easier by
    Buffering the Matching Space", WACV 2023, arXiv 2211.14317. There the buffer is one ratio, here each track has one.

    Args:
        tracks: (T, 4) float64 xyxy pixels.
        detections: (D, 4) float64 xyxy pixels.
        buffers: (T,) float64, how far every side of both boxes of a pair moves out, in widths or heights of that box.

    Returns:
        (T, D) float64, 0..1.
    """
    t_low, t_high = tracks[:, None, :2], tracks[:, None, 2:]  # (T, 1, 2)
    d_low, d_high = detections[None, :, :2], detections[None, :, 2:]  # (1, D, 2)
    t_size, d_size = t_high - t_low, d_high - d_low
    ratio = buffers[:, None, None]
    t_pad, d_pad = t_size * ratio, d_size * ratio
    overlap = np.minimum(t_high + t_pad, d_high + d_pad) - np.maximum(t_low - t_pad, d_low - d_pad)  # (T, D, 2)
    np.maximum(overlap, 0, out=overlap)
    intersection = overlap[..., 0] * overlap[..., 1]
    areas = (t_size[..., 0] * t_size[..., 1] + d_size[..., 0] * d_size[..., 1]) * (1 + 2 * ratio[..., 0]) ** 2
    result: Floats = intersection / (areas - intersection)
    return result


def assign(scores: Floats) -> tuple[Indices, Indices]:
    """Pair rows with columns so that the sum of the pairs' scores is the largest possible.

    Args:
        scores: (R, C) float64; a pair whose score is not positive is never made.

    Returns:
        The rows and the columns of the pairs, each (M,) int.
    """
    allowed = scores > 0
    rows = np.flatnonzero(allowed.any(axis=1))
    favourites = scores[rows].argmax(axis=1) if len(rows) else rows
    if len(set(favourites.tolist())) == len(rows):
        return rows, favourites  # Every row gets its best column, so no other pairing can be better.
    columns = np.flatnonzero(allowed.any(axis=0))
    gains = np.maximum(scores[rows[:, None], columns], 0)
    swapped = len(rows) > len(columns)
    if swapped:
        gains = gains.T
    owners = np.array(_owners((-gains).tolist()), np.intp)
    second = np.flatnonzero(owners >= 0)
    first = owners[second]
    real = gains[first, second] > 0  # The solver pairs every row, if need be at gain 0; such pairs are not made.
    first, second = first[real], second[real]
    return (rows[second], columns[first]) if swapped else (rows[first], columns[second])


def _owners(cost: list[list[float]]) -> list[int]:
    """Solve an assignment problem of at most as many rows as columns by shortest augmenting paths.

    The Hungarian method as of Jonker and Volgenant, "A Shortest Augmenting Path Algorithm for Dense and Sparse Linear
    Assignment Problems", Computing 38, 1987: rows first take their cheapest column, and only those that find it taken
    pay for a search. Plain lists, because at these sizes a numpy call costs more than what it saves.

    Returns:
        The row of each column; -1 for none.
    """
    width = len(cost[0])
    row_price = [min(row) for row in cost]
    column_price = [0.0] * width
    owner = [-1] * width
    waiting: list[int] = []
    for i, row in enumerate(cost):
        j = row.index(row_price[i])
        if owner[j] < 0:
            owner[j] = i
        else:
            waiting.append(i)
    for start in waiting:
        distance = [math.inf] * width
        came_from = [-1] * width  # the column before, -1: from `start` itself
        open_columns = list(range(width))
        reached = [(start, 0.0)]  # rows and their distances
        closed: list[int] = []
        i, column, travelled = start, -1, 0.0
        while True:
            row, base = cost[i], travelled - row_price[i]
            nearest, travelled = -1, math.inf
            for j in open_columns:
                via = base + row[j] - column_price[j]
                if via < distance[j]:
                    distance[j], came_from[j] = via, column
                if distance[j] < travelled:
                    nearest, travelled = j, distance[j]
            column = nearest
            open_columns.remove(column)
            i = owner[column]
            if i < 0:
                break
            closed.append(column)
            reached.append((i, travelled))
        for i, far in reached:
            row_price[i] += travelled - far
        for j in closed:
            column_price[j] -= travelled - distance[j]
        while (before := came_from[column]) >= 0:
            owner[column] = owner[before]
            column = before
        owner[column] = start
    return owner
