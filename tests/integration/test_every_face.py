"""Every face over HTTP, as large or small as it is, wherever it is cut, and nothing that is none.

All pictures are made from the demo's two persons; `training.evaluation.sweep` knows where their faces are.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from tests.integration.pictures import encoded
from visaged.models.training.evaluation import sweep
from visaged.models.training.evaluation.decode import overlap
from visaged.models.training.evaluation.product import Product
from visaged.models.training.evaluation.worsen import Portrait
from visaged.models.types import FloatArray, Image

PERSONS = ("Collins", "Hopper")


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with Product() as running:
        yield running


@pytest.fixture(scope="module")
def portraits() -> dict[str, Portrait]:
    return sweep.portraits()


def ask(product: Product, image: Image, orientation: int | None = None) -> FloatArray:
    """Return the boxes (N, 4) that the daemon answers with at its default threshold."""
    picture = Pillow.fromarray(np.ascontiguousarray(image[..., ::-1]))
    return product.ask(encoded(picture, "jpeg", orientation), "a picture")[0]


def assert_only(found: FloatArray, *boxes: FloatArray, least: float = 0.5) -> None:
    """Assert that each box is found once, and nothing else."""
    assert len(found) == len(boxes), found
    for box in boxes:
        assert overlap(found, box[None]).max() >= least, (found, box)


def head(face: Portrait, margin: float = 0.25) -> tuple[Image, FloatArray]:
    """Return a tight shot of a head and the face's box in it."""
    width, height = face.box[2:] - face.box[:2]
    grown = face.box + np.array([-width, -height, width, height]) * margin
    left, top = np.maximum(grown[:2], 0).astype(int)
    right, bottom = np.minimum(grown[2:], face.image.shape[1::-1]).astype(int)
    shift = np.array([left, top, left, top])
    return face.image[top:bottom, left:right], (face.box - shift).astype(np.float32)


@pytest.mark.parametrize("ground", ["grey", "a scene"])
@pytest.mark.parametrize("person", PERSONS)
def test_one_face_is_found_at_every_size(product: Product, person: str, ground: str) -> None:
    missed, more = [], []
    for step in sweep.steps(sweep.SHARES[::2] + sweep.SHARES[-1:]):
        if step.title != f"{person} on {ground}":
            continue
        found = ask(product, step.image)
        if not len(found) or overlap(found, step.box.clip(0, sweep.SIDE)[None]).max() < 0.5:
            missed.append(round(step.share, 2))
        if len(found) > 1:
            more.append(round(step.share, 2))
    assert (missed, more) == ([], [])


@pytest.mark.parametrize("side", [64, 100, 144, 300, 640, 928, 2000])
@pytest.mark.parametrize("person", PERSONS)
def test_a_head_that_is_the_whole_picture(
    product: Product, portraits: dict[str, Portrait], person: str, side: int
) -> None:
    shot, box = head(portraits[person])
    factor = side / max(shot.shape[:2])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(shot, None, fx=factor, fy=factor, interpolation=how), np.uint8)
    assert_only(ask(product, scaled), box * factor)


@pytest.mark.parametrize("person", PERSONS)
def test_room_around_a_face_moves_nothing(product: Product, portraits: dict[str, Portrait], person: str) -> None:
    shot, box = head(portraits[person])
    tight = ask(product, shot)
    assert_only(tight, box)
    pad = max(shot.shape[:2])
    padded = cv2.copyMakeBorder(shot, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    (roomy,) = ask(product, np.asarray(padded, np.uint8))
    assert overlap(tight, roomy[None] - pad).max() >= 0.8


@pytest.mark.parametrize("edge", ["left", "top", "right", "bottom"])
@pytest.mark.parametrize("person", PERSONS)
def test_a_face_cut_by_an_edge(product: Product, portraits: dict[str, Portrait], person: str, edge: str) -> None:
    face = portraits[person]
    box, (height, width) = face.box, face.image.shape[:2]
    cut_x, cut_y = 0.3 * (box[2] - box[0]), 0.3 * (box[3] - box[1])
    left, top, right, bottom = 0, 0, width, height
    if edge == "left":
        left = int(box[0] + cut_x)
    elif edge == "top":
        top = int(box[1] + cut_y)
    elif edge == "right":
        right = int(box[2] - cut_x)
    else:
        bottom = int(box[3] - cut_y)
    shown = face.image[top:bottom, left:right]
    seen = (box - np.array([left, top, left, top])).clip(0, [shown.shape[1], shown.shape[0]] * 2)
    assert_only(ask(product, shown), seen.astype(np.float32), least=0.45)


def test_upside_down_by_exif(product: Product, portraits: dict[str, Portrait]) -> None:
    face = portraits["Collins"]
    turned = np.asarray(cv2.rotate(face.image, cv2.ROTATE_180), np.uint8)
    assert_only(ask(product, turned, orientation=3), face.box)


def test_two_faces_cheek_to_cheek(product: Product, portraits: dict[str, Portrait]) -> None:
    shots = [head(portraits[person].scaled(220), 0.02) for person in PERSONS]
    height = max(image.shape[0] for image, _ in shots)
    canvas: Image = np.full((height + 200, 900, 3), 128, np.uint8)
    x, boxes = 150, []
    for image, box in shots:
        canvas[100 : 100 + image.shape[0], x : x + image.shape[1]] = image
        boxes.append(box + np.array([x, 100, x, 100], np.float32))
        x += image.shape[1]
    assert_only(ask(product, canvas), *boxes)


@pytest.mark.parametrize("frame", ["a T-shirt", "a phone"])
def test_a_picture_of_a_face_below_a_face(product: Product, portraits: dict[str, Portrait], frame: str) -> None:
    face, print_ = portraits["Hopper"].scaled(200), portraits["Collins"].scaled(70)
    canvas = face.image.copy()
    shot, box = head(print_, 0.4)
    x = round(float(face.box[[0, 2]].mean())) - shot.shape[1] // 2
    y = round(float(face.box[3])) + 40
    if frame == "a phone":
        cv2.rectangle(canvas, (x - 8, y - 20), (x + shot.shape[1] + 8, y + shot.shape[0] + 20), (15, 15, 15), -1)
    canvas[y : y + shot.shape[0], x : x + shot.shape[1]] = shot[: canvas.shape[0] - y]
    assert_only(ask(product, canvas), face.box, box + np.array([x, y, x, y], np.float32))


@pytest.mark.parametrize("size", [(1, 1), (8000, 10), (10, 8000), (31, 33), (2, 900)])
def test_a_picture_of_nothing_in_any_shape(product: Product, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    assert not len(ask(product, np.asarray(noise, np.uint8)))


@pytest.mark.parametrize("person", PERSONS)
def test_an_eye_or_a_mouth_alone_is_no_face(product: Product, portraits: dict[str, Portrait], person: str) -> None:
    face = portraits[person].scaled(900)
    left, top, right, bottom = face.box
    width, height = right - left, bottom - top
    for x, y in ((0.3, 0.4), (0.7, 0.4), (0.5, 0.78), (0.5, 0.12)):
        middle = np.array([left + x * width, top + y * height])
        (x0, y0), (x1, y1) = (middle - 0.13 * width).astype(int), (middle + 0.13 * width).astype(int)
        assert not len(ask(product, face.image[y0:y1, x0:x1])), (x, y)


def test_faces_of_ten_pixels_in_twelve_megapixels(portraits: dict[str, Portrait]) -> None:
    rough = np.random.default_rng(0).integers(60, 180, (30, 40, 3), dtype=np.uint8)
    canvas = np.asarray(cv2.resize(rough, (4000, 3000), interpolation=cv2.INTER_CUBIC), np.uint8)
    boxes = []
    for x, (person, size) in enumerate([(person, size) for person in PERSONS for size in (10, 12)]):
        face = portraits[person].scaled(size)
        height, width = face.image.shape[:2]
        left, top = 400 + 900 * x, 300 + 700 * x
        canvas[top : top + height, left : left + width] = face.image
        boxes.append(face.box + np.array([left, top, left, top], np.float32))
    with Product({"http": {"long_side": 4096}}) as large:
        assert_only(ask(large, canvas), *boxes, least=0.4)
