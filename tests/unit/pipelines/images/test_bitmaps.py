"""BMP files in the dialects that programs write: every one gives the pixels that were put in, or a clear refusal."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.bitmaps import BITFIELDS, RGB555, RGB565, RLE4, RLE8, bitmap, nibbles, packed, run_lengths
from visaged.pipelines.images.decode import PictureError, load

HEIGHT = 15
COLOURS: NDArray[np.uint8] = np.random.default_rng(1).integers(1, 256, (256, 3)).astype(np.uint8)
GREY = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
BLACK_AND_WHITE = np.array([[0] * 3, [255] * 3], np.uint8)
WIDTHS = pytest.mark.parametrize("width", [1, 4, 20, 21, 23, 37, 300])


def indices(width: int, colours: int) -> NDArray[np.uint8]:
    """A picture with runs, gradients and noise in it."""
    y, x = np.mgrid[:HEIGHT, :width]
    image = ((x // 3 + y // 2) % colours).astype(np.uint8)
    image[5:10, width // 4 : width // 2] = np.random.default_rng(0).integers(0, colours, (5, width // 2 - width // 4))
    return image


def pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(load(data, 10_000_000).image)


def damage(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        load(data, 10_000_000)
    assert caught.value.reason == "damaged"
    return str(caught.value)


@WIDTHS
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize("palette", [COLOURS, GREY, COLOURS[:5], BLACK_AND_WHITE], ids=["256", "grey", "5", "2"])
def test_rle8(width: int, absolute: bool, gap: int, palette: NDArray[np.uint8]) -> None:
    image = indices(width, len(palette))
    data = bitmap((width, HEIGHT), 8, run_lengths(image, absolute=absolute), RLE8, palette, gap=gap)
    assert np.array_equal(pixels(data), palette[image])


@WIDTHS
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("palette", [COLOURS[:16], GREY[:16], COLOURS[:5], BLACK_AND_WHITE])
def test_rle4(width: int, absolute: bool, palette: NDArray[np.uint8]) -> None:
    image = indices(width, len(palette))
    data = bitmap((width, HEIGHT), 4, run_lengths(image, True, absolute), RLE4, palette)
    assert np.array_equal(pixels(data), palette[image])


@pytest.mark.parametrize(("bits", "kind"), [(8, RLE8), (4, RLE4)])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("width", [21, 22, 23])
def test_rows_may_be_encoded_longer_than_they_are(bits: int, kind: int, absolute: bool, width: int) -> None:
    image = indices(width, 16)
    padded = np.pad(image, ((0, 0), (0, -width % 4 + 4)))
    data = bitmap((width, HEIGHT), bits, run_lengths(padded, kind == RLE4, absolute), kind, COLOURS[:16])
    assert np.array_equal(pixels(data), COLOURS[image])


@pytest.mark.parametrize(("bits", "kind", "seven", "nine"), [(8, RLE8, 7, 9), (4, RLE4, 0x77, 0x99)])
def test_deltas_and_early_ends_leave_the_first_colour(bits: int, kind: int, seven: int, nine: int) -> None:
    image = np.zeros((HEIGHT, 21), np.uint8)
    image[-1, :5], image[-3, 8:12] = 7, 9
    body = bytes([5, seven, 0, 2, 3, 2, 4, nine, 0, 0, 0, 1])
    assert np.array_equal(pixels(bitmap((21, HEIGHT), bits, body, kind, COLOURS[:16])), COLOURS[image])
    beyond = bytes([5, seven, 0, 2, 255, 255, 4, nine, 0, 1])
    image[-3] = 0
    assert np.array_equal(pixels(bitmap((21, HEIGHT), bits, beyond, kind, COLOURS[:16])), COLOURS[image])


@pytest.mark.parametrize(("bits", "kind"), [(8, RLE8), (4, RLE4)])
def test_run_lengths_without_a_mark_of_their_end_are_complete_with_the_last_row(bits: int, kind: int) -> None:
    image = indices(20, 16)
    data = bitmap((20, HEIGHT), bits, run_lengths(image, kind == RLE4, end=False), kind, COLOURS[:16])
    assert np.array_equal(pixels(data), COLOURS[image])


@pytest.mark.parametrize(("bits", "kind"), [(8, RLE8), (4, RLE4)])
@pytest.mark.parametrize("cut", [3, 9, 40])
def test_run_lengths_that_are_cut_short_are_damage(bits: int, kind: int, cut: int) -> None:
    body = run_lengths(indices(22, 16), kind == RLE4, absolute=True)
    assert "end" in damage(bitmap((22, HEIGHT), bits, body[:-cut], kind, COLOURS[:16]))
    assert "end" in damage(bitmap((22, HEIGHT), bits, b"", kind, COLOURS[:16]))
    assert "end" in damage(bitmap((22, HEIGHT), bits, b"\x00\x02\x01", kind, COLOURS[:16]))


def test_run_lengths_from_top_to_bottom_do_not_exist() -> None:
    body = run_lengths(indices(20, 16))
    assert "top to bottom" in damage(bitmap((20, HEIGHT), 8, body, RLE8, COLOURS, top_down=True))


def test_run_lengths_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visaged.pipelines.images.bitmap._MOST_RUNS", 1000)
    body = bytes([200, 1]) * 2000
    assert "too many runs" in damage(bitmap((20, HEIGHT), 8, body, RLE8, COLOURS))


@WIDTHS
@pytest.mark.parametrize("header", [12, 40, 52, 56, 64, 108, 124])
def test_eight_bits(width: int, header: int) -> None:
    image = indices(width, 256)
    data = bitmap((width, HEIGHT), 8, packed(image), palette=COLOURS, header=header)
    assert np.array_equal(pixels(data), COLOURS[image])


@WIDTHS
@pytest.mark.parametrize("header", [12, 40, 124])
@pytest.mark.parametrize("palette", [COLOURS[:16], GREY[:16], GREY[::17]])
def test_four_bits(width: int, header: int, palette: NDArray[np.uint8]) -> None:
    image = indices(width, 16)
    data = bitmap((width, HEIGHT), 4, packed(nibbles(image)), palette=palette, header=header)
    assert np.array_equal(pixels(data), palette[image])


@WIDTHS
@pytest.mark.parametrize("header", [12, 40, 124])
@pytest.mark.parametrize("palette", [COLOURS[:2], BLACK_AND_WHITE, BLACK_AND_WHITE[::-1]])
def test_one_bit(width: int, header: int, palette: NDArray[np.uint8]) -> None:
    image = indices(width, 2)
    data = bitmap((width, HEIGHT), 1, packed(np.packbits(image, 1)), palette=palette, header=header)
    assert np.array_equal(pixels(data), palette[image])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("palette", [COLOURS[:5], BLACK_AND_WHITE, COLOURS[:2]])
def test_small_palettes(bits: int, palette: NDArray[np.uint8]) -> None:
    image = indices(21, len(palette))
    body = packed(image if bits == 8 else nibbles(image))
    assert np.array_equal(pixels(bitmap((21, HEIGHT), bits, body, palette=palette)), palette[image])


@WIDTHS
@pytest.mark.parametrize("bits", [24, 32])
@pytest.mark.parametrize("header", [12, 40, 56, 64, 108, 124])
@pytest.mark.parametrize("top_down", [False, True])
def test_true_colour(width: int, bits: int, header: int, top_down: bool) -> None:
    if header == 12 and top_down:
        pytest.skip("heights of OS/2's first header have no sign")
    image = np.random.default_rng(2).integers(0, 256, (HEIGHT, width, bits // 8)).astype(np.uint8)
    body = packed(image.reshape(HEIGHT, -1), top_down)
    data = bitmap((width, HEIGHT), bits, body, header=header, top_down=top_down)
    assert np.array_equal(pixels(data), image[..., :3])


@WIDTHS
@pytest.mark.parametrize(
    ("header", "masks", "shifts"),
    [
        *((header, RGB565, (11, 5, 0)) for header in (40, 52, 56, 108, 124)),
        *((header, RGB555, (10, 5, 0)) for header in (40, 52, 56, 108, 124)),
        (12, (), (10, 5, 0)),
        (40, (), (10, 5, 0)),
    ],
)
def test_sixteen_bits(width: int, header: int, masks: tuple[int, ...], shifts: tuple[int, ...]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (HEIGHT, width, 3)).astype(np.uint16)
    red, green, blue = (image[..., 2] >> 3, image[..., 1] >> (2 if masks == RGB565 else 3), image[..., 0] >> 3)
    words = (red << shifts[0] | green << shifts[1] | blue << shifts[2]).astype("<u2")
    body = packed(words.view(np.uint8).reshape(HEIGHT, -1))
    data = bitmap((width, HEIGHT), 16, body, BITFIELDS if masks else 0, masks=masks, header=header)
    assert np.abs(pixels(data).astype(int) - image).max() <= 8


@pytest.mark.parametrize("header", [40, 56, 108, 124])
def test_thirty_two_bits_with_masks(header: int) -> None:
    image = np.random.default_rng(4).integers(0, 256, (HEIGHT, 21, 4)).astype(np.uint8)
    masks = (0xFF0000, 0xFF00, 0xFF, *(() if header == 40 else (0xFF000000,)))
    body = packed(image.reshape(HEIGHT, -1))
    data = bitmap((21, HEIGHT), 32, body, BITFIELDS, masks=masks, header=header)
    assert np.array_equal(pixels(data), image[..., :3])


def test_masks_that_nobody_uses_are_refused_in_words() -> None:
    data = bitmap((20, HEIGHT), 16, bytes(40 * HEIGHT), BITFIELDS, masks=(0xF00, 0xF0, 0xF))
    assert "bitfields" in damage(data)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_raw_pixels_that_are_cut_short_are_damage(bits: int) -> None:
    image = indices(64, 2)
    body = packed({1: np.packbits(image, 1), 4: nibbles(image), 8: image}[bits])
    data = bitmap((64, HEIGHT), bits, body, palette=COLOURS[:2])
    assert "cut short" in damage(data[:-40])
