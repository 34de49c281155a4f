"""An idle camera tells of the same faces as one that is decoded whole, by the real networks."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import PictureType

from tests.benchmarks.idle import watch
from tests.unit.fakes import DEMO
from visaged.daemon.bench.rig import Bench
from visaged.daemon.settings import Settings

EMPTY_S, SHOWN_S, GOP_S = 6, 7, 1
SIZE = (640, 360)


def write(path: Path) -> Path:
    """Write some seconds without a face, and then some of the demo."""
    with av.open(path, "w") as container, av.open(DEMO) as demo:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "superfast", "tune": "zerolatency", "g": str(25 * GOP_S), "sc_threshold": "0"}
        shown = [
            frame.reformat(*SIZE, "bgr24").to_ndarray()
            for frame in demo.decode(demo.streams.video[0])
            if 5 <= (frame.time or 0) < 5 + SHOWN_S
        ]
        empty = cv2.GaussianBlur(shown[0], (0, 0), 40)
        rng = np.random.default_rng(0)
        for index in range(25 * EMPTY_S + len(shown)):
            picture = empty if index < 25 * EMPTY_S else shown[index - 25 * EMPTY_S]
            noisy = np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(noisy, format="bgr24").reformat(format="yuv420p")
            frame.pts, frame.time_base, frame.pict_type = index, Fraction(1, 25), PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.timed
def test_the_same_faces_are_told_of_with_and_without_idle(tmp_path: Path) -> None:
    networks = Bench(Settings.model_validate({}))
    full, lazy = watch(networks, write(tmp_path / "visit.mp4"), EMPTY_S + SHOWN_S, after_s=1.0)
    assert lazy.wakes != "none", "it was idle, and woke"
    visits = [one for one in full.faces.values() if one.begin_s < EMPTY_S + SHOWN_S - 2]
    assert visits
    for one in visits:
        two = min(lazy.faces.values(), key=one.distance)
        assert abs(two.begin_s - one.begin_s) <= 0.45, "the true time, as exact as two analysed frames"
        assert two.told_s - one.told_s < GOP_S + 6, "also on a machine that has little time"
