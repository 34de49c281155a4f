"""The order of the faults: two lanes for each daemon, one for its broker, its disk and itself, one for its cameras."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from tests.chaos.cameras import KILLS
from tests.chaos.mosquitto import Mosquitto
from tests.chaos.recorder import RecordingBroker
from tests.chaos.subject import Subject

# A deck of cards holds as many of each kind; half of what is to be reached, for there are two daemons.
_DECK = {"broker": 25, "kill": 5, "away": 3, "disk": 2, "freeze": 2, "clock": 2, "term": 1, "damage": 1, "absence": 1}
_LONG = {"absence"}  # takes a minute and more, and so comes in long runs alone
_CAMERA = {"dies": 12, "hangs up": 13, "stalls": 3, "resizes": 3, "floods": 2, "garbles": 2, "is mute": 1, "freezes": 1}
KINDS = (*_DECK, "camera")
_CAMERA_KILLS, _BROKER_KILLS = frozenset(KILLS), frozenset({"is killed", "ends in order"})
_RECOVERY_S = 60.0
_ABSENCE_S, _ABSENT_EVENTS = 90.0, 600  # more events than the daemon keeps at hand
_CAMERA_REST_S = (5.0, 6.5)  # a camera that was well for five seconds is tried again soon


class Campaign:
    """The faults of one daemon.

    Args:
        subject: The daemon, not started.
        broker: Its broker.
        seed: Of all chance.
        kinds: Kinds of faults.
        long: Whether there is time for those that take a minute.

    Attributes:
        counts: Faults by kind and name.
        recoveries: Seconds from the end of a fault to the first message after it, by kind.
        failures: What did not come back, and what went wrong.
    """

    def __init__(
        self, subject: Subject, broker: RecordingBroker | Mosquitto, seed: str, kinds: set[str], long: bool
    ) -> None:
        self.subject, self.broker = subject, broker
        self.counts: Counter[tuple[str, str]] = Counter()
        self.recoveries: dict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []
        self._kinds = kinds if long else kinds - _LONG
        self._seed = seed
        self._stopping = threading.Event()
        self._calm_since_s: float | None = None  # since when the other lane does nothing; None while it does
        lanes = {"main": self._main_lane, "cameras": self._camera_lane}
        self._threads = [
            threading.Thread(target=self._guard, args=(lane,), name=f"{subject.node} {name}", daemon=True)
            for name, lane in lanes.items()
        ]

    def launch(self) -> None:
        """Start the daemon."""
        self._launched_s = self.subject.start()

    def start(self) -> None:
        """Wait for the daemon's frames, then begin."""
        self._wait_for_frames(self._launched_s)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let no more faults begin."""
        self._stopping.set()

    def settle(self) -> None:
        """Wait for the last faults to end and for what waits to be delivered, then end the daemon."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(2 * _RECOVERY_S + _ABSENCE_S)
        if not self.subject.process.is_running:
            self.failures.append("the daemon does not run at the end")
            return
        self._wait_for_backlog()
        self.subject.end()
        self.broker.settle()

    def _guard(self, lane: Callable[[], None]) -> None:
        try:
            lane()
        except Exception as error:  # a fault of the harness must not pass for a quiet run
            self.failures.append(f"{threading.current_thread().name}: {type(error).__name__}: {error}")

    def _main_lane(self) -> None:
        rng = random.Random(f"{self._seed} main")
        acts = {
            "broker": self._hit_broker,
            "kill": self._kill,
            "away": self._end_without_broker,
            "term": self._end_with_broker,
            "freeze": self._freeze,
            "disk": self._fill_disk,
            "clock": self._shift_clock,
            "damage": self._damage,
            "absence": self._stay_away,
        }
        for kind in self._cards(rng):
            self._calm_since_s = time.monotonic()
            if self._stopping.wait(rng.choice((rng.uniform(0.3, 1.5), rng.uniform(2.0, 4.0)))):
                return
            self._calm_since_s = None
            name, after_s = acts[kind](rng)
            is_kill = kind == "broker" and (name.startswith("dies") or name in _BROKER_KILLS)
            self._recovered("broker killed" if is_kill else kind, name, None, after_s)

    def _camera_lane(self) -> None:
        rng = random.Random(f"{self._seed} cameras")
        if "camera" not in self._kinds:
            return
        while not self._stopping.wait(rng.uniform(*_CAMERA_REST_S)):
            camera = rng.choice(self.subject.cameras)
            faults = camera.faults
            (name,) = rng.choices(list(faults), [_CAMERA[name] for name in faults])
            faults[name](rng)
            self._recovered("camera killed" if name in _CAMERA_KILLS else "camera", name, camera.name, time.monotonic())

    def _cards(self, rng: random.Random) -> Iterator[str]:
        """Yield kinds without end: first each of them once, then the rest of a deck, then whole decks."""
        deck = {kind: count for kind, count in _DECK.items() if kind in self._kinds and self._can(kind)}
        once, first = list(deck), True
        while deck:
            cards = [kind for kind, count in deck.items() for _ in range(count - first)]
            rng.shuffle(cards)
            if first:
                rng.shuffle(once)
                cards = once + cards
            first = False
            yield from cards

    def _can(self, kind: str) -> bool:
        return {"disk": self.subject.disk, "clock": self.subject.clock}.get(kind, True) is not None

    def _recovered(self, kind: str, name: str, camera: str | None, after_s: float) -> None:
        """Count a fault and wait until messages come again; the time counts if nothing else was wrong meanwhile."""
        self.counts[kind, name] += 1
        most_s = _RECOVERY_S if camera is None else _RECOVERY_S + _ABSENCE_S  # the broker may be away
        came_s = self.subject.record.wait_for(camera, after_s, most_s)
        calm_s = self._calm_since_s
        if came_s is None:
            self.failures.append(f"{kind}, {name}: nothing came within {most_s:g} s")
        elif camera is None or (calm_s is not None and calm_s < after_s):
            self.recoveries[kind].append(came_s - after_s)

    def _start(self) -> float:
        began_s = self.subject.start()
        self._wait_for_frames(began_s)
        return began_s

    def _wait_for_frames(self, began_s: float) -> None:
        self.subject.wait_until_up()
        if self.subject.record.wait_for(self.subject.cameras[0].name, began_s, _RECOVERY_S) is None:
            raise AssertionError(f"no frames within {_RECOVERY_S:g} s of the start")

    def _hit_broker(self, rng: random.Random) -> tuple[str, float]:
        faults = self.broker.faults
        name = rng.choice(list(faults))
        faults[name](rng)
        return name, time.monotonic()

    def _kill(self, rng: random.Random) -> tuple[str, float]:
        name = rng.choice(("plain", "broker away", "broker just back", "while it starts"))
        if name.startswith("broker"):
            self.broker.down()
            time.sleep(rng.uniform(0.5, 3.0))
        if name == "broker just back":
            self.broker.up()
            time.sleep(rng.uniform(0.0, 1.5))
        self.subject.kill()
        if name == "while it starts":
            self.subject.start()
            time.sleep(rng.uniform(0.2, 4.0))
            self.subject.kill()
        began_s = self.subject.start()
        if name == "broker away":
            time.sleep(rng.uniform(0.0, 4.0))
            self.broker.up()
        self.subject.wait_until_up()
        return name, began_s

    def _end_without_broker(self, rng: random.Random) -> tuple[str, float]:
        self.broker.down()
        time.sleep(rng.uniform(0.5, 3.0))
        self.subject.end()
        late = rng.random() < 0.5
        if not late:
            self.broker.up()
        began_s = self.subject.start()
        self.subject.wait_until_up()
        if late:
            self.broker.up()
        return "TERM, broker away", began_s

    def _end_with_broker(self, rng: random.Random) -> tuple[str, float]:
        self.subject.end()
        return "TERM", self._start()

    def _stay_away(self, rng: random.Random) -> tuple[str, float]:
        """Have the broker away for so long that most events are on disk alone, and kill the daemon meanwhile."""
        self.broker.down()
        end_s = time.monotonic() + _ABSENCE_S
        while (self.subject.metric("spool_events") or 0.0) < _ABSENT_EVENTS and time.monotonic() < end_s:
            time.sleep(1.0)
        self.subject.kill()
        began_s = self.subject.start()
        self.subject.wait_until_up()
        time.sleep(rng.uniform(0.0, 5.0))
        self.broker.up()
        return "broker away for long, kill -9", began_s

    def _freeze(self, rng: random.Random) -> tuple[str, float]:
        self.subject.process.freeze()
        time.sleep(rng.uniform(0.5, 12.0))
        self.subject.process.thaw()
        return "STOP, CONT", time.monotonic()

    def _fill_disk(self, rng: random.Random) -> tuple[str, float]:
        disk = self.subject.disk
        assert disk is not None
        disk.fill()
        away = rng.random() < 0.5
        if away:
            self.broker.down()
        time.sleep(rng.uniform(1.5, 4.0))
        if away:
            self.broker.up()
        disk.free()
        freed_s = time.monotonic()
        # Until the daemon has healed, its events are in memory alone, and a kill would lose them.
        while self.subject.metric("spool_writable") == 0.0:
            if time.monotonic() > freed_s + _RECOVERY_S:
                self.failures.append(f"disk: the spool does not heal within {_RECOVERY_S:g} s")
                break
            time.sleep(0.2)
        self._wait_for_backlog()
        return "full, broker away" if away else "full", freed_s

    def _shift_clock(self, rng: random.Random) -> tuple[str, float]:
        hours = rng.choice((-30, -2, 2, 30))
        self.subject.shift_clock(3600 * hours)
        time.sleep(rng.uniform(1.5, 3.0))
        return f"{hours:+d} h", time.monotonic()

    def _damage(self, rng: random.Random) -> tuple[str, float]:
        """Overwrite a part of the database after an orderly end, when nothing is in it that could be lost."""
        self._wait_for_backlog()
        self.subject.end()
        for path in self.subject.state.glob("spool.sqlite3*"):
            content = bytearray(path.read_bytes())
            for _ in range(20 if content else 0):
                at = rng.randrange(len(content))
                content[at : at + 50] = rng.randbytes(len(content[at : at + 50]))
            path.write_bytes(content)
        return "database overwritten", self._start()

    def _wait_for_backlog(self) -> None:
        """Wait until little waits: what was just composed may always be on its way."""
        end_s = time.monotonic() + _RECOVERY_S
        while (self.subject.metric("output_waiting", kind="events") or 0.0) > 3.0:
            if time.monotonic() > end_s:
                self.failures.append(f"events still wait {_RECOVERY_S:g} s after everything is well")
                return
            time.sleep(0.1)
