"""The model cards' pictures of known failures: what the networks say of pictures made worse, step by step.

    python -m visaged.models.training.evaluation.failures

runs the newest networks of the package's manifest (`--detector`, `--analyzer`: others of it) on the demo's pictures,
whose terms allow anything (`daemon/demo/CREDITS.md`), and writes `detector-failures.jpg` and `analyzer-failures.jpg`
into `--out`. Every tile is one way of making a picture worse, at the first step at which the network was wrong; its
caption says what is true, what the network said, and how far it was right. Run it again when a network has changed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models.alignment import invert, transform
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.manifest import AnalyzerEntry, DetectorEntry, Manifest
from visaged.models.preprocess import canvas_for, place
from visaged.models.session import SessionConfig
from visaged.models.surface import ImageSurface
from visaged.models.training.common import command
from visaged.models.training.evaluation import worsen
from visaged.models.training.evaluation.evaluate import newest
from visaged.models.training.evaluation.worsen import Portrait
from visaged.models.types import Detections, FloatArray, Image

DEMO = Path(__file__).parents[3] / "daemon" / "demo"
OUT = Path(__file__).parents[1] / "pictures"
CPU = SessionConfig(provider="cpu")

TILE, CAPTION, COLUMNS = 288, 76, 4
"""Edge of a tile and height of the text below it in pixels, tiles in a row."""
_GREEN, _RED, _WHITE, _GREY, _DARK = (120, 220, 120), (90, 90, 255), (255,) * 3, (190,) * 3, (35, 30, 28)
_WRONG_YEARS = 10.0
_HOPPER_S = 20.6
"""When Admiral Hopper is largest in the clip; her portrait was taken in January 1984, a month after she became 77."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One cell of a picture: (TILE, TILE, 3) uint8 BGR, the lines below it, and whether the network was wrong."""

    image: Image
    lines: tuple[str, ...]
    wrong: bool


def find(detector: Detector, image: Image) -> Detections:
    """Return the faces of a picture, looked at in its own size."""
    height, width = image.shape[:2]
    canvas = canvas_for(width, height, max(width, height))
    return canvas.to_picture(detector.detect(place(image, canvas)[None])[0])


def portrait(detector: Detector, image: Image) -> Portrait:
    """Return a picture with the largest face that the detector finds in it."""
    found = find(detector, image)
    if not len(found):
        raise ValueError("the detector finds no face in a demo picture as it is")
    largest = int(np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1).argmax())
    return Portrait(image, found.boxes[largest], found.landmarks[largest])


def frame_at(clip: Path, seconds: float) -> Image:
    """Return the frame at a time, (H, W, 3) uint8 BGR."""
    video = cv2.VideoCapture(str(clip))
    video.set(cv2.CAP_PROP_POS_MSEC, 1000 * seconds)
    done, image = video.read()
    video.release()
    if not done:
        raise ValueError(f"{clip} cannot be read, or is shorter than {seconds} s")
    return np.asarray(image, np.uint8)


def first_wrong(steps: Sequence[float], wrong: Callable[[float], bool]) -> tuple[float, float | None, bool]:
    """Return the first step that is wrong, the last right one before it, and whether any is wrong at all."""
    right: float | None = None
    for step in steps:
        if wrong(step):
            return step, right, True
        right = step
    return steps[-1], right, False


def is_found(detector: Detector, face: Portrait) -> bool:
    """Return whether something is found about where the face is, half to twice as large."""
    found = find(detector, face.image)
    sizes = np.sqrt(np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1))
    apart = np.abs(found.boxes.reshape(-1, 2, 2).mean(1) - face.box.reshape(2, 2).mean(0)).max(1)
    return bool(((apart < 0.4 * face.size) & (sizes > 0.5 * face.size) & (sizes < 2 * face.size)).any())


def detector_tiles(detector: Detector, face: Portrait) -> list[Tile]:
    """Return what the detector misses, and what it takes for a face."""
    large, small = face.scaled(100), face.scaled(28)
    sizes = (40, 24, 20, 18, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6)
    greys = (60, 40, 30, 24, 20, 16, 13, 10, 8, 6, 5, 4, 3, 2)
    light = (0.8, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02)
    cover = range(0, 101, 5)
    ways: list[tuple[str, Sequence[float], Callable[[float], Portrait]]] = [
        ("face of {:g} px", sizes, face.scaled),
        ("tilted by {:g} degrees", range(0, 181, 10), _changed(large, worsen.tilted)),
        ("28 px, dark: mean grey {:g} of 255", greys, _changed(small, worsen.dark)),
        ("28 px, backlight: {:g} times as bright", light, _changed(small, worsen.backlit)),
        ("blurred by {:g} % of the face", (2, 4, 6, 8, 10, 12, 15, 18, 22, 26, 30), _changed(large, worsen.blurred)),
        ("covered to {:g} % by a scarf", cover, _changed(large, lambda f, p: worsen.covered(f, p, (60, 40, 130)))),
        ("28 px, covered to {:g} %", cover, _changed(small, lambda f, p: worsen.covered(f, p, (70, 70, 70)))),
    ]
    tiles = []
    for title, steps, make in ways:
        step, right, wrong = first_wrong(steps, lambda s, make=make: not is_found(detector, make(s)))  # type: ignore[misc]
        lines = (title.format(step), "true: a face", f"said: {'nothing' if wrong else 'a face'}", _until(right, wrong))
        tiles.append(Tile(_shown(make(step).close()), lines, wrong))
    return [*tiles, _false_alarms(detector)]


def _changed(face: Portrait, how: Callable[[Portrait, float], Image]) -> Callable[[float], Portrait]:
    return lambda step: Portrait(how(face, step), face.box, face.five)


def _false_alarms(detector: Detector) -> Tile:
    """Draw things with two dark places and a line below them, and show what is taken for a face."""
    image = np.full((TILE, TILE, 3), 200, np.uint8)
    rng = np.random.default_rng(3)
    for row in range(4):
        for column in range(4):
            x, y, radius = 36 + 72 * column, 36 + 72 * row, 12 + 5 * row
            body = tuple(int(v) for v in rng.integers(90, 190, 3)) if column else (140, 170, 215)
            if column % 2:
                cv2.rectangle(image, (x - radius, y - radius), (x + radius, y + radius), body, -1, cv2.LINE_AA)
            else:
                cv2.ellipse(image, (x, y), (radius, round(1.25 * radius)), 0, 0, 360, body, -1, cv2.LINE_AA)
            for side in (-1, 1):
                cv2.circle(
                    image, (x + side * radius * 2 // 5, y - radius // 4), max(2, radius // 6), _DARK, -1, cv2.LINE_AA
                )
            if column < 2:
                start, end = (x - radius // 3, y + radius // 2), (x + radius // 3, y + radius // 2)
                cv2.line(image, start, end, (60, 50, 90), 2, cv2.LINE_AA)
            else:
                cv2.circle(image, (x, y + radius // 3), max(2, radius // 5), (70, 70, 80), -1, cv2.LINE_AA)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8)
    found = find(detector, image)
    for left, top, right, bottom in found.boxes.round().astype(int).tolist():
        cv2.rectangle(image, (left, top), (right, bottom), _RED, 2)
    best = f"best score {found.confidences.max():.2f}" if len(found) else ""
    return Tile(image, ("sixteen drawn things", "true: no face", f"said: {len(found)} faces", best), bool(len(found)))


Wrong = Callable[[dict[str, FloatArray]], bool] | None
"""Says whether a reading is wrong; None: when the head's likeliest label is another than the truth."""


class Reader:
    """Reads faces with an analyzer by five points that are known."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer

    def read(self, image: Image, five: FloatArray) -> dict[str, FloatArray]:
        """Return what `Analyzer.analyze` reads from one face; points in pixels of the picture."""
        aligner = self._analyzer.aligner
        matrix = aligner.matrix(five)
        (reading,) = self._analyzer.analyze(ImageSurface(image).crops([matrix], aligner.size))
        points = self._analyzer.points_head
        if points is not None:
            reading[points.name] = transform(reading[points.name], invert(matrix))
        return reading

    def word(self, reading: dict[str, FloatArray], name: str) -> str:
        """Return the label of a head of classes."""
        return self._analyzer.heads[name].labels[int(reading[name].argmax())]

    def says(self, reading: dict[str, FloatArray], name: str) -> str:
        """Return the label and its probability, or years."""
        if self._analyzer.heads[name].kind == "number":
            return f"{reading[name][0]:.0f} {self._analyzer.heads[name].unit}"
        return f"{self.word(reading, name)} {reading[name].max():.2f}"


def analyzer_tiles(analyzer: Analyzer, smiling: Portrait, old: Portrait) -> list[Tile]:
    """Return what the analyzer reads wrong of a smiling bare-headed woman, and of a woman of 77 in a hat."""
    reader = Reader(analyzer)
    face = smiling.scaled(120)
    plain = reader.read(face.image, face.five)
    points = plain[analyzer.points_head.name] if analyzer.points_head else np.zeros((106, 2), np.float32)
    years = float(plain["age"][0])

    def aged(reading: dict[str, FloatArray]) -> bool:
        return abs(float(reading["age"][0]) - years) >= _WRONG_YEARS

    small = (60, 40, 32, 28, 24, 20, 18, 16, 14, 12, 10, 8)
    light = (0.9, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)
    blurs, through = (2, 4, 6, 8, 10, 12, 15, 18, 22), range(0, 100, 10)
    as_it_is = f"the picture as it is: {years:.0f} years"
    mask = _changed(face, lambda f, t: worsen.masked(f, points, (215, 195, 150), t))
    lenses = _changed(face, lambda f, t: worsen.shaded(f, points, t))
    fingers = _changed(face, lambda f, n: worsen.hand(f, points, n))
    ways: list[tuple[str, str, str, Sequence[float], Callable[[float], Portrait], Wrong]] = [
        ("face of {:g} px", as_it_is, "age", small, smiling.scaled, aged),
        ("backlight: face {:g} times as bright", as_it_is, "age", light, _changed(face, worsen.backlit), aged),
        ("blurred by {:g} % of the face", "happy", "emotion", blurs, _changed(face, worsen.blurred), None),
        ("fingers before the mouth: {:g}", "happy", "emotion", range(6), fingers, None),
        ("drawn mask, {:g} % see-through", "mask", "mask", through, mask, None),
        ("drawn dark lenses, {:g} % see-through", "sunglasses", "glasses", through, lenses, None),
        ("she is 77; face of {:g} px", "female", "gender", small, old.scaled, None),
        ("face of {:g} px", "hat", "hat", small, old.scaled, None),
    ]
    tiles = []
    for title, truth, head, steps, make, wrong in ways:
        if head not in analyzer.heads:
            continue
        shown = {step: make(step) for step in steps}
        readings = {step: reader.read(at.image, at.five) for step, at in shown.items()}
        is_wrong = wrong or (lambda reading, head=head, truth=truth: reader.word(reading, head) != truth)  # type: ignore[misc]
        step, right, failed = first_wrong(steps, lambda s, r=readings, w=is_wrong: w(r[s]))  # type: ignore[misc]
        truth = truth if wrong else f"true: {truth}"
        lines = (title.format(step), truth, f"said: {reader.says(readings[step], head)}")
        tiles.append(
            Tile(_shown(shown[step].close(1.0)), (f"{head}: {lines[0]}", *lines[1:], _until(right, failed)), failed)
        )
    return tiles


def _until(right: float | None, failed: bool) -> str:
    if not failed:
        return "right in every step"
    return "wrong from the first step on" if right is None else f"right up to {right:g}"


def _shown(image: Image) -> Image:
    """Return a picture as a tile; one of few pixels shows them."""
    how = (
        cv2.INTER_AREA
        if image.shape[0] > TILE
        else cv2.INTER_NEAREST
        if image.shape[0] < TILE // 3
        else cv2.INTER_CUBIC
    )
    return np.asarray(cv2.resize(image, (TILE, TILE), interpolation=how), np.uint8)


def sheet(title: str, tiles: Sequence[Tile]) -> Image:
    """Return all tiles with their captions, (H, W, 3) uint8 BGR."""
    rows, gap, head = math.ceil(len(tiles) / COLUMNS), 8, 34
    high, wide = TILE + CAPTION + gap, TILE + gap
    image: NDArray[np.uint8] = np.full((head + rows * high, COLUMNS * wide + gap, 3), _DARK, np.uint8)
    _write(image, title, gap, 24, 0.6, _WHITE)
    for index, tile in enumerate(tiles):
        top, left = head + index // COLUMNS * high, gap + index % COLUMNS * wide
        image[top : top + TILE, left : left + TILE] = tile.image
        colours = (_WHITE, _GREEN, _RED if tile.wrong else _GREEN, _GREY)
        for row, (text, colour) in enumerate(zip(tile.lines, colours, strict=True)):
            _write(image, text, left, top + TILE + 16 + 18 * row, 0.48, colour)
    return image


def _write(image: Image, text: str, x: int, y: int, size: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def main(command_line: list[str] | None = None) -> int:
    """Run the networks and write the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", help="name in the manifest; the newest if not given")
    parser.add_argument("--analyzer", help="likewise")
    parser.add_argument("--out", type=Path, default=OUT, help="directory for the pictures")
    parser.add_argument("--quality", type=int, default=82, help="of the JPEGs")
    arguments = parser.parse_args(command_line)
    cv2.setNumThreads(1)
    try:
        manifest = Manifest()
        finder, reader = newest(manifest, DetectorEntry), newest(manifest, AnalyzerEntry)
        detector = Detector.load(manifest, arguments.detector or (finder.name if finder else ""), CPU)
        analyzer = Analyzer.load(manifest, arguments.analyzer or (reader.name if reader else ""), CPU)
        smiling = cv2.imread(str(DEMO / "person.jpg"))
        if smiling is None:
            raise ValueError(f"{DEMO / 'person.jpg'} cannot be read")
        face = portrait(detector, np.asarray(smiling, np.uint8))
        old = portrait(detector, frame_at(DEMO / "demo.mp4", _HOPPER_S))
        arguments.out.mkdir(parents=True, exist_ok=True)
        sheets = {
            "detector": sheet(
                f"{detector.name} at threshold {detector.face_threshold}", detector_tiles(detector, face)
            ),
            "analyzer": sheet(f"{analyzer.name}, aligned by exact points", analyzer_tiles(analyzer, face, old)),
        }
        for name, image in sheets.items():
            path = arguments.out / f"{name}-failures.jpg"
            if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, arguments.quality]):
                raise ValueError(f"{path} cannot be written")
            print(f"{path}: {path.stat().st_size // 1000} kB")
    except command.WRONG_INPUT as error:
        print(error, file=sys.stderr)
        return command.EXIT_WRONG_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
