"""The clip that benchmarks share, made once and kept in `.bench/`: 1080p25 H.264 at 4 Mb/s, three faces and more.

It is encoded as a camera's chip does it: no B-frames, one reference frame, a key frame every two seconds. What a frame
costs to decode depends on that and on the bit rate more than on what it shows.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".bench"


def bench_clip() -> Path:
    """Return the clip, made by the demo's script on the first call (some minutes; needs the extra `demo`)."""
    path = CACHE / "crowd.mp4"
    if not path.exists():
        if importlib.util.find_spec("skimage") is None or importlib.util.find_spec("matplotlib") is None:
            sys.exit("the benchmark clip is made from portraits that scikit-image and matplotlib ship: "
                     "pip install -e '.[demo]'")  # fmt: skip
        CACHE.mkdir(exist_ok=True)
        print("making the benchmark clip, once; this takes some minutes", flush=True)
        part = path.with_name("part.mp4")
        script = ROOT / "tests" / "benchmarks" / "make_clip.py"
        master = CACHE / "master.mp4"
        command = "--scenario crowd --seconds 20 --size 1920x1080 --bitrate 20M --output"
        subprocess.run([sys.executable, script, *command.split(), master], check=True)
        with av.open(str(master)) as read:
            encode_as_a_camera(read.decode(video=0), part)
        master.unlink()
        part.rename(path)
    return path


def encode_as_a_camera(frames: Iterable[av.VideoFrame], target: Path) -> None:
    """Encode frames of 1920 x 1080 as a camera does it."""
    with av.open(str(target), "w") as written:
        stream = written.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.options = {
            "preset": "veryfast", "tune": "zerolatency", "bf": "0", "refs": "1", "g": "50", "sc_threshold": "0",
            "maxrate": "4M", "bufsize": "4M",
        }  # fmt: skip
        for number, frame in enumerate(frames):
            frame.pict_type, frame.pts, frame.time_base = PictureType.NONE, number, Fraction(1, 25)
            written.mux(stream.encode(frame))
        written.mux(stream.encode(None))
