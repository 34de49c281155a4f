"""A short run of everything that fails; `python -m tests.chaos` is the long one."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil

from tests.support.process import ManagedProcess
from tests.support.requirements import FAKETIME, MOSQUITTO, RTSP_SERVER, needs


@needs(MOSQUITTO, RTSP_SERVER, FAKETIME)
def test_nothing_is_lost() -> None:
    with ManagedProcess([sys.executable, "-m", "tests.chaos", "--minutes", "0.8", "--seed", "1"]) as run:
        status = run.wait(240.0)
        assert status == 0, "\n".join(run.lines)


@needs(MOSQUITTO)
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--only", "freeze,camera", "--folder", str(tmp_path / "kept")]
    with ManagedProcess(command) as run:
        run.wait_for_line("the faults begin", 120.0)
        children = psutil.Process(run.pid).children(recursive=True)
        assert children
        run.send(signal.SIGINT)
        assert run.wait(90.0) == 130, "\n".join(run.lines)
    assert not psutil.wait_procs(children, timeout=10.0)[1]
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
