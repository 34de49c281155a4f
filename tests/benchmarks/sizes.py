"""What searching at several sizes costs: CPU time of the search alone, on a 720p picture and on a 12-megapixel one.

Placing on canvases, the network and joining, by `visaged.models.search` as the daemon does it, on one core. Each line
has the ratio to the usual canvas alone, of the same round; the second is what `inference.close_up` costs a frame.
"""

from __future__ import annotations

import statistics
import time

import cv2
import numpy as np

from tests.unit import fakes
from visaged.models import search
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.search import Scales
from visaged.models.session import SessionConfig
from visaged.models.surface import ImageSurface

ROUNDS = 30
WAYS = {
    "640": Scales(640, small=None),
    "256 and 640": Scales(640),
    "256, 640 and 1280": Scales(640, 1280),
    "256, 640 and 2560": Scales(640, 2560),
}


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    detector = Detector.load(Manifest(), Manifest().default_detector(on_gpu=False).name, SessionConfig("cpu"), 0.35)
    frame = fakes.demo_image(fakes.TWO_FACES_S)
    pictures = {
        "1280 x 720": frame,
        "4000 x 3000": np.asarray(cv2.resize(frame, (4000, 3000), interpolation=cv2.INTER_CUBIC), np.uint8),
    }
    for size, image in pictures.items():
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(ROUNDS):
            for name, scales in WAYS.items():
                began = time.process_time()
                search.find(detector, [scales.looks(ImageSurface(image))])
                times[name].append(1000 * (time.process_time() - began))
        usual = times["640"]
        for name, values in times.items():
            ratio = statistics.median(value / base for value, base in zip(values, usual, strict=True))
            print(f"{size}, canvases {name}: {statistics.median(values):.1f} ms, {ratio:.2f} x", flush=True)


if __name__ == "__main__":
    main()
