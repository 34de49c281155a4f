"""`visaged models` as its user has it: lists, cards, hashes, times."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.support import tiny_networks
from visaged.daemon.cli.main import app
from visaged.models.manifest import WEIGHTS, Manifest

OWN = [entry.name for entry in Manifest().entries]


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["models", *map(str, arguments)], env={"COLUMNS": "200", "NO_COLOR": "1"})


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "name": "red",
        "task": "detector",
        "file": "red.onnx",
        "input": {"name": "in", "layout": "NCHW", "dtype": "float32"},
        "decoder": "yunet",
        "strides": [8, 16, 32],
        "accuracy": {"red_squares_percent": 100},
    } | changes


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A manifest with one detector of another make."""
    tiny_networks.detector(tmp_path / "red.onnx", "yunet")
    return tiny_networks.manifest(tmp_path, entry())


def test_the_list_names_them_all() -> None:
    done = invoke("list")
    assert done.exit_code == 0
    for name in OWN:
        assert re.search(rf"{name} .*(detector|analyzer) .*Apache-2\.0", done.stdout)
    assert "boxes, 5 points" in done.stdout
    assert "emotion" in done.stdout


def test_the_card_is_printed_as_it_is(foreign: Path) -> None:
    with_card = next(entry for entry in Manifest().entries if entry.card)
    done = invoke("show", with_card.name)
    assert (done.exit_code, done.stdout) == (0, (WEIGHTS / str(with_card.card)).read_text())
    done = invoke("show", "red", "--manifest", foreign)
    assert "red_squares_percent: 100" in done.stdout


def test_every_shipped_network_has_a_card_that_tells_its_terms() -> None:
    for entry in Manifest().entries:
        assert entry.card is not None, entry.name
        text = (WEIGHTS / entry.card).read_text()
        assert entry.sha256 in text
        assert re.search(r"(?im)^##.*not for", text)
        assert re.search(r"(?i)known failures", text)


def test_verify_tells_whole_from_damaged(tmp_path: Path, foreign: Path) -> None:
    assert invoke("verify").stdout.count(": whole") == len(OWN)
    assert invoke("verify", "red", "--manifest", foreign).exit_code == 0
    assert "red: whole" in invoke("verify", "red", "--manifest", foreign, "--provider", "openvino").stdout
    with (tmp_path / "red.onnx").open("ab") as file:
        file.write(b"x")
    done = invoke("verify", "--manifest", foreign)
    assert done.exit_code == 3
    assert re.search(r"red\.onnx, has sha256 .* but the manifest says", done.stderr)
    (tmp_path / "red.onnx").unlink()
    done = invoke("verify", "--manifest", foreign)
    assert (done.exit_code, "No such file" in done.stderr) == (3, True)


def test_verify_finds_what_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "red.onnx").write_bytes(b"no network")
    done = invoke("verify", "--manifest", tiny_networks.manifest(tmp_path, entry()))
    assert done.exit_code == 3
    assert "cannot be loaded as a network" in done.stderr


def test_bench_times_what_it_is_asked_for(foreign: Path) -> None:
    asked = ("--manifest", foreign, "--seconds", "0.1", "--long-side", "320")
    done = invoke("bench", "red", "--provider", "cpu", *asked)
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("red")]
    assert [line[1:4] for line in lines] == [["cpu", "320x192", "1"], ["cpu", "320x192", "8"]]
    for line in lines:
        median, fastest, rate = map(float, line[4:])
        assert 0 < fastest <= median
        assert rate == pytest.approx(1000 / median, rel=0.2, abs=1)
    done = invoke("bench", "red", "--provider", "openvino", "--precision", "float32", *asked)
    assert done.stdout.count("openvino") == done.stdout.count("float32") == 2  # a narrow table breaks the line
    done = invoke("bench", "red", "--provider", "cpu", "--precision", "bfloat16", *asked)
    assert (done.exit_code, "bfloat16 is OpenVINO's alone" in done.stderr) == (3, True)


@pytest.mark.parametrize("command", ["show", "verify", "bench"])
def test_unknown_names_are_told_which_there_are(command: str) -> None:
    done = invoke(command, "nobody")
    assert done.exit_code == 2
    assert "no network named 'nobody'" in done.stderr
    assert OWN[0] in done.stderr


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    assert "cannot read the model manifest" in invoke("list", "--manifest", tmp_path / "gone.yaml").stderr
    (tmp_path / "bad.yaml").write_text("models: [{name: x}]")
    done = invoke("list", "--manifest", tmp_path / "bad.yaml")
    assert done.exit_code == 2
    assert "is wrong: models.0" in done.stderr


def test_a_card_that_is_gone(tmp_path: Path, foreign: Path) -> None:
    path = tiny_networks.manifest(tmp_path, entry(card="red.md"))
    done = invoke("show", "red", "--manifest", path)
    assert done.exit_code == 2
    assert "red.md, cannot be read: No such file" in done.stderr


def test_a_copy_of_the_package_s_folder_works_as_well(tmp_path: Path) -> None:
    copy = tmp_path / "weights"
    shutil.copytree(WEIGHTS, copy)
    assert invoke("verify", "--manifest", copy / "manifest.yaml").exit_code == 0
