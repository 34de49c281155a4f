"""A live stream that is held up once and stays late: its faces are there all the time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.support.broker import free_port
from tests.support.late_camera import LateCamera
from tests.support.odd_servers import http_server
from tests.support.outputs import Collector
from tests.support.waiting import until
from tests.unit import fakes
from visaged.daemon.app import Daemon
from visaged.daemon.settings import parse
from visaged.pipelines.outputs.messages import Message

pytestmark = pytest.mark.timed

PATIENCE_S = 60.0
HOLD_S = 3.5  # more than the two seconds for which a face may be out of sight
# After the faces were seen. Before, the age of a stream is not known yet: what is held up then seems to go on in time.
HELD_AFTER_S = 4.0
SHOWN_AFTER_S = 8.0


class TimedEvents(Collector):
    """Keeps every event, and the monotonic seconds at which those of a camera came."""

    def __init__(self) -> None:
        super().__init__(kinds=("events",))
        self.came_s: dict[str, list[float]] = defaultdict(list)

    def offer(self, message: Message) -> None:
        self.came_s[message.camera].append(time.monotonic())
        super().offer(message)

    def kinds_seen(self, camera: str) -> list[str]:
        return [event["event"] for event in self.of("events", camera)]


@pytest.fixture
def camera() -> Iterator[LateCamera]:
    picture = fakes.demo_image(fakes.TWO_FACES_S)[:, :640, ::-1]  # one of the two faces; RGB
    camera = LateCamera(picture, HOLD_S, SHOWN_AFTER_S)
    yield camera
    camera.stopping.set()


def test_one_still_face_is_one_track_and_ends_when_the_camera_falls_silent(camera: LateCamera) -> None:
    rates = {"door": 5.0, "yard": 0.5}
    output = TimedEvents()
    with http_server(camera) as url:
        settings = parse(
            {
                "http": {"port": 0},
                "mqtt": {"port": free_port()},
                # Little to compute, and a busy machine may not look less often: the stall would seem longer by that.
                "models": {"analyzer": None},
                "inference": {"workers": 1, "long_side": 320},
                "overload": {"shed": False},
                "cameras": [{"name": name, "url": url, "fps": fps, "read_timeout_s": 8} for name, fps in rates.items()],
            }
        )
        daemon = Daemon(settings, "test", outputs=[output])
        code: Future[int] = fakes.Threads().submit(daemon.run)

        def all_had(kind: str) -> bool:
            return code.done() or all(kind in output.kinds_seen(name) for name in rates)

        try:
            until(lambda: all_had("begin"), PATIENCE_S)
            camera.stopping.wait(HELD_AFTER_S)
            camera.held.set()
            until(lambda: all_had("end"), PATIENCE_S)
        finally:
            daemon.stop()
            camera.stopping.set()
        assert code.result(PATIENCE_S) == 0
    for name, fps in rates.items():
        kinds, came_s = output.kinds_seen(name), output.came_s[name]
        assert [kind for kind in kinds if kind != "update"] == ["begin", "end"]
        end = output.of("events", name)[-1]
        assert end["reason"] == "lost"
        assert end["duration_s"] > HELD_AFTER_S + SHOWN_AFTER_S - 1.0 - 1 / fps, "it did not end in the stall"
        assert 2.0 < came_s[-1] - camera.silent_since_s < 8.0 + 2.5 / fps
