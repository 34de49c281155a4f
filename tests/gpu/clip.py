"""Make a 1080p25 H.264 clip from the demo, encoded as a camera does it: `python -m tests.gpu.clip FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import av
from av.video.frame import PictureType

DEMO = Path(__file__).resolve().parents[2] / "daemon" / "demo" / "demo.mp4"
_SECONDS = 10


def make(path: Path) -> None:
    """Write the clip: 10 s, 2 Mb/s, a key frame every two seconds."""
    with av.open(str(DEMO)) as read, av.open(str(path), "w") as written:
        stream = written.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 1920, 1080, "yuv420p", 2_000_000
        stream.options = {"preset": "veryfast", "bf": "0", "refs": "1", "g": "50", "maxrate": "2M", "bufsize": "2M"}
        for index, frame in enumerate(read.decode(video=0)):
            if index == 25 * _SECONDS:
                break
            scaled = frame.reformat(1920, 1080, "yuv420p")
            scaled.pts, scaled.time_base, scaled.pict_type = frame.pts, frame.time_base, PictureType.NONE
            written.mux(stream.encode(scaled))
        written.mux(stream.encode(None))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
