"""Makes the demo clip: two public-domain portraits walk through a painted lobby.

A face demo needs faces that anybody may ship. Two portraits whose terms allow it come with Python packages
(CREDITS.md); they are cut out, graded into four persons and moved over a scene painted here, so the clip needs no
recording of anybody. Because every position is computed, the same script writes the ground truth that the tracker
benchmark is scored against.

    python make_clip.py                                                        # the bundled demo.mp4
    python make_clip.py --scenario crowd --size 1920x1080 --bitrate 4M --seconds 60 \
        --output crowd.mp4 --truth crowd.json                                  # benchmark clip

Coordinates: the stage is 1280x720 units whatever the size in pixels; portraits have their own pixels. Layers are
(H, W, 4) float32 BGR + alpha, 0..1, premultiplied. Needs scikit-image, matplotlib and PyAV with libx264.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import skimage.data
from av.video.reformatter import Colorspace
from matplotlib import cbook
from numpy.typing import NDArray

Layer = NDArray[Any]  # cv2 promises no dtype; see above and the docstrings
Colour = tuple[int, int, int]  # blue, green, red, 0..255
Pose = tuple[float, float, float, float]  # x, y, face height, roll
Roi = tuple[slice, slice]  # rows, columns of the frame

STAGE = (1280, 720)
LOOP_S = 30.0
PILLAR_DEPTH = 165.0  # persons with larger faces (stage units) walk in front of the pillar, smaller ones behind it
SHADOW_RIM = 27  # quarter portrait pixels
COUNTER_DEPTH = 105.0  # persons with smaller faces walk behind the counter

# Outlines drawn by hand on the portraits, clockwise from the lower left; the guided filter in cut_out() moves them to
# the hair. Face boxes: mean of this project's detector at full and at half size on the untouched portrait.
COLLINS_FACE = (179.0, 58.0, 271.0, 178.0)
COLLINS_OUTLINE = """\
21,512 24,440 20,410 24,370 27,340 33,320 40,295 46,270 57,252 75,238 95,222 111,209 116,198 114,189 119,183 125,179
131,167 141,157 156,150 172,149 184,149 183,140 181,132 176,129 171,121 166,116 158,106 155,98 154,85 154,70 158,59
168,49 180,41 190,35 195,28 206,22 220,18 232,16 245,18 262,24 275,31 286,39 292,50 297,63 300,78 301,90 297,105
290,116 282,124 277,131 270,136 267,136 266,142 262,152 258,161 255,173 262,176 275,184 285,195 296,210 302,228
305,235 318,243 332,256 342,270 350,285 356,305 361,330 363,350 372,347 390,343 408,343 430,350 452,363 470,380
483,402 490,425 496,450 502,475 504,512"""
HOPPER_FACE = (186.0, 115.0, 350.0, 336.0)
HOPPER_OUTLINE = """\
10,600 17,560 22,500 28,440 38,405 46,386 60,379 80,368 110,361 140,351 170,342 185,332 199,318 203,309 198,301
188,295 173,286 164,273 161,260 163,250 160,240 156,220 154,205 154,195 156,187 153,183 148,168 147,140 149,120
155,103 165,92 175,86 178,74 185,62 196,52 208,45 218,41 222,35 230,29 243,25 258,24 275,25 288,30 297,36 301,41
315,46 330,54 342,64 350,76 353,86 358,86 364,91 368,103 370,115 371,135 370,150 369,170 369,182 373,186 376,195
374,210 370,225 365,245 361,262 360,272 360,285 355,297 346,306 337,308 331,307 330,316 340,328 360,340 385,348
410,358 440,369 465,376 485,388 491,396 497,412 501,432 503,460 502,600"""


def glide(times: NDArray[Any], values: NDArray[Any], t: float) -> float:
    """Return the value at time t of a smooth curve through the keys without overshoot (Fritsch and Butland 1984)."""
    step = np.diff(times)
    secant = np.diff(values) / step
    before, after = secant[:-1], secant[1:]
    turning = before * after <= 0
    inner = np.where(turning, 0.0, 2 * before * after / np.where(turning, 1.0, before + after))
    slope = np.concatenate([secant[:1], inner, secant[-1:]])
    i = int(np.clip(np.searchsorted(times, t, "right") - 1, 0, len(step) - 1))
    u = (t - times[i]) / step[i]
    ends = values[i] * (1 + 2 * u) * (1 - u) ** 2 + values[i + 1] * u * u * (3 - 2 * u)
    return float(ends + step[i] * u * (1 - u) * (slope[i] * (1 - u) - slope[i + 1] * u))


@dataclass(frozen=True, slots=True)
class Persona:
    """A cut-out person.

    Attributes:
        levels: the same layer at 2, 1, 1/2 and 1/4 of the portrait's pixels.
        shadow: (H/4, W/4) float32 0..1, the outline blurred, with a rim of SHADOW_RIM on every side.
        face: left, top, right, bottom of the face in portrait pixels.
    """

    levels: tuple[Layer, ...]
    shadow: Layer
    face: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Walk:
    """One appearance of a person; a tracker should give it one identity.

    Attributes:
        persona: name in the cast.
        keys: at least two of (time in s, x of the face's centre, face height, roll in degrees), in stage units.
    """

    persona: str
    keys: tuple[tuple[float, float, float, float], ...]

    def pose(self, t: float) -> Pose | None:
        """Return x, y, height (stage units) and roll (degrees) at time t, or None when the person is away."""
        times, *values = np.array(self.keys, float).T
        if not times[0] <= t <= times[-1]:
            return None
        x, h, roll = (glide(times, v, t) for v in values)
        speed = abs(glide(times, values[0], t + 0.02) - x) / 0.02
        gait = min(1.0, speed / (0.8 * h))  # nobody bobs while standing
        step = 2 * math.pi * 1.7 * (t - times[0])
        y = 268.0 + 0.5 * (h - 60.0) + 0.02 * h * gait * math.sin(step)
        sway = 1.2 * gait * math.sin(step / 2) + 0.6 * math.sin(0.9 * t + times[0])
        return x, y, h, roll + sway


DEMO = (
    Walk("collins", ((0.0, -330, 132, 0), (3.7, 250, 138, 4), (7.6, 620, 140, -3), (12.2, 1620, 134, 0))),
    Walk("hopper", ((3.6, 1640, 190, 0), (6.0, 1160, 196, -4), (9.4, 470, 205, 3), (12.6, -430, 190, 0))),
    Walk(
        "collins-blue",
        ((4.0, 1480, 68, 0), (8.0, 1100, 64, 3), (12.0, 770, 62, -5), (14.0, 735, 62, 5), (21.6, -190, 70, 0)),
    ),
    Walk("hopper-green", ((5.6, -190, 84, 0), (9.0, 310, 78, -4), (12.6, 400, 78, 4), (21.4, 1450, 88, 0))),
    Walk(
        "hopper",
        ((13.4, -380, 168, 0), (17.8, 330, 225, 4), (20.6, 395, 260, -3), (22.4, 385, 258, 5), (27.4, -560, 200, 0)),
    ),
    Walk(
        "collins",
        ((14.0, 1640, 136, 0), (19.0, 850, 148, -4), (21.5, 770, 160, 3), (23.4, 800, 158, -3), (28.4, 1650, 136, 0)),
    ),
    Walk("collins-blue", ((19.0, -180, 76, 0), (22.4, 560, 74, 5), (27.0, 1480, 70, 0))),
)


def crowd(seconds: float) -> tuple[Walk, ...]:
    """Return walks for a benchmark: a new person every 1.4 s, three or more in view most of the time."""
    names, heights = ("collins", "hopper-green", "hopper", "collins-blue"), (140, 72, 190, 88, 155, 64, 130, 80)
    walks = []
    for i in range(int((seconds + 9) / 1.4) + 1):
        start, h, way = 1.4 * i - 9.0, heights[i % 8], -1 if (i // 2) % 2 else 1
        lasts = 10.5 if h < COUNTER_DEPTH else 8.5
        margin, pause = 2.8 * h, 60.0 * (i % 3)
        stops = ((0.0, -640.0 - margin), (0.45, -pause), (0.6, pause), (1.0, 640.0 + margin))
        keys = tuple(
            (start + lasts * u, 640 + way * x, h * (1 + 0.1 * u), 5.0 * (-1) ** k) for k, (u, x) in enumerate(stops)
        )
        walks.append(Walk(names[i % 4], keys))
    return tuple(walks)


def cut_out(picture: NDArray[np.uint8], outline: str, extra_rows: int) -> Layer:
    """Return a portrait (H, W, 3) uint8 BGR without its background, with its lowest rows drawn out for `extra_rows`."""
    points = np.array([p.split(",") for p in outline.split()], np.float32)
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    guide, rough = picture.astype(np.float32) / 255, cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 1.2)

    def box(a: Layer) -> Layer:
        return np.asarray(cv2.blur(a, (9, 9)), np.float32)

    # Guided filter (He et al. 2010), the mean over the three colours: alpha as a linear function of colour nearby.
    mean, rough_mean = box(guide), box(rough)[..., None]
    slope = (box(guide * rough[..., None]) - mean * rough_mean) / (box(guide * guide) - mean * mean + 2e-3)
    refined = (box(slope) * guide + box(rough_mean - slope * mean)).mean(2)
    inner, outer = cv2.erode(rough, np.ones((7, 7))), cv2.dilate(rough, np.ones((7, 7)))
    alpha = np.clip((np.clip(refined, inner, outer) - 0.15) / 0.75, 0, 1)
    # The rim shows the old background: replace its colour by that of the sure inside nearby.
    sure = (cv2.erode(alpha, np.ones((5, 5))) > 0.97).astype(np.float32)[..., None]
    spread = cv2.GaussianBlur(guide * sure, (0, 0), 4) / (cv2.GaussianBlur(sure, (0, 0), 4)[..., None] + 1e-4)
    colour = np.where(sure > 0, guide, 0.25 * guide + 0.75 * np.clip(spread, 0, 1))
    layer = np.dstack([colour * alpha[..., None], alpha])
    # Below the picture the cloth goes on: the last rows without their threads, with grain instead.
    last = layer[-26:-14].mean(0, keepdims=True)
    smooth = cv2.GaussianBlur(last, (73, 1), 12, borderType=cv2.BORDER_CONSTANT)
    last = np.dstack([smooth[..., :3] / (smooth[..., 3:] + 1e-4) * last[..., 3:], last[..., 3]])
    tail = np.repeat(last, extra_rows, 0)
    grain = np.random.default_rng(5).normal(0, 0.014, (*tail.shape[:2], 1)) * tail[..., 3:]
    tail[..., :3] = np.clip(tail[..., :3] + grain, 0, tail[..., 3:])
    fade = np.linspace(0, 1, 12)[:, None, None]
    joint = layer[-26:-14] * (1 - fade) + tail[:12] * fade
    return np.vstack([layer[:-26], joint, tail]).astype(np.float32)


def grade(layer: Layer, cloth: Layer, tint: Colour, gain: Colour) -> Layer:
    """Return a layer with its cloth (H, W, 1), 0..1, dyed by its brightness, and all colours times gain / 100."""
    grey = layer[..., :3].mean(2, keepdims=True)
    dyed = grey * np.array(tint, np.float32) / 128
    colour = layer[..., :3] * (1 - cloth) + dyed * cloth
    colour = np.minimum(colour * np.array(gain, np.float32) / 100, layer[..., 3:])
    return np.dstack([colour, layer[..., 3]]).astype(np.float32)


def persona(layer: Layer, face: tuple[float, float, float, float], mirrored: bool) -> Persona:
    """Return a layer with its smaller versions, so that shrinking never flickers."""
    h, w = layer.shape[:2]
    if mirrored:
        layer, face = layer[:, ::-1].copy(), (w - face[2], face[1], w - face[0], face[3])
    double = cv2.resize(layer, (2 * w, 2 * h), interpolation=cv2.INTER_LANCZOS4)
    double = np.clip(double + 0.5 * (double - cv2.GaussianBlur(double, (0, 0), 1.5)), 0, 1)
    double[..., :3] = np.minimum(double[..., :3], double[..., 3:])
    small = [cv2.resize(layer, (w // n, h // n), interpolation=cv2.INTER_AREA) for n in (2, 4)]
    shadow = cv2.copyMakeBorder(small[1][..., 3], SHADOW_RIM, SHADOW_RIM, SHADOW_RIM, SHADOW_RIM, cv2.BORDER_CONSTANT)
    shadow = cv2.GaussianBlur(shadow, (0, 0), SHADOW_RIM / 3)
    return Persona((double, layer, *small), shadow, face)


def cast() -> dict[str, Persona]:
    """Return the four persons made from the two portraits."""
    load: Callable[[], Layer] = skimage.data.astronaut
    collins_picture = np.ascontiguousarray(load()[..., ::-1])
    hopper_picture = cv2.imread(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    if hopper_picture is None:
        raise FileNotFoundError("matplotlib came without its sample data: grace_hopper.jpg")
    # A button cut by the picture's edge, glints on the helmet and both emblems look like faces to a detector.
    cv2.circle(hopper_picture, (245, 590), 18, (18, 14, 14), -1)
    for centre, axes in (((357, 441), (22, 28)), ((432, 448), (38, 48))):
        cv2.ellipse(collins_picture, centre, axes, 0, 0, 360, (4, 3, 3), -1)
    shield = hopper_picture[484:511, 79:106]
    shield[:] = cv2.GaussianBlur(np.minimum(shield, 150), (0, 0), 2)
    emblem = hopper_picture[28:82, 225:297]
    gold = (emblem * np.array((0.4, 0.62, 0.72))).astype(np.uint8)
    emblem[:] = cv2.addWeighted(gold, 0.5, cv2.GaussianBlur(gold, (0, 0), 6), 0.4, 0)
    # The scan is grainy and red: calm both, so that the two portraits look taken by one camera.
    hopper_picture = cv2.fastNlMeansDenoisingColored(hopper_picture, None, 4, 6, 5, 13)
    hopper_picture = np.clip(hopper_picture * np.array((1.02, 1.0, 0.93)) * 0.94 + 9, 0, 255).astype(np.uint8)
    collins = cut_out(collins_picture, COLLINS_OUTLINE, 120)
    hopper = cut_out(hopper_picture, HOPPER_OUTLINE, 460)
    hsv = cv2.cvtColor((collins[..., :3] * 255).astype(np.uint8), cv2.COLOR_BGR2HSV)
    suit = ((hsv[..., 0] < 14) & (hsv[..., 1] > 130) & (np.arange(len(hsv))[:, None] > 205)).astype(np.float32)
    jacket = ((hopper[..., :3].max(2) < 0.3) & (np.arange(len(hopper))[:, None] > 318)).astype(np.float32)
    jacket[:408, 203:327] = 0  # the shadow below the chin
    suit_mask, jacket_mask = (cv2.GaussianBlur(m, (0, 0), 1.2)[..., None] for m in (suit, jacket))
    return {
        "collins": persona(collins, COLLINS_FACE, False),
        "hopper": persona(hopper, HOPPER_FACE, False),
        "collins-blue": persona(grade(collins, suit_mask, (150, 112, 72), (88, 90, 94)), COLLINS_FACE, True),
        "hopper-green": persona(grade(hopper, jacket_mask, (215, 275, 185), (104, 100, 96)), HOPPER_FACE, True),
    }


class Painter:
    """Paints one layer of the scene in stage units, at twice the resolution of the result."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Start with an empty layer of that width and height in pixels."""
        self._size = size
        self._zoom = np.array([2 * size[0] / STAGE[0], 2 * size[1] / STAGE[1]])
        self._layer: Layer = np.zeros((2 * size[1], 2 * size[0], 4), np.float32)

    def polygon(self, points: Iterable[Sequence[float]], colour: Colour) -> None:
        """Fill a polygon; a premultiplied layer is what drawing smooth edges on an empty one gives."""
        pixels = np.round(np.array(list(points), float) * self._zoom * 16).astype(np.int32)
        mask = np.zeros(self._layer.shape[:2], np.uint8)
        x, y, w, h = cv2.boundingRect(pixels // 16)
        rows, columns = slice(max(0, y - 2), max(0, y + h + 3)), slice(max(0, x - 2), max(0, x + w + 3))
        cv2.fillPoly(mask, [pixels], 255, cv2.LINE_AA, 4)
        alpha = mask[rows, columns, None].astype(np.float32) / 255
        part = self._layer[rows, columns]
        part += alpha * (np.array([*colour, 255], np.float32) / 255 - part)

    def box(self, x1: float, y1: float, x2: float, y2: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.polygon(((x1, y1), (x2, y1), (x2, y2), (x1, y2)), colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse."""
        turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        self.polygon(np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], 1), colour)

    def plant(self, x: float, y: float, height: float, leaves: int, seed: int) -> None:
        """Paint bent leaves that grow out of (x, y), each with a light and a dark half, darker towards the stem."""
        rng = np.random.default_rng(seed)
        u = np.linspace(0, 1, 24)[:, None]
        for i in range(leaves):
            lean = (0.5 - (i * 0.618) % 1) * 2.1 + rng.normal(0, 0.1)  # golden ratio: neighbours overlap at random
            reach = height * (1.0 - 0.3 * abs(lean)) * (1.0 - 0.45 * i / leaves) * rng.uniform(0.85, 1.0)
            tip = np.array([x + reach * math.sin(lean), y - reach * math.cos(lean)])
            bend = np.array([x + 0.25 * reach * math.sin(lean), y - 0.8 * reach])
            spine = (1 - u) ** 2 * np.array([x, y]) + 2 * u * (1 - u) * bend + u**2 * tip
            way = np.gradient(spine, axis=0)
            normal = np.stack([-way[:, 1], way[:, 0]], 1) / (np.linalg.norm(way, axis=1, keepdims=True) + 1e-6)
            half = normal * (0.24 * reach**0.8 * np.sin(np.pi * u**1.3) + 0.8)
            light = rng.uniform(0.8, 1.1) * (0.72 + 0.4 * i / leaves)
            for side, tone in ((half, 1.0), (-half, 0.78)):
                green = tuple(int(c * light * tone) for c in (74, 122, 84))
                self.polygon(np.vstack([spine, (spine + side)[::-1]]), (green[0], green[1], green[2]))
        self.light(x, y, 0.45 * height, 0.4 * height, -0.5)

    def blur(self, sigma: float) -> None:
        """Put what is painted so far out of focus."""
        self._layer = cv2.GaussianBlur(self._layer, (0, 0), sigma * self._zoom[1], borderType=cv2.BORDER_REPLICATE)

    def light(self, x: float, y: float, rx: float, ry: float, strength: float) -> None:
        """Brighten (or darken, below zero) a soft ellipse."""
        h, w = self._layer.shape[:2]
        gx = np.exp(-(((np.arange(w) / self._zoom[0] - x) / rx) ** 2))
        gy = np.exp(-(((np.arange(h) / self._zoom[1] - y) / ry) ** 2))
        self._layer[..., :3] *= (1 + strength * gy[:, None] * gx)[..., None].astype(np.float32)

    def mirror_floor(self, y: float, strength: float) -> None:
        """Reflect what stands above y, blurred, in the floor below it."""
        row = int(y * self._zoom[1])
        below = self._layer[row:]
        reflection = cv2.GaussianBlur(self._layer[row - len(below) : row][::-1], (0, 0), 9 * self._zoom[1])
        fade = strength * np.linspace(1, 0.35, len(below), dtype=np.float32)[:, None, None]
        below += fade * (reflection - below)

    def finish(self) -> Layer:
        """Return the layer at its final size."""
        small = np.clip(cv2.resize(self._layer, self._size, interpolation=cv2.INTER_AREA), 0, 1)
        small[..., :3] = np.minimum(small[..., :3], small[..., 3:])
        return np.asarray(small, np.float32)


def paint_wall(size: tuple[int, int]) -> Layer:
    """Return the back of the lobby: a window front with a garden, a plain wall, wooden slats, the floor."""
    p, rng = Painter(size), np.random.default_rng(7)
    for i in range(60):  # the garden, seen through glass: sky, trees, ground
        p.box(0, i * 8, 1280, i * 8 + 8, (222 - i // 3, 220 - i // 3, 212 - i // 2))
    for _ in range(70):
        x, y, r = rng.uniform(40, 760), rng.uniform(210, 420), rng.uniform(25, 70)
        tone = rng.uniform(0.75, 1.2)
        p.disc(x, y, r, 0.8 * r, (int(112 * tone), int(150 * tone), int(128 * tone)))
    p.box(0, 395, 1280, 460, (150, 172, 168))
    p.blur(11)
    p.box(0, 0, 1280, 62, (196, 206, 212))  # ceiling
    p.box(720, 62, 1280, 460, (188, 199, 208))  # wall
    p.box(0, 62, 60, 460, (188, 199, 208))
    for x in (60, 225, 390, 555, 720):
        p.box(x - 5, 62, x + 5, 460, (92, 96, 98))
    p.box(60, 62, 720, 70, (92, 96, 98))
    for i in range(16):  # slats
        x = 1056 + i * 15
        p.box(x, 62, x + 15, 460, (48, 66, 86))
        tone = rng.uniform(0.9, 1.05)
        p.box(x + 1, 62, x + 11, 460, (int(96 * tone), int(128 * tone), int(158 * tone)))
    p.box(770, 150, 878, 300, (70, 78, 84))  # an abstract picture
    p.box(775, 155, 873, 295, (214, 222, 228))
    p.polygon(((775, 250), (810, 232), (842, 246), (873, 226), (873, 295), (775, 295)), (150, 132, 96))
    p.polygon(((775, 272), (824, 254), (873, 270), (873, 295), (775, 295)), (110, 92, 62))
    p.box(0, 560, 1280, 720, (168, 178, 186))  # floor
    p.box(0, 20, 1280, 25, (236, 246, 250))
    p.blur(1.6)
    p.light(390, 250, 420, 260, 0.10)
    p.light(1000, 40, 150, 260, 0.12)
    p.light(824, 60, 90, 200, 0.10)
    p.light(640, 330, 1100, 520, 0.06)
    return p.finish()


def paint_counter(size: tuple[int, int]) -> Layer:
    """Return the counter with a planter, behind which the small persons walk, and the floor before it."""
    p = Painter(size)
    p.plant(606, 440, 190, 24, 3)
    p.plant(662, 440, 150, 20, 4)
    p.box(560, 404, 700, 440, (108, 114, 118))
    p.box(0, 436, 1280, 450, (206, 214, 218))
    p.box(0, 450, 1280, 572, (66, 84, 104))
    for i in range(64):
        p.box(i * 20 + 2, 454, i * 20 + 17, 566, (76, 97, 121))
    p.box(0, 450, 1280, 456, (44, 56, 70))
    for i in range(37):
        p.box(0, 572 + i * 4, 1280, 576 + i * 4, (150 + i, 161 + i, 170 + i))
    for i in range(-14, 15):  # floor joints run to one vanishing point
        far, near = 640 + i * 62, 640 + i * 130
        p.polygon(((far, 572), (far + 1.5, 572), (near + 3, 720), (near, 720)), (144, 154, 163))
    p.box(0, 634, 1280, 636, (147, 157, 166))
    for x in (120, 300, 480):  # the sun through the window
        p.polygon(((x, 585), (x + 120, 585), (x + 215, 720), (x + 65, 720)), (186, 198, 206))
    p.blur(0.9)
    p.mirror_floor(572, 0.35)
    p.light(640, 440, 900, 60, 0.08)
    p.light(640, 574, 1400, 16, 0.22)
    p.light(390, 650, 400, 90, 0.08)
    return p.finish()


def paint_pillar(size: tuple[int, int]) -> Layer:
    """Return the pillar and the large plant, behind which the middle persons walk."""
    p = Painter(size)
    p.plant(1190, 580, 330, 30, 11)
    for i in range(48):  # a round pillar: light from the left
        u = (i + 0.5) / 24 - 1
        shade = 0.62 + 0.40 * math.sqrt(max(0.0, 1 - (0.75 * u + 0.28) ** 2)) + 0.02 * u
        p.box(930 + i * 2, 0, 932.5 + i * 2, 720, (int(186 * shade), int(196 * shade), int(203 * shade)))
    p.box(926, 664, 1030, 720, (92, 98, 104))
    p.box(926, 664, 1030, 668, (140, 148, 154))
    p.polygon(((1132, 560), (1248, 560), (1230, 722), (1150, 722)), (74, 80, 84))
    p.polygon(((1190, 560), (1248, 560), (1230, 722), (1196, 722)), (60, 66, 70))
    p.box(1128, 552, 1252, 566, (92, 99, 104))
    p.blur(0.5)
    return p.finish()


def paint_front(size: tuple[int, int]) -> Layer:
    """Return leaves close to the camera, out of focus, in the lower left corner."""
    p = Painter(size)
    p.plant(20, 800, 330, 20, 21)
    p.blur(5)
    p.light(0, 720, 500, 300, -0.25)
    return p.finish()


def bounds(layer: Layer) -> Roi:
    """Return the part of the frame that a layer covers."""
    rows, columns = np.flatnonzero(layer[..., 3].any(1)), np.flatnonzero(layer[..., 3].any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


class Stage:
    """Draws frames of a scenario and knows what can be seen in them."""

    def __init__(self, size: tuple[int, int], walks: Sequence[Walk]) -> None:
        """Paint the scene at that width and height in pixels."""
        self._size, self._walks, self._cast = size, walks, cast()
        self._wall = paint_wall(size)[..., :3]
        self._fixed = []
        for depth, layer in ((COUNTER_DEPTH, paint_counter), (PILLAR_DEPTH, paint_pillar), (math.inf, paint_front)):
            painted = layer(size)
            roi = bounds(painted)
            self._fixed.append((depth, roi, painted[roi]))
        # A little fixed noise hides the steps that eight bits leave in soft gradients.
        self._noise = np.random.default_rng(1).normal(0, 0.7, (size[1], size[0], 1)).astype(np.float32)

    def draw(self, t: float) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
        """Return the picture (H, W, 3) uint8 BGR at time t and its faces, far ones first.

        A face has `id`, `box` (x1, y1, x2, y2 in pixels, cut at the frame) and `visible` (0..1, the part of the ellipse
        in the whole box that neither the frame nor anything nearer hides). Faces that are fully hidden are listed too.
        """
        frame: Layer = self._wall.copy()
        poses = [(pose, i, walk) for i, walk in enumerate(self._walks) if (pose := walk.pose(t))]
        things: list[tuple[float, int, Any]] = [(pose[2], i, (pose, walk)) for pose, i, walk in poses]
        things += [(depth, -1, (roi, layer)) for depth, roi, layer in self._fixed]
        drawn: list[tuple[Roi, Layer, int, Any]] = []
        for _, i, thing in sorted(things, key=lambda x: x[:2]):
            roi, layer, box = (*thing, None) if i < 0 else self._person(frame, *thing)
            if layer is None:
                continue
            frame[roi] = frame[roi] * (1 - layer[..., 3:]) + layer[..., :3]
            drawn.append((roi, layer, i, box))
        clear: Layer = np.ones(frame.shape[:2], np.float32)
        faces: list[dict[str, Any]] = []
        for roi, layer, i, box in reversed(drawn):
            if box is not None and (face := self._face(clear, box)):
                faces.append({"id": i + 1, **face})
            clear[roi] *= 1 - layer[..., 3]
        return np.clip(frame * 255 + self._noise + 0.5, 0, 255).astype(np.uint8), faces[::-1]

    def _person(self, frame: Layer, pose: Pose, walk: Walk) -> tuple[Roi, Layer | None, Any]:
        """Return where a person goes, the turned and scaled layer and the face box; lay the shadow at once."""
        person, (x, y, height, roll) = self._cast[walk.persona], pose
        unit = self._size[1] / STAGE[1]
        x1, y1, x2, y2 = person.face
        scale = height * unit / (y2 - y1)
        centre = np.array([x * self._size[0] / STAGE[0], y * unit])
        turn: Layer = cv2.getRotationMatrix2D(((x1 + x2) / 2, (y1 + y2) / 2), -roll, scale)
        turn[:, 2] += centre - ((x1 + x2) / 2, (y1 + y2) / 2)
        h, w = person.levels[1].shape[:2]
        corners = np.array([(0, 0, 1), (w, 0, 1), (w, h, 1), (0, h, 1)]) @ turn.T
        (left, top), (right, bottom) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
        spread = int(4 * SHADOW_RIM * scale + 0.1 * height * unit)
        roi = (
            slice(max(0, top - spread), min(self._size[1], bottom + spread)),
            slice(max(0, left - spread), min(self._size[0], right + spread)),
        )
        if roi[0].start >= roi[0].stop or roi[1].start >= roi[1].stop:
            return roi, None, None

        def warp(source: Layer, zoom: float, shift: float) -> Layer:
            m: Layer = turn.copy()
            m[:, 2] += m[:, :2] @ np.full(2, 0.5 / zoom - 0.5) + shift - (roi[1].start, roi[0].start)
            m[:, :2] /= zoom
            extent = (roi[1].stop - roi[1].start, roi[0].stop - roi[0].start)
            return np.asarray(cv2.warpAffine(source, m, extent, flags=cv2.INTER_LINEAR), np.float32)

        frame[roi] *= 1 - 0.26 * warp(person.shadow, 0.25, 0.1 * height * unit - 4 * SHADOW_RIM * scale)[..., None]
        level = min(3, max(0, math.floor(1 - math.log2(scale))))
        width = (x2 - x1) * scale
        return roi, warp(person.levels[level], 2.0 / 2**level, 0.0), (*centre, width, height * unit)

    def _face(self, clear: Layer, box: tuple[float, float, float, float]) -> dict[str, Any] | None:
        """Return the box (upright: the roll is small) and the visible part of a face, None outside of the frame."""
        x, y, w, h = box
        edges = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        limits = np.array([*self._size, *self._size])
        x1, y1, x2, y2 = np.clip(edges, 0, limits)
        if x2 - x1 < 1 or y2 - y1 < 1:
            return None
        rows, columns = np.arange(int(y1), math.ceil(y2)), np.arange(int(x1), math.ceil(x2))
        inside = ((rows[:, None] + 0.5 - y) * 2 / h) ** 2 + ((columns + 0.5 - x) * 2 / w) ** 2 <= 1
        seen = float(clear[int(y1) : math.ceil(y2), int(x1) : math.ceil(x2)][inside].sum())
        part = min(1.0, seen / (math.pi / 4 * w * h))
        return {"box": [round(float(v), 1) for v in (x1, y1, x2, y2)], "visible": round(part, 3)}


def make_clip(
    output: Path, truth: Path | None, scenario: str, size: tuple[int, int], fps: int, seconds: float, rate: int
) -> None:
    """Write the clip, and the truth as {size, fps, frames: [[{id, box, visible}, ...], ...]}."""
    cv2.setNumThreads(1)
    walks = DEMO if scenario == "demo" else crowd(seconds)
    stage, frames = Stage(size, walks), []
    with av.open(str(output), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", rate
        # No B-frames, as cameras send none; two threads whatever the machine, because the result depends on it.
        stream.options = {"preset": "slow", "bf": "0", "g": str(2 * fps), "sc_threshold": "0", "threads": "2"}
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        stream.codec_context.color_primaries, stream.codec_context.color_trc = 1, 1
        for n in range(round(seconds * fps)):
            loop, t = divmod(n / fps, LOOP_S) if scenario == "demo" else (0.0, n / fps)
            picture, faces = stage.draw(t)
            frames.append([{**face, "id": face["id"] + int(loop) * len(walks)} for face in faces])
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if truth:
        truth.write_text(json.dumps({"size": list(size), "fps": fps, "frames": frames}) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and write the clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[2] / "daemon" / "demo" / "demo.mp4")
    parser.add_argument("--truth", type=Path, help="also write the ground truth as JSON here")
    parser.add_argument("--scenario", choices=("demo", "crowd"), default="demo")
    parser.add_argument("--size", default="1280x720", help="pixels, both even")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=LOOP_S, help="the demo loops every 30 s")
    parser.add_argument("--bitrate", default="505k", help="bits per second; k and M are known")
    args = parser.parse_args()
    width, height = (int(v) for v in args.size.split("x"))
    unit = {"k": 1_000, "M": 1_000_000}.get(args.bitrate[-1], 1)
    rate = int(float(args.bitrate.rstrip("kM")) * unit)
    make_clip(args.output, args.truth, args.scenario, (width, height), args.fps, args.seconds, rate)


if __name__ == "__main__":
    main()
