"""What training and evaluation show to the networks is what the product shows to them, and is read alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.support import packs as made
from tests.support import tiny_networks
from tests.unit import fakes
from visaged.models import detector
from visaged.models.alignment import Aligner, similarity
from visaged.models.errors import ModelError
from visaged.models.manifest import AnalyzerEntry, DetectorEntry, Entry, Manifest
from visaged.models.preprocess import canvas_for, place, tensor
from visaged.models.session import SessionConfig
from visaged.models.surface import ImageSurface
from visaged.models.training.analyzer import heads
from visaged.models.training.analyzer.labelling import crops
from visaged.models.training.common import pixels
from visaged.models.training.common.packs import Faces, PackedPicture, is_validation
from visaged.models.training.detector.samples.views import Picture
from visaged.models.training.evaluation import decode, evaluate
from visaged.models.types import FloatArray, Image

ENTRIES = [pytest.param(entry, id=entry.name) for entry in Manifest().entries]
DETECTORS = [pytest.param(entry, id=entry.name) for entry in Manifest().entries if isinstance(entry, DetectorEntry)]
ANALYZERS = [pytest.param(entry, id=entry.name) for entry in Manifest().entries if isinstance(entry, AnalyzerEntry)]
CPU = SessionConfig(provider="cpu")
TRAINING = Path(decode.__file__).parents[1]

SIZES = [(1280, 720), (640, 480), (512, 512), (600, 333), (360, 640), (97, 131)]


def first_values(path: Path, images: Image) -> NDArray[np.float32]:
    """Return what the first convolution of a network gets for a batch, (B, 3, H, W)."""
    network = onnx.load(str(path))
    reached = {network.graph.input[0].name}
    for node in network.graph.node:
        if not reached & set(node.input):
            continue
        if node.op_type == "Conv":
            entering = node.input[0]
            break
        reached |= set(node.output)
    network.graph.output.append(helper.make_tensor_value_info(entering, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    values: NDArray[np.float32] = session.run([entering], {network.graph.input[0].name: images})[0]
    return values


def portion(width: int, height: int) -> Image:
    return np.ascontiguousarray(fakes.demo_image(fakes.TWO_FACES_S)[:height, -width:])


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_networks_take_pixels_as_they_are(entry: Entry) -> None:
    images = portion(320, 256)[None]
    np.testing.assert_array_equal(tensor(images, entry.input), images)
    session = onnxruntime.InferenceSession(str(Manifest().file(entry)), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[3]) == (entry.input.name, "tensor(uint8)", 3)


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_networks_begin_with_training_s_normalisation(entry: Entry) -> None:
    side = entry.input.size if isinstance(entry, AnalyzerEntry) else 320
    images = np.stack([portion(side, side), np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)])
    values = images.transpose(0, 3, 1, 2).astype(np.float32)
    expected = (values - np.float32(pixels.MEAN)) * np.float32(pixels.SCALE)
    np.testing.assert_array_equal(first_values(Manifest().file(entry), images), expected)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_evaluation_pads_as_the_product_s_canvas_does(width: int, height: int) -> None:
    image = portion(width, height)
    canvas = canvas_for(width, height, max(width, height))
    placed, padded = place(image, canvas), decode.padded(image)
    rows, columns = padded.shape[:2]
    assert rows % 32 == columns % 32 == 0
    assert padded.dtype == np.uint8
    np.testing.assert_array_equal(padded[:height, :width], image)
    assert not padded[height:].any()
    assert not padded[:, width:].any()
    if max(width, height) % 32 == 0 and width % 2 == height % 2 == 0:  # the canvas keeps the picture's size
        np.testing.assert_array_equal(placed[:rows, :columns], padded)
        assert not placed[rows:].any()
        assert not placed[:, columns:].any()


@pytest.mark.parametrize("entry", DETECTORS)
@pytest.mark.parametrize(("width", "height"), [(1280, 720), (640, 480), (1280, 640)])
def test_evaluation_finds_what_the_product_finds(entry: DetectorEntry, width: int, height: int) -> None:
    image = portion(width, height)
    canvas = canvas_for(width, height, width)
    (faces,) = detector.Detector.load(Manifest(), entry.name, CPU).detect(place(image, canvas)[None])
    assert len(faces) >= 1
    for find in (decode.open_detector(Manifest().file(entry)), decode.detector_of(Manifest().file(entry), entry)):
        boxes, scores, points = find(image, entry.threshold)
        assert len(boxes) == len(faces)
        # A canvas may have more black below the picture than evaluation adds, and a network that sees far sees that.
        np.testing.assert_allclose(boxes, faces.boxes, atol=0.4)
        np.testing.assert_allclose(scores, faces.confidences, atol=5e-3)
        np.testing.assert_allclose(points, faces.landmarks, atol=0.4)


@pytest.mark.parametrize("entry", DETECTORS)
def test_finds_are_what_the_card_says_of_the_raw_outputs(entry: DetectorEntry) -> None:
    # Cell by cell, in the words of the model card and without the product's decoder.
    path, image, least = Manifest().file(entry), portion(640, 480), 0.05
    session = decode.session(path)
    names = [output.name for output in session.get_outputs()]
    raw = dict(zip(names, session.run(names, {entry.input.name: image[None]}), strict=True))
    cells: list[tuple[float, FloatArray, FloatArray]] = []
    for stride in entry.strides:
        numbers = raw[f"cells_{stride}"][0].astype(np.float64)  # (H/s, W/s, 15)
        scores_of = 1 / (1 + np.exp(-numbers[..., 0]))
        for row, column in np.argwhere(scores_of >= least):
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            left, top, right, bottom = np.log(1 + np.exp(numbers[row, column, 1:5])) * stride
            box = np.array([x - left, y - top, x + right, y + bottom], np.float32)
            points = numbers[row, column, 5:].reshape(5, 2) * stride + [x, y]
            cells.append((float(scores_of[row, column]), box, points))
    kept: list[tuple[float, FloatArray, FloatArray]] = []
    for cell in sorted(cells, key=lambda cell: -cell[0]):
        if all(decode.overlap(cell[1][None], other[1][None])[0, 0] <= entry.nms_iou for other in kept):
            kept.append(cell)
    boxes, scores, points = decode.open_detector(path)(image, least)
    assert len(kept) == len(boxes) > 1
    np.testing.assert_allclose(scores, [score for score, _, _ in kept], atol=1e-6)
    np.testing.assert_allclose(boxes, [box for _, box, _ in kept], atol=1e-2)
    np.testing.assert_allclose(points, [five for _, _, five in kept], atol=1e-2)


def test_yunet_is_read_as_a_manifest_would_have_it_read(tmp_path: Path) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "yunet")
    image = np.zeros((64, 96, 3), np.uint8)
    image[16:24, 32:40] = (0, 0, 255)
    boxes, scores, points = decode.open_detector(tmp_path / "red.onnx")(image, 0.5)
    assert boxes.tolist() == [[28, 12, 44, 28]]
    assert scores.tolist() == pytest.approx([0.9], abs=0.1)
    assert points[0].tolist() == [[34, 20]] * 5


def test_a_detector_of_another_kind_is_refused(tmp_path: Path) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "scrfd")
    with pytest.raises(ModelError, match=r"red\.onnx is a detector of no kind that is known here; it gives bbox_16"):
        decode.open_detector(tmp_path / "red.onnx")
    with pytest.raises(ModelError, match=r"none\.onnx cannot be loaded"):
        decode.open_detector(tmp_path / "none.onnx")


def test_pictures_are_halved_as_the_product_halves_them(tmp_path: Path) -> None:
    canvas = canvas_for(1280, 720, 640)
    name = next(f"{i}.jpg" for i in range(100) if is_validation("events", f"{i}.jpg"))
    data = made.jpeg(fakes.demo_image(fakes.TWO_FACES_S))
    made.write(tmp_path, "events", {name: data}, [made.row(name, (100, 60, 40, 50))])
    half = next(chosen for chosen in evaluate.SETS if chosen.pack == "events" and chosen.scale == 0.5)
    ((image, faces),) = evaluate.pictures(evaluate.HeldOut(tmp_path), half)
    whole = PackedPicture("events", name, data, Faces.from_rows([], [], [], []))
    expected = place(whole.decode(), canvas)[: canvas.picture_height]
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_allclose(faces.boxes * 2, [[100, 60, 140, 110]])
    # So are the levels from which training draws its views.
    np.testing.assert_array_equal(Picture.of(whole).levels[1], expected)


@pytest.mark.parametrize("entry", ANALYZERS)
def test_training_aligns_to_the_product_s_template(entry: AnalyzerEntry) -> None:
    np.testing.assert_array_equal(crops.FIVE, entry.input.template)
    assert crops.SIZE == heads.SIZE == entry.input.size
    assert entry.input.size + 2 * crops.MARGIN == crops.CROP
    np.testing.assert_allclose(crops.TEMPLATE, crops.FIVE + crops.MARGIN)


def middle(crop: Image) -> NDArray[np.int64]:
    return crop[crops.MARGIN : -crops.MARGIN, crops.MARGIN : -crops.MARGIN].astype(np.int64)


@pytest.mark.parametrize("entry", ANALYZERS)
@pytest.mark.parametrize("roll", [0.0, 25.0, -40.0])
@pytest.mark.parametrize("size", [30.0, 60.0, 110.0, 180.0, 250.0])
def test_training_crops_are_the_product_s(entry: AnalyzerEntry, size: float, roll: float) -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    x, y = (451.0, 307.0) if size < 200 else (640.0, 360.0)  # on a face; so that all of the crop lies in the picture
    points = fakes.five_points(x, y, size, roll=roll)
    face = crops.Face("demo", image, False, points)
    aligner = Aligner(entry.input.template, entry.input.size)
    product = ImageSurface(image).crops([aligner.matrix(points)], aligner.size)[0].astype(np.int64)
    difference = np.abs(middle(crops.cut(image, face.matrix(), crops.CROP)) - product)
    scale = crops.matrix_scale(similarity(points, entry.input.template))
    if scale >= 0.6:
        # The same pixels; their weights are rounded to 1/32 from another corner.
        assert difference.mean() < 0.3
        assert difference.max() <= 12
    else:
        # Averaged down first, by a factor that is rounded to whole pixels of another region.
        assert difference.mean() < 2
        assert np.percentile(difference, 99) <= 16


@pytest.mark.parametrize("entry", ANALYZERS)
def test_training_blackens_what_the_product_has_black(entry: AnalyzerEntry) -> None:
    image = np.ascontiguousarray(fakes.demo_image(fakes.TWO_FACES_S)[:, 430:1180])  # through both faces
    aligner = Aligner(entry.input.template, entry.input.size)
    for x, y in ((21.0, 305.0), (735.0, 330.0)):
        points = fakes.five_points(x, y, 120.0, roll=8.0)
        face = crops.Face("demo", image, False, points)
        crop = crops.cut(image, face.matrix(), crops.CROP)
        outside = np.unpackbits(crops.inside(face, face.matrix())).reshape(crops.CROP, crops.CROP) == 0
        assert 0.1 < middle(outside[..., None]).mean() < 0.6  # type: ignore[arg-type]
        crop[outside] = 0
        product = ImageSurface(image).crops([aligner.matrix(points)], aligner.size)[0].astype(np.int64)
        # Along the border, where one fades to black and the other ends, and at hard edges, pixels may differ.
        differing = (np.abs(middle(crop) - product) > 12).any(2)
        assert differing.mean() < 0.02
        assert (differing.sum(1) <= 10).all()
