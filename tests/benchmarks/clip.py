"""The clip that benchmarks share: 1080p25 H.264 at 4 Mb/s, three faces and more, made once and kept in `.bench/`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

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
        script = ROOT / "daemon" / "demo" / "make_clip.py"
        command = "--scenario crowd --seconds 20 --size 1920x1080 --bitrate 4M --output"
        subprocess.run([sys.executable, script, *command.split(), part], check=True)
        part.rename(path)
    return path
