"""The section on frames that stay on the GPU runs where there is none, and finds its path and the host's alike."""

from __future__ import annotations

from pathlib import Path

from tests.gpu.report import Options, Report, read
from tests.gpu.sections import frames
from tests.unit.fakes import DEMO
from visaged.models.device import Device
from visaged.models.graphs.check import checked_graphs
from visaged.models.session import SessionConfig


def test_the_section_runs_on_a_cpu(tmp_path: Path) -> None:
    options = Options("cpu", True, tmp_path, DEMO)
    graphs = checked_graphs(Device("cpu"), SessionConfig("cpu"))
    pixels = frames._pixels(DEMO, graphs, options, 1)
    assert pixels["frames"] == 1
    assert max(int(pixels[name]) for name in ("canvas differs at most", "crops", "pictures")) <= 3
    faces = frames._faces(graphs, options, 2)
    assert faces["faces"]
    assert float(faces["boxes differ at most, px"]) < 1
    report = Report(tmp_path / "rows.jsonl")
    frames._nodes(report, options)
    assert [row["name"] for row in read(tmp_path / "rows.jsonl")] == ["nodes: canvas", "nodes: picture", "nodes: crops"]
