"""What is handed to several outputs, some of which are slow or broken."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from tests.support.messages import event, result, status
from tests.support.outputs import Collector
from tests.support.waiting import until
from visaged.pipelines.outputs.fan_out import FanOut
from visaged.pipelines.outputs.messages import Composer, Message
from visaged.pipelines.outputs.output import FrameSink
from visaged.pipelines.records import FrameResult
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker

WAIT_S = 30.0


class Broken(Collector):
    """Raises for one camera."""

    def __init__(self, camera: str) -> None:
        super().__init__("broken")
        self._camera = camera

    def offer(self, message: Message) -> None:
        if message.camera == self._camera:
            raise RuntimeError("no such camera here")
        super().offer(message)

    def forget(self, camera: str) -> None:
        raise RuntimeError("no such camera here")


class Fan:
    """A fan-out whose thread the test starts."""

    def __init__(self, *outputs: Collector, sinks: tuple[FrameSink, ...] = (), most: int = 500) -> None:
        self.metrics = Metrics(CollectorRegistry())
        composer = Composer("node", 1)
        self.out = FanOut(composer, outputs, self.metrics, sinks, most_results=most, most_events=most)
        self.deaths: list[BaseException] = []
        self.worker = Worker("fan-out", self.out.run, lambda name, error: self.deaths.append(error))

    def finish(self) -> None:
        """Starts the thread and waits until everything is handed over."""
        self.worker.stop()
        self.worker.start()
        assert self.worker.join(WAIT_S)
        assert not self.deaths

    def lost(self) -> dict[tuple[str, str, str], float]:
        return {
            (sample.labels["output"], sample.labels["kind"], sample.labels["cause"]): sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "visaged_output_lost_total"
        }


def test_every_output_gets_the_same_object_of_the_kinds_that_it_takes() -> None:
    everything, events = Collector("one"), Collector("two", ("events",))
    fan = Fan(everything, events)
    fan.out.submit(result(events=[event(1), event(2)]))
    fan.out.submit_event(event(3, "yard"))
    fan.out.submit_status(status())
    fan.finish()
    assert [m.kind for m in everything.messages] == ["status", "events", "events", "events", "faces"]
    mine = [m for m in everything.messages if m.kind == "events"]
    assert len(mine) == len(events.messages) == 3
    assert all(a is b for a, b in zip(mine, events.messages, strict=True))
    assert [(d["camera"], d["seq"], d["track_id"]) for d in events.of("events")] == [
        ("door", 1, 1),
        ("door", 2, 2),
        ("yard", 1, 3),
    ]
    assert fan.lost() == {}


def test_what_no_output_takes_is_not_composed() -> None:
    events = Collector("events", ("events",))
    fan = Fan(events)
    fan.out.submit(dataclasses.replace(result(events=[event()]), faces=None))  # type: ignore[arg-type]
    fan.finish()
    assert len(events.messages) == 1
    assert fan.lost() == {}


def test_an_output_that_raises_for_one_camera_costs_nobody_else_anything(caplog: pytest.LogCaptureFixture) -> None:
    broken, good = Broken("a"), Collector("good")
    fan = Fan(broken, good)
    for number in range(1, 11):
        fan.out.submit(result("a", events=[event(number, "a")]))
        fan.out.submit(result("b", events=[event(number, "b")]))
    fan.finish()
    assert [d["seq"] for d in broken.of("faces")] == list(range(1, 11))
    assert {d["camera"] for d in broken.of("faces") + broken.of("events")} == {"b"}
    for camera in ("a", "b"):
        assert [d["seq"] for d in good.of("faces", camera)] == list(range(1, 11))
        assert [d["track_id"] for d in good.of("events", camera)] == list(range(1, 11))
    assert fan.lost() == {("broken", "faces", "failed"): 10, ("broken", "events", "failed"): 10}
    said = [line for line in caplog.messages if "output broken failed" in line]
    assert said == ["output broken failed: RuntimeError: no such camera here"]


def test_what_cannot_be_composed_is_lost_for_every_output_that_wanted_it() -> None:
    one, two = Collector("one"), Collector("two", ("events",))
    fan = Fan(one, two)
    fan.out.submit(dataclasses.replace(result(), started_s=None))  # type: ignore[arg-type]
    fan.out.submit_event(dataclasses.replace(event(), duration_s=None))  # type: ignore[arg-type]
    fan.out.submit_status(status(error="\udcff"))
    fan.out.submit(result(events=[event()]))
    fan.finish()
    assert [m.kind for m in one.messages] == ["events", "faces"]
    assert fan.lost() == {
        ("one", "faces", "failed"): 1,
        ("one", "events", "failed"): 1,
        ("two", "events", "failed"): 1,
        ("one", "status", "failed"): 1,
    }


@pytest.fixture
def stuck() -> Iterator[tuple[Fan, threading.Event]]:
    """A fan-out at work whose output hangs until an event is set."""
    go_on, reached = threading.Event(), threading.Event()

    class Stuck(Collector):
        def offer(self, message: Message) -> None:
            reached.set()
            assert go_on.wait(WAIT_S)
            super().offer(message)

    fan = Fan(Stuck("stuck"), most=5)
    fan.worker.start()
    fan.out.submit_status(status())
    assert reached.wait(WAIT_S)
    yield fan, go_on
    go_on.set()
    fan.worker.stop()
    assert fan.worker.join(WAIT_S)


def test_a_hanging_output_blocks_nobody_and_the_queues_are_bounded(stuck: tuple[Fan, threading.Event]) -> None:
    fan, go_on = stuck
    for number in range(100):
        fan.out.submit(result(events=[event(number)]))
    for number in range(100, 200):
        fan.out.submit_event(event(number))
    assert fan.lost() == {("stuck", "faces", "busy"): 95, ("stuck", "events", "busy"): 195}
    go_on.set()
    (output,) = fan.out._outputs
    assert isinstance(output, Collector)
    until(lambda: len(output.messages) == 11, WAIT_S)
    assert [d["track_id"] for d in output.of("events")] == [195, 196, 197, 198, 199]


def test_only_the_newest_status_counts_and_a_removed_camera_is_forgotten() -> None:
    broken, good = Broken("none"), Collector("good")
    fan = Fan(broken, good)
    fan.out.submit_status(status("door", "waiting"))
    fan.out.submit_status(status("yard"))
    fan.out.submit_status(status("door", "streaming"))
    fan.out.forget("yard")
    fan.finish()
    assert [(d["camera"], d["state"]) for d in good.of("status")] == [("door", "streaming")]
    assert good.forgotten == ["yard"]


def test_sinks_get_the_pixels_in_the_submitting_thread(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[FrameResult, threading.Thread]] = []

    def fails(one: FrameResult) -> None:
        raise RuntimeError("no screen")

    caplog.set_level(logging.WARNING)
    output = Collector()
    fan = Fan(output, sinks=(fails, lambda one: seen.append((one, threading.current_thread()))))
    results = [result(), result("yard")]
    for one in results:
        fan.out.submit(one)
    assert [one is two for (one, _), two in zip(seen, results, strict=True)] == [True, True]
    assert {thread for _, thread in seen} == {threading.current_thread()}
    fan.finish()
    assert len(output.of("faces")) == 2
    assert fan.lost() == {("sink", "frames", "failed"): 2}
    assert "a frame sink failed: RuntimeError: no screen" in caplog.messages


def test_a_camera_is_forgotten_after_its_last_messages() -> None:
    seen: list[str] = []

    class Order(Collector):
        def offer(self, message: Message) -> None:
            seen.append(message.kind)

        def forget(self, camera: str) -> None:
            seen.append("forgotten")

    fan = Fan(Order())
    fan.out.submit(result("door"))
    fan.out.submit_event(event(1, "door"))
    fan.out.forget("door")
    fan.finish()
    assert seen == ["events", "faces", "forgotten"]


def test_a_late_message_of_a_camera_that_is_gone_brings_no_series_back() -> None:
    metrics = Metrics(CollectorRegistry())
    counters = metrics.camera("door")
    metrics.observe_age("door", 0.1)
    counters.forget()
    metrics.observe_age("door", 0.1)
    counters.dropped("overtaken")
    names = [s.labels.get("camera") for family in metrics.registry.collect() for s in family.samples]
    assert "door" not in names
    metrics.camera("door")
    metrics.observe_age("door", 0.2)
    assert metrics.registry.get_sample_value("visaged_result_age_seconds_count", {"camera": "door"}) == 1
