"""A fleet on a Ray cluster of this machine, with a broker and a listener, for measurements."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.clip import ROOT
from tests.support.broker import MosquittoBroker
from tests.support.fleet import Account, Fleet, account, all_up
from tests.support.ray_cluster import RayCluster
from tests.support.subscriber import Message, Subscriber

CLIP = ROOT / "daemon/demo/demo.mp4"


@dataclass(frozen=True)
class Rig:
    """What runs."""

    cluster: RayCluster
    fleet: Fleet
    broker: MosquittoBroker
    subscriber: Subscriber

    def account(self) -> Account:
        """What all messages tell."""
        return account(self.subscriber.messages)

    def end(self) -> Account:
        """Stop the fleet, and return what all messages tell once every track has its end, or 10 s after."""
        self.fleet.command("stop")
        try:
            self.subscriber.wait_for_all(lambda all_: not account(all_).unended, 10)
        except AssertionError:
            pass  # the account tells which
        return self.account()


@contextmanager
def running(
    nodes: Sequence[str],
    cameras: int,
    fps: float | None,
    lease_s: float,
    settings: dict[str, Any] | None = None,
    cores: Sequence[int] | None = None,
) -> Iterator[Rig]:
    """Run a fleet whose cameras are the demo clip, until all stream and every node has one."""
    with tempfile.TemporaryDirectory(prefix="visaged-fleet-") as folder:
        broker = MosquittoBroker(Path(folder) / "broker")
        with RayCluster(nodes, cores) as cluster, broker, Subscriber(broker, "visaged/#") as subscriber:
            given = [{"name": f"cam{i}", "url": str(CLIP), "loop": True, "fps": fps} for i in range(cameras)]
            fleet = Fleet(cluster, broker, Path(folder), {name: {} for name in nodes}, given, lease_s, settings)
            fleet.run()
            fleet.wait_for(all_up, 120)
            yield Rig(cluster, fleet, broker, subscriber)


def is_frame(message: Message, camera: str, after_epoch: int) -> bool:
    """Whether a message tells of a camera's frame under an owner that came after the one of an epoch."""
    return message.topic == f"visaged/{camera}/faces" and message.json()["epoch"] > after_epoch


def distribution(values: Sequence[float]) -> str:
    """Return the spread of some times as text."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return (
        f"p50 {statistics.median(ordered):.1f} s, p95 {p95:.1f} s, max {ordered[-1]:.1f} s of {len(ordered)}: "
        + " ".join(f"{value:.1f}" for value in ordered)
    )


def told(found: Account) -> str:
    """Return an account as a line."""
    return (
        f"{found.events} events: {found.missing} missing, {len(found.interleaved)} interleaved, {len(found.unended)} "
        f"tracks without an end, {len(found.ended_twice)} with two, {len(found.ended_by_both)} ended by both owners; "
        f"{found.moved} ends told by a new owner, {found.replayed} events from a spool, "
        f"{found.late} messages of frames that were on their way"
    )
