"""Fuzzes several targets in turn, with one daemon for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.fuzz.campaign import Campaign, Report, Target
from tests.fuzz.kept import load
from tests.fuzz.oracle import Bounds, NoSubject, Oracle
from tests.fuzz.subject import SECRETS, FuzzedDaemon
from tests.fuzz.targets.http import HttpTarget
from tests.fuzz.targets.kit import KitTarget
from tests.fuzz.targets.mqtt import MqttTarget
from tests.fuzz.targets.oss import OssTarget
from tests.fuzz.targets.pictures import PicturesTarget
from tests.fuzz.targets.settings import SettingsTarget

OF_A_DAEMON: dict[str, Callable[[FuzzedDaemon], Target]] = {
    target.name: target for target in (HttpTarget, KitTarget, OssTarget, MqttTarget, PicturesTarget)
}
TARGETS = (*OF_A_DAEMON, SettingsTarget.name)


class Session:
    """Makes campaigns.

    Args:
        folder: For the daemon's files.
        seed: Of all campaigns.
        bounds: What is still well.
    """

    def __init__(self, folder: Path, seed: int = 1, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - frozen
        self._folder, self._seed, self._bounds = folder, seed, bounds
        self._stack = contextlib.ExitStack()
        self._daemon: FuzzedDaemon | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def campaign(self, name: str) -> Campaign:
        """Return a campaign against a target; the first against a daemon starts it."""
        if name == SettingsTarget.name:
            target = SettingsTarget()
            self._stack.callback(target.stop)
            return Campaign(target, Oracle(NoSubject(), self._bounds), load(name), self._seed, target.stop)
        daemon = self._started()
        oracle = Oracle(daemon, self._bounds, SECRETS)
        return Campaign(OF_A_DAEMON[name](daemon), oracle, load(name), self._seed, daemon.restart)

    def run(self, names: Sequence[str], seconds: float) -> Iterator[Report]:
        """Fuzz targets for a share of the time each, and yield how it went."""
        for name in names:
            yield self.campaign(name).run(seconds / len(names))

    def _started(self) -> FuzzedDaemon:
        if self._daemon is None:
            self._daemon = self._stack.enter_context(FuzzedDaemon(self._folder))
        return self._daemon
