"""The table of the daemon's own answers, as a command: a real daemon, packs of a few pictures, clips of seconds."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from tests.support import media, tiny_networks
from tests.support import packs as made
from tests.support.process import ManagedProcess
from tests.unit import fakes
from visaged.models.manifest import DetectorEntry, Manifest
from visaged.models.training.common.packs import is_validation
from visaged.models.training.evaluation import evaluate
from visaged.models.training.evaluation.product import Product, ProductError

COMMAND = [sys.executable, "-m", "visaged.models.training.evaluation.evaluate", "--through-product"]
PATIENCE_S = 240.0


def held_out(pack: str, count: int = 1) -> list[str]:
    return [name for name in (f"{i}.jpg" for i in range(200)) if is_validation(pack, name)][:count]


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """A picture of the demo's faces in most packs, and one without a face twice."""
    image = fakes.demo_image(fakes.TWO_FACES_S)
    boxes = [(left, top, right - left, bottom - top) for left, top, right, bottom in fakes.TWO_FACES]
    for pack in ("street_masks", "events"):
        (name,) = held_out(pack)
        made.write(tmp_path, pack, {name: made.jpeg(image)}, [made.row(name, box, source="human") for box in boxes])
    left, top, right, bottom = fakes.TWO_FACES[1]
    head = made.jpeg(np.ascontiguousarray(image[top - 60 : bottom + 60, left - 80 : right + 37]))
    (name,) = held_out("portraits")
    trained = next(f"{i}.jpg" for i in range(200) if not is_validation("portraits", f"{i}.jpg"))
    rows = [made.row(n, (80, 60, right - left, bottom - top), width=272) for n in (name, trained)]
    made.write(tmp_path, "portraits", {name: head, trained: head}, rows)
    nothing = made.jpeg(np.ascontiguousarray(image[:160, :320]))
    made.write(tmp_path, "scenes", dict.fromkeys(held_out("scenes", 2), nothing), [])
    made.write(tmp_path, "mask_crops", {"a.jpg": head, "b.jpg": nothing}, [])
    (tmp_path / "mask_crops.csv").write_text("image,mask\na.jpg,0\nb.jpg,1\n")
    (tmp_path / "none.txt").touch()
    return tmp_path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two persons who stand still where one should be, and rooms in which nobody is."""
    folder = tmp_path / "videos"
    folder.mkdir()
    image = cv2.resize(fakes.demo_image(fakes.TWO_FACES_S), (960, 540), interpolation=cv2.INTER_AREA)
    writer = cv2.VideoWriter(str(folder / "sign_two.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (960, 540))
    for _ in range(20):
        writer.write(image)
    writer.release()
    for name in ("one_by_one", "walking_pause"):
        media.write_video(folder / f"{name}.mp4", seconds=1.0)
    return folder


def run(*options: str | Path) -> subprocess.CompletedProcess[str]:
    line = [*COMMAND, *map(str, options)]
    return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_the_table_is_what_the_daemon_answers(packs: Path, videos: Path) -> None:
    done = run("--data", packs, "--videos", videos, "--leave-out", packs / "none.txt", "--limit", "2", "--fps", "0")
    assert done.returncode == 0, done.stderr
    newest = evaluate.newest(Manifest(), DetectorEntry)
    assert newest is not None
    assert f"{newest.name} through the product, default threshold {newest.threshold:g}, " in done.stdout
    table = dict(re.findall(r"^\| (.+?) \| (.+) \|$", done.stdout, re.MULTILINE))
    assert len(table) == 18, "every row has a name of its own"
    large = "portraits whose face takes more than half of the long side"
    assert re.fullmatch(r"(0.0|100.0) % \| [01] of 1", table[f"{large}, held-out: found"])
    assert re.fullmatch(r"(0.0|100.0) % \| [02] of 2", table[f"{large}, all: found"])
    assert table["head crops with a mask: found"] == "0.0 % | 0 of 1"
    assert table["head crops with a mask: false boxes"] == "0 | on 1"
    swept = "Collins on grey, face from 8% to 100% of the picture: steps at which it is found / is the only box"
    assert table[swept] == "2 / 2 | of 2; missed at none"
    for title in ("event photos, human boxes", "event photos, all sure boxes", "street photos, human boxes"):
        assert table[f"{title}: AP of faces from 8 / 16 / 32 px on"] == "100.0 / 100.0 / 100.0 | 2 / 2 / 2 faces on 1"
    assert table["photos without a face, held-out: with a false one"] == "0 | of 2"
    signing = table["signing clips, one person each, held-out: false tracks a minute"]
    assert signing == "30.0 | 1 in 2.0 s (sign_two 1); 1 of 1 persons followed"
    room = "one_by_one, nobody shows a face: false tracks a minute"
    assert table[room] == "0.0 | 0 in 1 s; 0 with age or gender; the longest lives 0.0 s"
    assert table["one_by_one from 100 s on, held-out: false tracks a minute"].startswith("- | 0 in 0 s")
    assert table["walking_pause, three persons: tracks"] == "0 | in 1 s; they live - s"


def test_networks_of_one_s_own_come_by_a_configuration(packs: Path) -> None:
    tiny_networks.detector(packs / "red.onnx", "yunet")
    entry = {"name": "red", "task": "detector", "file": "red.onnx", "decoder": "yunet", "strides": [8, 16, 32]}
    entry |= {"input": {"name": "in", "layout": "NCHW", "dtype": "float32"}}  # type: ignore[dict-item]
    manifest = tiny_networks.manifest(packs, entry)
    config = packs / "mine.yaml"
    config.write_text(f"models: {{manifest: {manifest}, detector: red, analyzer: null}}\nmqtt: {{port: 1}}\n")
    done = run("--data", packs, "--leave-out", packs / "none.txt", "--limit", "1", "--config", config)
    assert done.returncode == 0, done.stderr
    assert "\nred through the product, " in done.stdout
    assert "| event photos, human boxes: AP of faces from 8 / 16 / 32 px on | 0.0 / 0.0 / 0.0 |" in done.stdout


def test_a_daemon_that_does_not_start_is_quoted(packs: Path) -> None:
    config = packs / "mine.yaml"
    config.write_text("models: {detector: none-such}\n")
    done = run("--data", packs, "--leave-out", packs / "none.txt", "--config", config)
    assert done.returncode == 2
    assert "the daemon does not start, exit code 2; its last lines:\n  models.detector: " in done.stderr
    assert "Traceback" not in done.stderr


def daemons(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if "visaged.daemon" in child.cmdline()]


def test_no_daemon_is_left_behind(packs: Path) -> None:
    with Product() as product:
        (daemon,) = daemons(psutil.Process())
        with pytest.raises(ProductError, match="a text: the daemon answers 415"):
            product.ask(b"no picture", "a text")
        daemon.kill()
        daemon.wait(PATIENCE_S)
        with pytest.raises(ProductError, match=r"the daemon gave no answer to POST .*; its last lines:"):
            product.ask(b"no picture", "a text")
    options = ["--data", str(packs), "--leave-out", str(packs / "none.txt")]
    with ManagedProcess([*COMMAND, *options]) as command:
        command.wait_for_line("through the product", PATIENCE_S)
        (daemon,) = daemons(psutil.Process(command.pid))
        command.send(signal.SIGTERM)
        assert command.wait(PATIENCE_S) == 128 + signal.SIGTERM
    assert not daemon.is_running()
