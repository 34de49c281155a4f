"""Which of a camera's own capture times are believed."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest

from visaged.pipelines.source.times.camera_clock import CameraClock
from visaged.pipelines.source.times.timeline import Timeline

START, NOON = 5_000.0, 1_763_712_000.0


class FakePacket:
    """What `CameraClock` reads of a packet: its stamp in 1/90000 s and the camera's clock by its newest report."""

    def __init__(self, position_s: float, clock_s: float | None) -> None:
        self.pts, self.time_base = round(position_s * 90_000), 1 / 90_000
        self._clock_s = clock_s

    def has_sidedata(self, kind: str) -> bool:
        return kind == "prft" and self._clock_s is not None

    def get_sidedata(self, kind: str) -> bytes:
        assert kind == "prft"
        assert self._clock_s is not None
        return struct.pack("=qi4x", round(self._clock_s * 1e6), 24)


class Streaming:
    """One connection to a camera whose clock is `wrong_s` ahead; its frames come `delay_s` after their capture."""

    def __init__(self) -> None:
        self.wrong_s = self.delay_s = 0.0
        self.clock = CameraClock("door")
        self.clock.begin(START)
        self._timeline = Timeline()

    def ages(self, times: Iterable[float], *, reports: bool = True) -> list[float | None]:
        """Return each frame's age when it arrives by the camera's clock; None where that is not believed."""
        found: list[float | None] = []
        for time in times:
            arrived_s = START + time + self.delay_s
            packet = FakePacket(time, NOON + time + self.wrong_s if reports else None)
            self.clock.report(packet, round((NOON + self.wrong_s) * 1e6))  # type: ignore[arg-type]
            motion_s = self._timeline.capture(time, arrived_s)
            captured_at = self.clock.captured_at(time, motion_s, arrived_s, NOON - START)
            found.append(None if captured_at is None else NOON + arrived_s - START - captured_at)
        return found


def seconds(begin: float, end: float) -> list[float]:
    return [begin + index / 25 for index in range(round((end - begin) * 25))]


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("wrong_s", [0.0, 0.3, -0.3])
def test_a_clock_that_is_nearly_right_is_believed(
    wrong_s: float, delay_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    streaming = Streaming()
    streaming.wrong_s, streaming.delay_s = wrong_s, delay_s
    assert streaming.ages(seconds(0, 10)) == pytest.approx([delay_s - wrong_s] * 250, abs=0.001)
    assert not caplog.records


@pytest.mark.parametrize(
    ("wrong_s", "words"),
    [(-30, "30.1 s behind"), (-3600, "3600.1 s behind"), (-1.2, "1.3 s behind"), (30, "29.9 s ahead of"),
     (0.8, "0.7 s ahead of")],
)  # fmt: skip
def test_a_wrong_clock_is_not_believed_in_either_direction(
    wrong_s: float, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    streaming = Streaming()
    streaming.wrong_s, streaming.delay_s = wrong_s, 0.1
    assert set(streaming.ages(seconds(0, 60))) == {None}
    assert [record.message for record in caplog.records] == [
        f"camera door: its clock is {words} this machine's, taking arrival times instead; "
        "let both follow the same NTP server"
    ]


def test_a_late_stream_is_no_wrong_clock(caplog: pytest.LogCaptureFixture) -> None:
    streaming = Streaming()
    streaming.ages(seconds(0, 10))
    streaming.delay_s = 3.5
    assert streaming.ages(seconds(10, 60)) == pytest.approx([3.5] * 1250, abs=0.001)
    assert not caplog.records


def test_frames_that_waited_while_the_connection_was_opened_are_as_old_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three seconds of probing, then all at once."""
    clock, timeline = CameraClock("door"), Timeline()
    clock.begin(START)
    for time in seconds(0, 3):
        arrived_s = START + 3.0 + time / 100
        clock.report(FakePacket(time, NOON + time), None)  # type: ignore[arg-type]
        assert clock.captured_at(time, timeline.capture(time, arrived_s), arrived_s, NOON - START) is not None
    assert not caplog.records


def test_the_clock_is_read_again() -> None:
    """It drifts against the stamps, and is set by NTP."""
    streaming = Streaming()
    streaming.ages(seconds(0, 5))
    streaming.wrong_s = -0.2
    assert streaming.ages(seconds(5, 6))[-1] == pytest.approx(0.2, abs=0.001)
    streaming.wrong_s = -60.0
    assert streaming.ages(seconds(6, 7))[-1] is None
    streaming.wrong_s = 0.0
    assert streaming.ages(seconds(7, 8))[-1] == pytest.approx(0.0, abs=0.001)


def test_without_reports_in_packets_the_containers_start_counts() -> None:
    assert Streaming().ages(seconds(0, 1), reports=False) == pytest.approx([0.0] * 25, abs=0.001)


def test_a_camera_without_a_clock() -> None:
    clock = CameraClock("door")
    clock.begin(START)
    clock.report(FakePacket(0.0, None), None)  # type: ignore[arg-type]
    assert clock.captured_at(0.0, START, START, NOON - START) is None
