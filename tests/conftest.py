"""Fixtures for all tests. The parts themselves are in tests/support."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import media
from tests.support.broker import MosquittoBroker
from tests.support.requirements import MARK, MOSQUITTO, RTSP_SERVER, require
from tests.support.rtsp import RtspServer

DEMO_CLIP = Path(__file__).parents[1] / "daemon" / "demo" / "demo.mp4"

BrokerFactory = Callable[..., MosquittoBroker]


def pytest_configure(config: pytest.Config) -> None:
    # What daemons keep about cameras by default is nobody's own; module constants copy the environment on import.
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="visaged-tests-")
    os.environ.pop("STATE_DIRECTORY", None)
    config.addinivalue_line("markers", f"{MARK}(*parts): the system parts the test needs; see tests/support")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers(MARK):
        require(*mark.args)


@pytest.fixture(scope="session")
def media_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for media files that several tests share."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def demo_clip(media_dir: Path) -> Path:
    """The bundled clip of faces; a generated one, without faces, in a tree that lacks it."""
    if DEMO_CLIP.exists():
        return DEMO_CLIP
    return media.write_video(media_dir / "demo.mp4", size=(1280, 720), seconds=10, gop=50)


@pytest.fixture(scope="session")
def rtsp_process(demo_clip: Path) -> Iterator[RtspServer]:
    """The one test camera of the run. Tests take `rtsp_server`."""
    require(RTSP_SERVER)
    with RtspServer(demo_clip) as server:
        yield server


@pytest.fixture
def rtsp_server(rtsp_process: RtspServer) -> Iterator[RtspServer]:
    """The test camera with no faults on and no clients; it comes back on the same port if a test killed it."""
    if rtsp_process.is_running:
        rtsp_process.process.thaw()
        rtsp_process.reset()
    else:
        rtsp_process.start()
    yield rtsp_process
    if rtsp_process.is_running:
        rtsp_process.process.thaw()
        rtsp_process.reset()


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[BrokerFactory]:
    """Starts brokers with the options of `MosquittoBroker`; all end with the test."""
    require(MOSQUITTO)
    brokers: list[MosquittoBroker] = []

    def make(**options: Any) -> MosquittoBroker:
        broker = MosquittoBroker(tmp_path / f"broker{len(brokers)}", **options)
        brokers.append(broker)
        return broker.start()

    yield make
    for broker in brokers:
        broker.stop()


@pytest.fixture
def broker(make_broker: BrokerFactory) -> MosquittoBroker:
    """A broker of the test's own: no login, no TLS, nothing kept on disk."""
    return make_broker()
