"""When a camera rests, and what wakes it.

A camera without a track for `idle_after_s` is idle: of its packets, key frames alone are decoded, and those since the
last key frame with nothing in it are kept. What wakes it:

- something on a key frame that looks like a face and was not found there all the time,
- motion between two key frames,
- packets that have become much larger, if this camera's sizes have proved to tell,
- key frames too far apart to keep what lies between them.

The kept packets are then decoded at once, and analysed as if the camera had been awake, before it goes on live. Where
key frames follow each other closely, or every picture is one (MJPEG), one a second is looked at, or fewer if `fps` is
lower.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable

from visaged.models.types import Image
from visaged.pipelines.attention import Attention
from visaged.pipelines.records import Lookout, WakeCause
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.idle.kept import MOST_S, Arrival, Kept
from visaged.pipelines.source.idle.motion import Blocks
from visaged.pipelines.source.idle.sizes import Sizes

log = logging.getLogger(__name__)

_LEAST_LOOK_S = 1.0
# What lies between two looks is kept, so there must be one in time, however low `fps` is.
_MOST_LOOK_S = MOST_S / 4
_EARLY_S = 0.1  # by which a key frame may come early and still be looked at
# A key frame in which nothing moved since the detector saw nothing is not searched, for so long.
_SEARCH_S = 10.0
# Reading waits for a packet of this many seconds ago at least: what had piled up has been read.
_WAITED_S = 0.005
# Packets of an idle camera are read in bursts: to wake a thread for each costs four times what is done with them.
_REST_S = 0.2
# Catching up takes longer only if the machine cannot keep up, and frames are then dropped as usual.
_MOST_CATCHING_UP_S = 5.0


class Idling:
    """Whether one camera is idle, from connection to connection. Belongs to the thread that reads it.

    Args:
        camera: Name of the camera, for the log.
        config: The source.
        attention: What is found in its frames.
        let_go: Called with each packet that is given up without having been decoded, in the order of the pictures.
        on_idle: Called when it becomes idle, with None, and when it wakes, with the cause.
        on_late: Called with whether frames come that are older than usual, none of which may be left out.
    """

    def __init__(
        self,
        camera: str,
        config: SourceConfig,
        attention: Attention,
        let_go: Callable[[Arrival], None],
        on_idle: Callable[[WakeCause | None], None],
        on_late: Callable[[bool], None],
    ) -> None:
        self._camera = camera
        self._after_s = config.idle_after_s
        self._may = config.idle == "keyframes"
        self._least_look_s = max(_LEAST_LOOK_S, min(_MOST_LOOK_S, 0.0 if config.fps is None else 1 / config.fps))
        # Datagrams that nobody reads are lost once the system's buffer is full, which takes little.
        self._rests = config.transport != "udp"
        self._attention = attention
        self._on_idle, self._on_late = on_idle, on_late
        self._kept = Kept(let_go)
        self._blocks, self._sizes = Blocks(), Sizes()
        self._asked: deque[tuple[Lookout, Arrival]] = deque()
        self._cause: WakeCause | None = None
        self._said = False
        self.is_idle = False
        self._begin(0.0)

    def _begin(self, now_s: float) -> None:
        self._since_s = now_s  # idle, or awake
        self._searched_s = self._looked_s = -math.inf
        self._looked: Arrival | None = None
        self._key: Arrival | None = None  # the newest key frame while it was awake
        self._key_interval_s = math.inf
        self._late_until_s: float | None = None

    def begin(self, now_s: float) -> None:
        """Begin a connection, awake: nothing is known of what happened before."""
        self.end()
        self._begin(now_s)

    def end_round(self) -> None:
        """Keep nothing of what came before, because the file begins again; nothing was found in it."""
        self._kept.clear()
        self._asked.clear()
        self._blocks.forget()
        self._cause = None

    def end(self) -> None:
        """Be awake, and keep nothing: the connection has ended, or less is decoded for another reason."""
        self.end_round()
        if self.is_idle:
            self.is_idle = False
            self._on_idle("ended")
        self._be_late(None)

    def note(self, arrival: Arrival, *, can_idle: bool) -> None:
        """Note a packet that came; the camera may become idle with it.

        Args:
            arrival: The packet.
            can_idle: Whether key frames can be decoded alone now.
        """
        if not self._may:
            return
        packet, now_s = arrival.packet, arrival.arrived_s
        attention = self._attention
        has_grown = self._sizes.add(packet.size, packet.is_keyframe, now_s, attention.present > 0)
        if now_s - arrival.asked_s > _WAITED_S:
            self.caught_up()
        self.hurry(now_s)
        if self.is_idle:
            if has_grown:
                self._cause = self._cause or "sizes"
            return
        if not packet.is_keyframe:
            return
        if self._key is not None:
            self._key_interval_s = arrival.after_s(self._key)
        self._key = arrival
        quiet_s = now_s - max(attention.news_s, self._since_s)
        # Where frames are few or starved, a track may be there although nothing was told of it for long.
        if not can_idle or attention.present or quiet_s < self._after_s or self._late_until_s is not None:
            return
        if self._key_interval_s >= MOST_S:
            if math.isfinite(self._key_interval_s):
                self._say()
            return
        if attention.news_s < self._since_s:  # for nothing
            self._blocks.was_nothing()
        self.is_idle, self._since_s, self._looked_s, self._looked = True, now_s, -math.inf, None
        self._blocks.forget()
        self._on_idle(None)
        log.debug("camera %s: idle, decodes key frames alone", self._camera)

    def is_due(self, arrival: Arrival) -> bool:
        """Return whether an idle camera's packet is to be decoded now.

        What was held up comes all at once: then the stamps say how far apart its key frames are.
        """
        if not arrival.packet.is_keyframe:
            return False
        passed_s = arrival.arrived_s - self._looked_s
        if self._looked is not None:
            passed_s = max(passed_s, arrival.after_s(self._looked))
        return passed_s >= self._least_look_s - _EARLY_S

    def look(self, arrival: Arrival, picture: Image) -> Lookout | None:
        """Return with what question a key frame is to be handed on; None if the camera is to wake.

        Args:
            arrival: The key frame's packet.
            picture: (H, W, 3) uint8 BGR, the key frame as it lies on the detector's canvas.
        """
        now_s = self._looked_s = arrival.arrived_s
        self._looked = arrival
        motion = self._blocks.compare(picture)
        if motion == "moved":
            self._cause = "motion"
            return None
        if motion == "still" and not self._asked and now_s - self._searched_s < _SEARCH_S:
            lookout = Lookout("nothing")
        else:
            lookout, self._searched_s = Lookout(), now_s
            self._blocks.searched()
        self._asked.append((lookout, arrival))
        return lookout

    def caught_up(self) -> None:
        """Reading had to wait: frames are as new as usual."""
        self._be_late(None)

    def hurry(self, now_s: float) -> None:
        """Let newer frames overtake what was kept, if catching up has taken too long."""
        if self._late_until_s is not None and now_s > self._late_until_s:
            self.caught_up()

    def rest_s(self, arrival: Arrival) -> float:
        """Return how many seconds not to read: while the camera is idle, and no key frame is due."""
        if not self._rests or not self.is_idle or arrival.arrived_s - arrival.asked_s <= _WAITED_S:
            return 0.0
        due_s = self._looked_s + max(self._key_interval_s, self._least_look_s) - arrival.arrived_s
        return _REST_S if due_s > _REST_S + _EARLY_S else 0.0

    def may_be_ahead(self, arrival: Arrival, wait_s: float) -> bool:
        """Return whether a packet that will be due in `wait_s` seconds may be kept now: nothing is done with it yet."""
        return not arrival.packet.is_keyframe and wait_s <= _REST_S

    def wake(self, cause: WakeCause) -> None:
        """Wake the camera with the next packet that is kept."""
        self._cause = cause

    def keep(self, arrival: Arrival) -> list[Arrival]:
        """Keep an idle camera's packet; if something has woken it, return all kept packets, to be decoded now."""
        begins = bool(self._asked) and self._asked[-1][1] is arrival
        self._kept.add(arrival, begins=begins)
        while self._asked and (answer := self._asked[0][0].answer) is not None:
            _, asked = self._asked.popleft()
            if answer == "nothing":
                self._kept.drop_before(asked)
            elif answer == "lost":
                self._blocks.not_searched()
            else:
                self._cause = answer
        if self._attention.news_s >= self._since_s:
            self._cause = "face"
        elif self._cause is None and self._kept.is_too_much:
            self._cause = "key_frames"
            self._say()
        return [] if self._cause is None else self._wake(arrival.arrived_s)

    def _wake(self, now_s: float) -> list[Arrival]:
        cause, self._cause = self._cause, None
        arrivals = self._kept.take()
        log.debug(
            "camera %s: awake (%s), decodes the %d packets of the last %.1f s",
            self._camera, cause, len(arrivals), now_s - arrivals[0].arrived_s,
        )  # fmt: skip
        self.is_idle, self._since_s = False, now_s
        self._asked.clear()
        self._key, self._key_interval_s = None, math.inf
        self._on_idle(cause)
        self._be_late(now_s + _MOST_CATCHING_UP_S)
        return arrivals

    def _be_late(self, until_s: float | None) -> None:
        if (until_s is None) != (self._late_until_s is None):
            self._on_late(until_s is not None)
        self._late_until_s = until_s

    def _say(self) -> None:
        if not self._said:
            self._said = True
            log.info(
                "camera %s: its key frames are %.0f s or more, or too many bytes apart, so it does not stay idle; set "
                "its key-frame interval (GOP, I-frame interval) to two to four seconds", self._camera, MOST_S,
            )  # fmt: skip
