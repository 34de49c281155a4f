"""Pictures of best looks: cut out at once, small, and encoded only when an event needs them."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from visaged.models.surface import Surface
from visaged.models.types import FloatArray, Image
from visaged.pipelines.pictures.blur import blur_faces
from visaged.pipelines.pictures.encode import encode_jpeg

MOST_PIXELS = 320
"""Most pixels across and down of a picture."""

# A square so many times as large as the longer side of the box: hair and shoulders, and what is around.
_WIDER = 1.9
_LEAST_PIXELS = 16
_QUALITY = 85
# An event may be handled when newer looks have come already; its own is among so many.
_MOST_LOOKS = 3
_MOST_TRACKS = 200


def cut(surface: Surface, box: FloatArray, blurred: Iterable[FloatArray] = ()) -> Image | None:
    """Return a face with a margin, upright and as it is in the picture; None if it lies outside.

    Args:
        surface: The picture.
        box: (4,) left, top, right, bottom of the face in the picture's pixels.
        blurred: Boxes of all faces that are to be blurred; the face itself may be one of them.

    Returns:
        (H, W, 3) uint8 BGR, `MOST_PIXELS` or less across and down; never enlarged.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    side = _WIDER * max(x1 - x0, y1 - y0, 1.0)
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    size = min(MOST_PIXELS, max(_LEAST_PIXELS, round(side)))
    scale = size / side
    # From pixel centres to pixel centres; `left` and `top` are the corner of a pixel.
    matrix = np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])
    square = surface.crops([matrix], size)[0]
    # What lies outside of the picture is left out.
    columns = max(0, math.ceil(-left * scale)), min(size, math.floor((surface.width - left) * scale))
    rows = max(0, math.ceil(-top * scale)), min(size, math.floor((surface.height - top) * scale))
    if rows[1] <= rows[0] or columns[1] <= columns[0]:
        return None
    image = np.ascontiguousarray(square[rows[0] : rows[1], columns[0] : columns[1]])
    corner = np.array([left + columns[0] / scale, top + rows[0] / scale] * 2)
    blur_faces(image, [(np.asarray(one) - corner) * scale for one in blurred])
    return image


@dataclass
class _Looks:
    """The best looks at a track, newest last, each with its time; and the picture of the newest event."""

    waiting: deque[tuple[str, Image]] = field(default_factory=lambda: deque(maxlen=_MOST_LOOKS))
    number: int | None = None
    jpeg: bytes | None = None
    at_ms: int = 0


class Crops:
    """The best looks at the tracks that are open. Must be used by one thread only."""

    def __init__(self) -> None:
        self._tracks: OrderedDict[tuple[str, int], _Looks] = OrderedDict()

    def add(self, camera: str, track: int, at: str, image: Image) -> None:
        """Add the best look at a track so far.

        Args:
            camera: Name of the camera.
            track: Number of the track.
            at: Capture time of the look, as `best_shot` of an event has it.
            image: (H, W, 3) uint8 BGR.
        """
        self._tracks.setdefault((camera, track), _Looks()).waiting.append((at, image))
        if len(self._tracks) > _MOST_TRACKS:
            self._tracks.popitem(last=False)

    def picture(
        self, camera: str, track: int, at: str, number: int, is_end: bool, at_ms: int = 0
    ) -> tuple[int | None, bytes | None]:
        """Return the picture of an event's best look: its number and the JPEG; None and None for none.

        If that look was lost because there were too many, the picture is that of the best look before.

        Args:
            camera: Name of the camera.
            track: Number of the track.
            at: Capture time of the event's best look.
            number: Number of the event, and of its picture if that is new.
            is_end: Whether the track has ended.
            at_ms: Capture time of the event, milliseconds since 1970.
        """
        looks = self._tracks.get((camera, track))
        if looks is None:
            return None, None
        for index, (captured_at, image) in enumerate(looks.waiting):
            if captured_at == at:
                looks.number, looks.jpeg, looks.at_ms = number, encode_jpeg(image, _QUALITY), at_ms
                for _ in range(index + 1):
                    looks.waiting.popleft()
                break
        if is_end:
            del self._tracks[camera, track]
        return looks.number, looks.jpeg

    def drop(self, gone: Callable[[str, int, int], bool]) -> None:
        """Forget pictures of events that were deleted, which later events of their tracks would bring back.

        Args:
            gone: Whether an event was deleted, by its camera, its number, and its capture time in ms since 1970.
        """
        for (camera, _), looks in self._tracks.items():
            if looks.number is not None and gone(camera, looks.number, looks.at_ms):
                looks.number = looks.jpeg = None

    def forget(self, camera: str) -> None:
        """Forget the tracks of a camera that was removed."""
        for key in [key for key in self._tracks if key[0] == camera]:
            del self._tracks[key]
