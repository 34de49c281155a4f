"""Finds out how the pictures of a stream are to be shown, from the stream and the configuration."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.stream import VideoStream

from visaged.pipelines.presentation import MOST_PIXEL_ASPECT, UPRIGHT, Presentation, Turn
from visaged.pipelines.source.config import SourceConfig

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LastTurn:
    """What the frames of a source said about their turn when they were looked at.

    A frame is asked for its matrix only where its angle, which costs nothing, is another one than before.

    Attributes:
        rotation: The angle that came with the frame, in PyAV's degrees; None before the first frame.
        turn: How pictures become upright since then.
    """

    rotation: int | None = None
    turn: Turn = UPRIGHT


class Display:
    """Returns how the frames of one connection are to be shown.

    The rotation comes from the container with every frame, or from the codec's own headers, with key frames alone: it
    then holds until the next key frame, which may come without it. The shape of the pixels is the container's where it
    has one of its own, and else the codec's, which may change with a key frame too.

    Args:
        camera: Name of the camera, for the log.
        config: Configuration whose `rotate` and `aspect` override the stream.
        stream: The video, before its first packet is decoded.
        last: The turn of the frames that came before on the same source.
    """

    def __init__(self, camera: str, config: SourceConfig, stream: VideoStream, last: LastTurn) -> None:
        self._camera = camera
        self._config = config
        self._context = stream.codec_context
        container = stream.sample_aspect_ratio
        self._container_aspect = None if container == self._context.sample_aspect_ratio else container
        self._warned = False
        self._last = last
        self._shown: Presentation | None = None

    def of(self, frame: av.VideoFrame) -> Presentation:
        """Return how a frame is shown that this stream's decoder has just returned."""
        last = self._last
        if self._config.rotate is not None:
            last.turn = Turn(self._config.rotate)
        elif last.rotation is None or (frame.key_frame and frame.rotation != last.rotation):
            last.rotation, last.turn = frame.rotation, _turn(frame)
        shown, width, height = self._shown, frame.width, frame.height
        if shown is None or frame.key_frame or (shown.stored_width, shown.stored_height) != (width, height):
            self._shown = shown = Presentation(width, height, last.turn, self._aspect(width, height))
        return shown

    def _aspect(self, width: int, height: int) -> float:
        """Return the width of a stored pixel relative to its height."""
        shape = self._config.display_aspect
        aspect: Fraction | None
        if shape is not None:
            aspect = shape * height / width
        else:
            aspect = self._container_aspect or self._context.sample_aspect_ratio
        if not aspect or aspect < 0:  # 0:1 stands for unknown
            return 1.0
        if not 1 / MOST_PIXEL_ASPECT <= aspect <= MOST_PIXEL_ASPECT:
            if not self._warned:
                self._warned = True
                log.warning(
                    "camera %s: its pixels would be %.3g times as wide as high, which no camera has; taken as square",
                    self._camera, float(aspect),
                )  # fmt: skip
            return 1.0
        return float(aspect)


def _turn(frame: av.VideoFrame) -> Turn:
    """Return how a frame becomes upright by what came with it."""
    try:
        # Not `frame.side_data`: the frame would keep it, and it the frame, so that Python frees both, and the pool of
        # the decoder's pictures, only when it looks for such circles. One such frame a connection came to 80 MB.
        side_data = SideDataContainer(frame)  # type: ignore[call-arg] # its stub leaves the argument out
        matrix = side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know another kind of side data in it; it then has only the angle
        quarters = round(-frame.rotation / 90) % 4
        return Turn((0, 90, 180, 270)[quarters])
    return UPRIGHT if matrix is None else Turn.from_matrix(np.frombuffer(matrix, np.int32).reshape(3, 3))
